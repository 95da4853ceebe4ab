"""A map of particles whose angles are known."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from vitreous.core.errors import InputError
from vitreous.core.fsc import fsc, fsc_resolution
from vitreous.core.symmetry import canonical_name
from vitreous.data.volume import Volume
from vitreous.io.mrc import write_map
from vitreous.io.relion import read_dataset
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.jobs._particles import CtfParameters, open_images
from vitreous.methods.refinement.dataset import has_poses, particle_set, poses_of
from vitreous.methods.refinement.known_poses import reconstruct_particles
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.reconstruct import Reconstruction


class ReconstructParameters(CtfParameters):
    """What to reconstruct, and how."""

    input: str = parameter(help="particles STAR file with Euler angles and origins", aliases=("i",))
    symmetry: str = parameter("C1", help="point group", aliases=("sym",))
    ctf: bool = parameter(True, help="correct for the CTF")
    max_resolution: float = parameter(0.0, help="finest detail used (0: Nyquist)", unit="A", aliases=("maxres",), ge=0)
    padding: int = parameter(2, help="oversampling of Fourier space", aliases=("pad",), ge=1, le=4)
    half: int = parameter(0, help="only this half set, 1 or 2 (0: all)", aliases=("subset",), ge=0, le=2)
    class_number: int = parameter(0, help="only this class (0: all)", aliases=("class",), ge=0)
    split_halves: bool = parameter(False, help="also make the two half-maps and their FSC")
    wiener: float = parameter(
        0.0, help="regularisation: this share of the mean CTF^2 of each shell is added to it", ge=0, advanced=True
    )
    gridding_iterations: int = parameter(
        0, help="iterations of gridding weights (0: plain division)", aliases=("iter",), ge=0, advanced=True
    )


class ReconstructJob(Job):
    """Reconstruct a map from particles at known poses."""

    name: ClassVar[str] = "reconstruct"
    folder: ClassVar[str] = "Reconstruct"
    relion_type: ClassVar[str] = "relion.reconstruct"
    help: ClassVar[str] = "Reconstruct a map from particles with known angles"
    Parameters: ClassVar[type[JobParameters]] = ReconstructParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Read the particles, back-project them, write map.mrc (and half-maps)."""
        symmetry = canonical_name(params.symmetry)
        path = context.project / params.input
        dataset = read_dataset(path)
        if not has_poses(dataset):
            raise InputError(path, "has no Euler angles", "Give the run_data.star of a refinement.")
        chosen = np.ones(len(dataset), dtype=bool)
        if params.half:
            chosen &= _column(dataset.rows, "half_set", path) == params.half
        if params.class_number:
            chosen &= _column(dataset.rows, "class_number", path) == params.class_number
        if not chosen.any():
            raise InputError(path, "has no particle of that half or class", "Leave --half and --class-number out.")
        dataset = dataset.take(chosen)
        images = open_images(dataset, context.project, ctf=params.ctf)
        particles = particle_set(dataset, images, apply_ctf=params.ctf, treatment=params.treatment())
        poses = poses_of(dataset, images.pixel_size)
        everything = np.arange(len(dataset))
        map_path = context.directory / "map.mrc"
        write_map(map_path, _map_of(particles, poses, everything, params, symmetry))
        outputs = Outputs(nodes={context.relative(map_path): "DensityMap.mrc.relion"})
        outputs.metrics["n_particles"] = len(dataset)
        outputs.summary = f"map of {len(dataset)} particles in {symmetry}"
        if params.split_halves:
            first = _halves(dataset.rows, context.seed, len(dataset))
            halves = [everything[first], everything[~first]]
            maps = [_map_of(particles, poses, indices, params, symmetry) for indices in halves]
            for number, half in enumerate(maps, 1):
                half_path = context.directory / f"map_half{number}_class001_unfil.mrc"
                write_map(half_path, half)
                outputs.nodes[context.relative(half_path)] = "DensityMap.mrc.relion.halfmap"
            curve = fsc(maps[0].density, maps[1].density)
            resolution = fsc_resolution(curve, particles.box, particles.pixel_size)
            outputs.metrics["fsc143_resolution_A"] = round(resolution, 3)
            outputs.summary += f"; half-maps agree to {resolution:.2f} A (unmasked FSC 0.143)"
        return outputs


def _column(rows: Any, name: str, path: Any) -> Any:
    if name not in rows:
        raise InputError(path, f"has no column {name}", "Give the run_data.star of a refinement, or leave it out.")
    return rows[name]


def _halves(rows: Any, seed: int, n: int) -> Any:
    """True for the first half: by the half_set column, else at random."""
    if "half_set" in rows:
        return rows["half_set"] == 1
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return order < n // 2


def _map_of(particles: ParticleSet, poses: Poses, indices: Any, params: ReconstructParameters, symmetry: str) -> Volume:
    max_shell = None
    if params.max_resolution > 0:
        max_shell = int(particles.box * particles.pixel_size / params.max_resolution)
    return reconstruct_particles(
        particles,
        indices,
        torch.from_numpy(poses.rotations[indices]),
        torch.from_numpy(poses.origins[indices]),
        symmetry=symmetry,
        padding=params.padding,
        max_shell=max_shell,
        wiener=params.wiener,
        options=Reconstruction(gridding_iterations=params.gridding_iterations),
    )
