"""Particles brought into a project: their stacks found and checked, their optics completed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset, Kind
from vitreous.io.cryosparc import read_cryosparc
from vitreous.io.particle_paths import locate_stacks
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.io.stacks import ParticleStack, open_stacks
from vitreous.job import Context, Outputs

log = logging.getLogger(__name__)
_NODE = "ParticleGroupMetadata.star.relion"


def read_star_of(path: Path, kind: Kind) -> Dataset:
    """A STAR file that lists what it should."""
    dataset = read_dataset(path)
    if dataset.kind != kind:
        raise InputError(path, f"lists {dataset.kind}, not {kind}", f"Give it with --{dataset.kind}.")
    return dataset


def _read_particles(path: Path, passthrough: str, context: Context) -> Dataset:
    if path.suffix == ".cs":
        return read_cryosparc(path, context.project / passthrough if passthrough else None)
    if passthrough:
        raise InputError("--passthrough", "belongs to a .cs file", "Leave it out with a STAR file.")
    return read_star_of(path, "particles")


def _of_groups(dataset: Dataset, stacks: list[tuple[Any, ParticleStack]], name: str) -> list[Any]:
    """What the stacks of each optics group say: `box` or `pixel_size`; of groups without particles, the first's."""
    known = {int(dataset.rows["optics_group"][members[0]]): getattr(stack, name) for members, stack in stacks}
    return [known.get(int(group), getattr(stacks[0][1], name)) for group in dataset.optics["optics_group"]]


def import_particles(params: Any, context: Context) -> Outputs:
    """Write particles.star, its images found and checked, its optics made whole from headers and parameters."""
    path = context.project / params.particles
    dataset = _read_particles(path, params.passthrough, context)
    dataset = locate_stacks(dataset, context.project, path)
    stacks = open_stacks(dataset, context.project)
    for _, each in stacks:
        each.check()
    stack = stacks[0][1]
    optics = dataset.optics
    if "box" not in optics:
        optics = optics.with_columns(box=_of_groups(dataset, stacks, "box"))
    if "pixel_size" not in optics:
        optics = optics.with_columns(pixel_size=params.pixel_size or _of_groups(dataset, stacks, "pixel_size"))
    if "image_dimensionality" not in optics:
        optics = optics.with_columns(image_dimensionality=2)
    for column in ("voltage", "cs", "amplitude_contrast"):
        if column not in optics:
            optics = optics.with_columns(**{column: float(getattr(params, column))})
            log.warning("particles do not give %s; %g is used", column, getattr(params, column))
    if params.particles_optics_group_name:
        if optics.n_rows != 1:
            raise InputError(path, f"has {optics.n_rows} optics groups; only one can be renamed", "Leave the name out.")
        optics = optics.with_columns(optics_group_name=params.particles_optics_group_name)
    dataset = Dataset("particles", optics, dataset.rows)
    target = context.directory / "particles.star"
    write_dataset(target, dataset)
    n_files = len({name.partition("@")[2] for name in dataset.rows["image_name"].tolist()})
    return Outputs(
        nodes={context.relative(target): _NODE},
        metrics={"n_particles": len(dataset), "n_stacks": n_files, "box": stack.box, "pixel_size_A": stack.pixel_size},
        summary=f"{len(dataset)} particles in {n_files} stacks, box {stack.box}, {stack.pixel_size:.4g} A/px",
    )
