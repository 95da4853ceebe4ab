"""The FSC as the EMDB takes it: an XML file of frequency and correlation."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float

from vitreous.runtime.atomic import atomic_path


def write_fsc_xml(
    path: str | Path, frequency: Float[np.ndarray, "n_shells"], curve: Float[np.ndarray, "n_shells"], title: str
) -> None:
    """Write an FSC curve; frequency in 1/A. The form is the EMDB's fsc.xsd."""
    axes = {"xaxis": "Resolution (A-1)", "yaxis": "Correlation Coefficient"}
    root = ElementTree.Element("fsc", {"title": title, **axes})
    for x, y in zip(frequency, curve, strict=True):
        point = ElementTree.SubElement(root, "coordinate")
        ElementTree.SubElement(point, "x").text = f"{x:.6f}"
        ElementTree.SubElement(point, "y").text = f"{y:.6f}"
    ElementTree.indent(root)
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="unicode")
