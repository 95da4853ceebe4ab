"""Simulated cells: a target among other proteins, thick ice, defocus spread, dose; and what is true of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vitreous.core.ctf import Microscope
from vitreous.data.volume import Volume
from vitreous.io.models import read_atoms
from vitreous.jobs.make_template import exposed
from vitreous.methods.matching.transfer import Lens
from vitreous.methods.simulation.exposure import Acquisition, Specimen, record_micrograph
from vitreous.methods.simulation.ice import Ice
from vitreous.methods.simulation.optics import Envelope, Focus
from vitreous.methods.simulation.potential import Projector, potential_map, radius_of
from vitreous.methods.simulation.scene import Crowd, Scene, random_scene

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("VITREOUS_DATA", REPOSITORY.parent / "shared/data"))
MICROSCOPE = Microscope(300.0, 2.7, 0.07)
TARGET = "models/6z6u_apoferritin.pdb.gz"
THICKNESSES = (500.0, 750.0, 1000.0, 1250.0, 1500.0)  # A
OTHERS = {"more/models/1oel.pdb.gz": "", "more/models/6cvm.pdb.gz": "1", "models/1igy_antibody.cif.gz": ""}


@dataclass(frozen=True)
class Cell:
    """image: electrons a pixel. positions: (n, 2) x, y of the targets' centres; heights: A, added to the defocus."""

    image: torch.Tensor
    lens: Lens
    scene: Scene


@dataclass(frozen=True)
class Recipe:
    """size, pixels; pixel_size, thickness (A); dose (e/A^2); targets and others (of each kind) wanted."""

    size: int = 1024
    pixel_size: float = 1.5
    thickness: float = 600.0
    dose: float = 40.0
    defocus: float = 8000.0
    targets: int = 16
    others: int = 20
    b_factor: float = 30.0


def held_out(seed: int) -> Recipe:
    """Ice from 50 to 150 nm, five thicknesses in turn, and a defocus between 0.6 and 1.4 um: no two cells alike."""
    thickness = THICKNESSES[seed % len(THICKNESSES)]
    return Recipe(thickness=thickness, defocus=float(np.random.default_rng((seed, 1)).integers(60, 141) * 100))


def template_of(recipe: Recipe, box: int) -> Volume:
    """The target as the micrograph's exposure shows it."""
    atoms = read_atoms(DATA / TARGET).centred()
    return exposed(potential_map(atoms, box, recipe.pixel_size), 0.0, recipe.dose, 300.0, weighted=True)


def make_cell(recipe: Recipe, seed: int) -> Cell:
    """One micrograph; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    shape = (recipe.size, recipe.size)
    taken = Acquisition(
        shape, recipe.pixel_size, MICROSCOPE, dose=recipe.dose, n_frames=1,
        envelope=Envelope(recipe.b_factor), ice=Ice(recipe.thickness),
    )  # fmt: skip
    focus = Focus(recipe.defocus + 100.0, recipe.defocus - 100.0, 30.0)
    projector, scene = _kind(DATA / TARGET, "", recipe, recipe.targets, rng)
    specimen = Specimen(projector, scene, focus, taken, rng)
    for name, assembly in OTHERS.items():
        specimen.add(*_kind(DATA / name, assembly, recipe, recipe.others, rng), focus)
    image = torch.from_numpy(record_micrograph(specimen, taken, rng))
    lens = Lens(recipe.pixel_size, MICROSCOPE, focus.u, focus.v, focus.angle, 0.0, recipe.b_factor)
    return Cell(image, lens, scene)


def _kind(path: Path, assembly: str, recipe: Recipe, wanted: int, rng: np.random.Generator) -> tuple[Projector, Scene]:
    atoms = read_atoms(path, assembly=assembly or None).centred()
    diameter = 2.0 * radius_of(atoms)
    box = int(-(-(diameter + 24.0) / recipe.pixel_size // 8)) * 8
    crowd = Crowd(wanted, 1.05 * diameter, 0.6 * diameter, recipe.thickness, diameter)
    scene = random_scene((recipe.size, recipe.size), recipe.pixel_size, crowd, rng)
    return Projector(atoms, box, recipe.pixel_size), scene
