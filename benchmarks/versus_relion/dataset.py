"""Simulated particles with their truth, made by our simulate-particles job: one kind of molecule or several mixed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import torch

from vitreous.core.masks import distance_grid
from vitreous.core.rotations import euler_to_matrix
from vitreous.data.atoms import Atoms
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import write_map
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.io.stacks import ParticleStack
from vitreous.job import Context
from vitreous.jobs.simulate_particles import SimulateParticles
from vitreous.methods.simulation.ferritin import ferritin, ferritin_subunit
from vitreous.methods.simulation.potential import potential_map

_HIDDEN = ("rot", "tilt", "psi", "origin_x", "origin_y", "class_number", "half_set")


@dataclass(frozen=True)
class Settings:
    """What is simulated. n_particles: of each kind; dose (e/A^2) sets the noise; offset: largest, pixels."""

    n_particles: int
    box: int = 64
    pixel_size: float = 3.0
    dose: float = 10.0
    offset: float = 2.0
    defocus_min: float = 10000.0
    defocus_max: float = 25000.0
    seed: int = 1


@dataclass(frozen=True)
class SimulatedSet:
    """particles: STAR file without poses; truth: the same rows with poses and class_number (from 1); both in project.

    maps: the true map of each kind, all in one frame, in which the true poses are as well; snr: variance of the
    signal over that of the noise within the particle's circle; diameter in A.
    """

    project: Path
    particles: str
    truth: str
    maps: tuple[str, ...]
    diameter: float
    snr: float

    def true_classes(self) -> np.ndarray:
        """Kind of each particle, from 0."""
        return read_dataset(self.project / self.truth).rows["class_number"].astype(np.int64) - 1


def cage() -> dict[str, Atoms]:
    """One kind: the ferritin look-alike, symmetry O."""
    return {"cage": ferritin()}


def broken_cages(n: int = 3) -> dict[str, Atoms]:
    """Up to three asymmetric kinds: the same twelve subunits of a cage, and four of the other twelve in each."""
    subunit = len(ferritin_subunit())
    whole = ferritin()
    centres = whole.positions.reshape(24, subunit, 3).mean(1)
    pole = np.array([0.52, 0.31, 0.79])  # near no axis of the group
    order = np.argsort(-(centres @ pole), kind="stable")
    core, rest = order[:12], order[12:]
    east = np.cross(pole, [0.0, 0.0, 1.0])
    azimuth = np.arctan2(centres[rest] @ np.cross(pole, east), centres[rest] @ east)
    groups = rest[np.argsort(azimuth, kind="stable")].reshape(3, 4)
    kinds = {}
    for k in range(n):
        members = np.sort(np.concatenate([core, groups[k]]))
        kinds[f"broken{k + 1}"] = whole.take((members[:, None] * subunit + np.arange(subunit)).reshape(-1))
    return kinds


def simulate(project: Path, kinds: Mapping[str, Atoms], settings: Settings) -> SimulatedSet:
    """Simulate each kind, mix them in random order; nothing is done again where the same set is there already."""
    recipe = {"kinds": {name: len(atoms) for name, atoms in kinds.items()}, "settings": asdict(settings)}
    record = project / "simulated.json"
    if record.is_file():
        known = json.loads(record.read_text())
        if known.pop("set_recipe") == recipe:
            return SimulatedSet(project, known["particles"], known["truth"], tuple(known["maps"]), **known["figures"])
    project.mkdir(parents=True, exist_ok=True)
    tables = []
    for number, (name, atoms) in enumerate(kinds.items(), 1):
        dataset = _simulate_kind(project, name, atoms, number, settings)
        tables.append(dataset.rows)
        write_map(project / f"truth_{name}.mrc", potential_map(atoms, settings.box, settings.pixel_size))
    order = np.random.default_rng(settings.seed).permutation(settings.n_particles * len(kinds))
    mixed = Dataset("particles", dataset.optics, Table.concatenate(tables).take(order))
    write_dataset(project / "truth.star", mixed)
    write_dataset(project / "particles.star", Dataset("particles", mixed.optics, mixed.rows.without(*_HIDDEN)))
    radius = max(float(np.linalg.norm(atoms.positions, axis=1).max()) for atoms in kinds.values())
    figures = {"diameter": 2.0 * radius, "snr": _signal_to_noise(mixed, project, radius)}
    maps = [f"truth_{name}.mrc" for name in kinds]
    made: dict[str, Any] = {"particles": "particles.star", "truth": "truth.star", "maps": maps, "figures": figures}
    record.write_text(json.dumps({"set_recipe": recipe, **made}, indent=1))
    return SimulatedSet(project, "particles.star", "truth.star", tuple(maps), **figures)


def _simulate_kind(project: Path, name: str, atoms: Atoms, number: int, settings: Settings) -> Dataset:
    model = project / f"{name}.cif"
    write_model(model, atoms)
    directory = project / "Simulate" / name
    directory.mkdir(parents=True, exist_ok=True)
    params = SimulateParticles.Parameters(
        model=model.name,
        n_particles=settings.n_particles,
        box=settings.box,
        pixel_size=settings.pixel_size,
        dose=settings.dose,
        offset=settings.offset,
        defocus_min=settings.defocus_min,
        defocus_max=settings.defocus_max,
    )
    seed = 1000 * settings.seed + number
    SimulateParticles().run(params, Context(project, directory, torch.device("cpu"), 1, seed, 1 << 30))
    dataset = read_dataset(directory / "truth_particles.star")
    # The job puts each model's centre of mass at the origin; the true poses are to hold in the models' common frame.
    rows = dataset.rows
    rotations = euler_to_matrix(*(torch.from_numpy(rows[angle]) for angle in ("rot", "tilt", "psi"))).numpy()
    moved = rotations @ atoms.positions.mean(0)
    names = [one.replace("group_", f"{name}_") for one in rows["micrograph_name"]]
    return dataset.with_columns(
        origin_x=rows["origin_x"] + moved[:, 0],
        origin_y=rows["origin_y"] + moved[:, 1],
        class_number=np.full(len(dataset), number),
        micrograph_name=np.array(names, dtype=object),
    )


def write_model(path: Path, atoms: Atoms) -> None:
    """An mmCIF file of bare atoms, each a residue of its own."""
    chain = gemmi.Chain("A")
    for number, (position, element, b_factor) in enumerate(
        zip(atoms.positions, atoms.elements, atoms.b_factors, strict=True), 1
    ):
        atom = gemmi.Atom()
        atom.name, atom.element, atom.b_iso = str(element), gemmi.Element(str(element)), float(b_factor)
        atom.pos = gemmi.Position(*position)
        residue = gemmi.Residue()
        residue.name, residue.seqid = "UNK", gemmi.SeqId(number, " ")
        residue.add_atom(atom)
        chain.add_residue(residue)
    structure, model = gemmi.Structure(), gemmi.Model(1)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))


def _signal_to_noise(dataset: Dataset, project: Path, radius: float) -> float:
    """Variance within the particle's circle in excess of the background's, which extraction made one."""
    images = ParticleStack(dataset, project)
    chosen = images[np.arange(min(200, len(images)))]
    inside = distance_grid(images.box) <= radius / images.pixel_size
    return max(0.0, float(chosen[:, inside].var(1).mean()) - 1.0)
