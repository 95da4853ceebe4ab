"""A 3D classification between two iterations, read back from its STAR files and maps: ours or RELION's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map
from vitreous.io.relion import read_table, read_tables


@dataclass(frozen=True)
class ClassificationFiles:
    """What an optimiser file and those it names hold.

    data: STAR file of the particles, relative to the project; maps: one a class; noise: (groups, shells) by optics
    group, or one row for all (RELION 3.1 keeps it by micrograph: then the mean, weighted by particles); ssnr, sigma2,
    tau2: (k, shells); powers are those of unnormalised transforms; directions: (k, pixels) shares, None where there are
    none; resolution and sigma_offset in A; changes: of classes (fraction), orientations (degrees), offsets (A).
    """

    iteration: int
    data: str
    maps: list[Volume]
    distribution: Float[np.ndarray, "k"]
    noise: Float[np.ndarray, "groups shells"]
    ssnr: Float[np.ndarray, "k shells"]
    sigma2: Float[np.ndarray, "k shells"]
    tau2: Float[np.ndarray, "k shells"]
    directions: Float[np.ndarray, "k pixels"] | None
    resolution: float
    max_shell: int
    sigma_offset: float
    log_likelihood: float
    changes: tuple[float, float, float]


def is_optimiser(name: str) -> bool:
    """Whether a file name is that of an optimiser file."""
    return name.endswith("_optimiser.star")


def data_of_optimiser(path: Path) -> str:
    """The particle STAR file that an optimiser file names."""
    return str(read_table(path, "optimiser_general").row(0)["rlnExperimentalDataStarFile"])


def read_classification(path: Path, project: Path) -> ClassificationFiles:
    """Read an optimiser file and what it names, relative to the project. Raises InputError for what is no 3D one."""
    optimiser = read_table(path, "optimiser_general").row(0)
    if int(optimiser["rlnCurrentIteration"]) < 1 or int(optimiser["rlnDoSplitRandomHalves"]):
        what = "is that of a refinement in halves, or of no iteration yet"
        raise InputError(path, what, "Give the run_itNNN_optimiser.star of a 3D classification.")
    model_path = project / str(optimiser["rlnModelStarFile"])
    model = read_tables(model_path)
    general, classes = model["model_general"].row(0), model["model_classes"]
    if int(general["rlnReferenceDimensionality"]) != 3:
        raise InputError(model_path, "is a model of 2D classes", "Give the optimiser file of a 3D classification.")
    k, scale = classes.n_rows, float(general["rlnOriginalImageSize"]) ** 4
    curves = [model[f"model_class_{number}"] for number in range(1, k + 1)]
    changes = [float(optimiser[f"rlnChangesOptimal{what}"]) for what in ("Classes", "Orientations", "Offsets")]
    return ClassificationFiles(
        iteration=int(optimiser["rlnCurrentIteration"]),
        data=str(optimiser["rlnExperimentalDataStarFile"]),
        maps=[read_map(project / str(name)) for name in classes["reference_image"]],
        distribution=classes["class_distribution"].astype(np.float64),
        noise=_noise(model) * scale,
        ssnr=np.stack([curve["rlnSsnrMap"] for curve in curves]),
        sigma2=np.stack([curve["rlnReferenceSigma2"] for curve in curves]) * scale,
        tau2=np.stack([curve["rlnReferenceTau2"] for curve in curves]) * scale,
        directions=_directions(model, k),
        resolution=float(general["rlnCurrentResolution"]),
        max_shell=int(general["rlnCurrentImageSize"]) // 2,
        sigma_offset=float(general["rlnSigmaOffsetsAngst"]),
        log_likelihood=float(general["rlnLogLikelihood"]),
        changes=(changes[0], changes[1], changes[2]),
    )


def _noise(model: Mapping[str, Table]) -> Float[np.ndarray, "groups shells"]:
    by_optics = sorted(name for name in model if name.startswith("model_optics_group_"))
    if by_optics:
        by_optics.sort(key=_number)
        return np.stack([model[name]["rlnSigma2Noise"] for name in by_optics])
    groups = model["model_groups"]
    curves = np.stack([model[f"model_group_{int(number)}"]["rlnSigma2Noise"] for number in groups["group_number"]])
    weights: Any = groups["rlnGroupNrParticles"].astype(np.float64)
    return np.average(curves, axis=0, weights=weights)[None]


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[-1])


def _directions(model: Mapping[str, Table], k: int) -> Float[np.ndarray, "k pixels"] | None:
    tables = [model.get(f"model_pdf_orient_class_{number}") for number in range(1, k + 1)]
    found = [table["rlnOrientationDistribution"] for table in tables if table is not None]
    return np.stack(found).astype(np.float64) if len(found) == k else None
