"""Simulate particle images as extraction leaves them: inverted, normalised, with their truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import StackWriter, open_stack
from vitreous.io.relion import write_dataset
from vitreous.job import Context, Job, Outputs, parameter
from vitreous.jobs._simulation import (
    SampleParameters,
    acquisition,
    draw_focus,
    each,
    even,
    focus_columns,
    generators,
    load_sample,
    make_projector,
    optics_table,
    pose_columns,
    write_truth_map,
)
from vitreous.methods.simulation.exposure import Acquisition
from vitreous.methods.simulation.optics import Focus
from vitreous.methods.simulation.particles import Poses, particle_images, particle_signal, resize
from vitreous.methods.simulation.potential import Projector
from vitreous.methods.simulation.scene import preferred_rotations, uniform_rotations

PARTICLES_NODE = "ParticleGroupMetadata.star.relion"
_BATCH = 16  # images made at a time
_CANVAS_FACTOR = 2  # images are made so much larger and then cut: defocus spreads a particle beyond its box
_POSE_COLUMNS = ("rot", "tilt", "psi", "origin_x", "origin_y")


class SimulateParticlesParameters(SampleParameters):
    """What `simulate-particles` takes."""

    n_particles: int = parameter(1000, help="particles to make", aliases=("n",), ge=1)
    per_micrograph: int = parameter(100, help="particles that share one micrograph's defocus", ge=1)
    box: int = parameter(0, help="box (0: 1.5 diameters)", unit="px", ge=0)
    offset: float = parameter(2.0, help="largest offset from the box's centre in x and y", unit="px", ge=0)
    dose_weighting: bool = parameter(True, help="signal as dose weighting leaves it (no: as a plain sum)")
    noise: bool = parameter(True, help="add ice and shot noise and normalise (no: the signal alone)")


@dataclass(frozen=True)
class _Group:
    """Particles of one imagined micrograph; offsets (n, 2) as x, y pixels."""

    stack: str
    n: int
    focus: Focus
    rotations: Tensor
    offsets: NDArray[np.float64]


@dataclass(frozen=True)
class _Images:
    """How images of one group are made; noise None: the signal alone."""

    projector: Projector
    acquisition: Acquisition
    box: int
    noise: np.random.Generator | None


class SimulateParticles(Job):
    """Particle images alone, without micrographs: protein white, background of mean 0 and deviation 1."""

    name = "simulate-particles"
    folder = "Simulate"
    relion_type = "vitreous.simulate.particles"
    help = "simulate particle images of an atomic model, with their truth"
    Parameters = SimulateParticlesParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write Particles/*.mrcs, particles.star (no poses), truth_particles.star (with poses) and truth.mrc."""
        sample = load_sample(params, context)
        box = params.box or even(3.0 * sample.radius / params.pixel_size)
        if box % 2:
            raise InputError("--box", f"is {box}", "Give an even number.")
        canvas = _CANVAS_FACTOR * box
        projector = make_projector(sample, params.pixel_size, margin_px=params.offset)
        taken = acquisition(params, (canvas, canvas), 1, dose_weighting=params.dose_weighting)
        n_groups = -(-params.n_particles // params.per_micrograph)

        def make(index: int) -> _Group:
            path = context.directory / "Particles" / f"group_{index + 1:04d}.mrcs"
            drawn, noise = generators(context.seed, index)
            n = min(params.per_micrograph, params.n_particles - index * params.per_micrograph)
            group = _draw(params, context.relative(path), n, drawn)
            if not (context.resume and _is_whole(path, n, box)):
                images = _Images(projector, taken, box, noise if params.noise else None)
                _write_stack(path, group, images)
            return group

        memory = 40.0 * _BATCH * (canvas**2 + 8.0 * projector.box**2)
        groups = list(each(make, n_groups, "simulating particles", context, memory))
        rows = _table(groups, params.pixel_size)
        optics = optics_table(
            params,
            micrograph_pixel_size=params.pixel_size,
            pixel_size=params.pixel_size,
            box=box,
            image_dimensionality=2,
        )
        target = context.directory / "particles.star"
        write_dataset(target, Dataset("particles", optics, rows.without(*_POSE_COLUMNS)))
        write_dataset(context.directory / "truth_particles.star", Dataset("particles", optics, rows))
        write_truth_map(params, sample, context)
        return Outputs(
            nodes={context.relative(target): PARTICLES_NODE},
            metrics={
                "n_particles": rows.n_rows,
                "n_atoms": len(sample.atoms),
                "particle_diameter_A": 2.0 * sample.radius,
                "box_px": box,
            },
            summary=f"{rows.n_rows} particles of {2 * sample.radius:.0f} A in boxes of {box} px",
        )


def _draw(params: SimulateParticlesParameters, stack: str, n: int, rng: np.random.Generator) -> _Group:
    focus = draw_focus(params, rng)
    if params.preferred_kappa > 0:
        direction = (params.preferred_rot, params.preferred_tilt)
        rotations = preferred_rotations(n, direction, params.preferred_kappa, rng)
    else:
        rotations = uniform_rotations(n, rng)
    return _Group(stack, n, focus, rotations, rng.uniform(-params.offset, params.offset, (n, 2)))


def _write_stack(path: Path, group: _Group, images: _Images) -> None:
    """Images of one group, normalised with noise, or the bare signal without."""
    taken, box = images.acquisition, images.box
    with StackWriter(path, taken.pixel_size) as writer:
        for start in range(0, group.n, _BATCH):
            part = slice(start, start + _BATCH)
            poses = Poses(group.rotations[part], torch.from_numpy(group.offsets[part]))
            if images.noise is None:
                writer.append(resize(particle_signal(images.projector, poses, group.focus, taken), box))
            else:
                made = particle_images(images.projector, poses, group.focus, taken, box=box, rng=images.noise)
                writer.append(made)


def _is_whole(path: Path, n: int, box: int) -> bool:
    """Whether an earlier run wrote this stack: it opens and has its size."""
    if not path.is_file():
        return False
    try:
        with open_stack(path) as stack:
            return stack.shape == (n, box, box)
    except InputError:
        return False


def _table(groups: list[_Group], pixel_size: float) -> Table:
    """All particles; origins bring them back to the centre, so they are the negative of where they lie."""
    tables = []
    for group in groups:
        columns = {
            "image_name": np.array([f"{i + 1:06d}@{group.stack}" for i in range(group.n)], dtype=object),
            "micrograph_name": np.full(group.n, Path(group.stack).with_suffix(".mrc").name, dtype=object),
            "optics_group": np.ones(group.n, dtype=np.int64),
            **focus_columns([group.focus] * group.n),
            **pose_columns(group.rotations),
            "origin_x": -group.offsets[:, 0] * pixel_size,
            "origin_y": -group.offsets[:, 1] * pixel_size,
        }
        tables.append(Table(columns))
    table = Table.concatenate(tables)
    return table.with_columns(half_set=1 + np.arange(table.n_rows) % 2)
