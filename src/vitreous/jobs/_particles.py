"""What the jobs that align particles share: reading particles, and telling what is wrong with them."""

from __future__ import annotations

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.io.particle_paths import locate_stacks
from vitreous.io.relion import read_dataset
from vitreous.io.stacks import ParticleStack
from vitreous.job import Context
from vitreous.methods.refinement.dataset import particle_set
from vitreous.methods.refinement.particles import ParticleSet


def read_particles(input_star: str, context: Context, *, ctf: bool, diameter: float) -> tuple[Dataset, ParticleSet]:
    """The table and the images of a particle STAR file. diameter of the mask in A, 0 where not given."""
    path = context.project / input_star
    dataset = read_dataset(path)
    if dataset.kind != "particles":
        raise InputError(path, f"lists {dataset.kind}, not particles", "Give the STAR file of extracted particles.")
    dataset = locate_stacks(dataset, context.project, path)
    images = ParticleStack(dataset, context.project)
    particles = particle_set(dataset, images, apply_ctf=ctf)
    if diameter > images.box * images.pixel_size:
        raise InputError(
            "--particle-diameter",
            f"{diameter:g} A is more than the box of {images.box * images.pixel_size:.0f} A",
            "Give the diameter of the particle, or extract in a larger box.",
        )
    return dataset, particles


def mask_diameter(given: float, particles: ParticleSet) -> float:
    """Diameter of the particle mask in A: as given, or 90% of the box."""
    return given or 0.9 * particles.box * particles.pixel_size
