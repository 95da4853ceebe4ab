"""Compare a finished project with the truth of the simulation that made its movies."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("compare-truth", help=__doc__)
@click.argument("project", metavar="PROJECT")
@click.option("--truth", required=True, help="folder with truth.mrc and the truth_*.star files")
@click.option("--particle-diameter", "--particle_diameter", required=True, type=float, help="longest diameter [A]")
@click.option("--symmetry", "--sym", default="C1", help="point group of the map", show_default=True)
def command(project: str, truth: str, particle_diameter: float, symmetry: str) -> None:
    """Print the figures; leave truth.json, truth_fsc.star and truth_aligned.mrc in the project."""
    import numpy as np

    from vitreous.data.table import Table
    from vitreous.io.mrc import write_map
    from vitreous.io.relion import write_tables
    from vitreous.pipeline.truth import Sample, compare_all, find_results
    from vitreous.runtime.atomic import write_text

    root = Path(project)
    figures, comparison = compare_all(root, Path(truth), find_results(root), Sample(particle_diameter, symmetry))
    text = json.dumps(figures, indent=2)
    write_text(root / "truth.json", text + "\n")
    if comparison is not None:
        shells = np.arange(len(comparison.curve))
        length = comparison.aligned.box * comparison.aligned.voxel_size
        curve = Table({"shell": shells, "frequency": shells / length, "truth_fsc": comparison.curve.numpy()})
        write_tables(root / "truth_fsc.star", {"fsc": curve})
        write_map(root / "truth_aligned.mrc", comparison.aligned)
    click.echo(text)
