"""Atomic models: PDB and mmCIF files (also .gz) through gemmi."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.atoms import Atoms

_WATER = {"HOH", "DOD", "WAT", "H2O", "OH2", "SOL"}


def read_atoms(
    path: str | Path, *, waters: bool = False, hydrogens: bool = False, assembly: str | None = None
) -> Atoms:
    """Atoms of the first model of a PDB or mmCIF file.

    waters, hydrogens: keep them. Of alternative locations the most occupied one is kept, with occupancy 1.
    assembly: name of the biological assembly to build ("1"), None for the atoms as deposited.
    Raises InputError for files that are no models, or lack the assembly.
    """
    file = Path(path)
    structure = _read_structure(file)
    model = structure[0]
    if assembly is not None:
        model = _build_assembly(file, structure, assembly)
    chosen = []
    for chain in model:
        for residue in chain:
            if waters or residue.name not in _WATER:
                chosen.extend(_one_location(residue, hydrogens))
    if not chosen:
        raise InputError(file, "holds no atoms", "Give a PDB or mmCIF file with coordinates.")
    positions = np.array([atom.pos.tolist() for atom in chosen], dtype=np.float64)
    if not np.isfinite(positions).all():
        raise InputError(file, "holds atoms without coordinates", "Give a complete model.")
    return Atoms(
        positions=positions,
        elements=np.array([atom.element.name for atom in chosen]),
        b_factors=np.array([atom.b_iso for atom in chosen], dtype=np.float64),
        occupancies=np.array([1.0 if atom.has_altloc() else atom.occ for atom in chosen], dtype=np.float64),
    )


def _read_structure(file: Path) -> gemmi.Structure:
    if not file.is_file():
        raise InputError(file, "is not there", "Check the name.")
    try:
        structure = gemmi.read_structure(str(file))
    except (RuntimeError, ValueError, OSError, IndexError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(file, f"cannot be read as a model ({reason})", "Give a PDB or mmCIF file.") from error
    if not len(structure):
        raise InputError(file, "holds no model", "Give a PDB or mmCIF file with coordinates.")
    return structure


def _build_assembly(file: Path, structure: gemmi.Structure, name: str) -> gemmi.Model:
    for assembly in structure.assemblies:
        if assembly.name == name:
            return gemmi.make_assembly(assembly, structure[0], gemmi.HowToNameCopiedChain.AddNumber)
    known = ", ".join(assembly.name for assembly in structure.assemblies) or "none"
    raise InputError(file, f"has no assembly {name} (it has: {known})", "Choose one of these.")


def _one_location(residue: gemmi.Residue, hydrogens: bool) -> list[gemmi.Atom]:
    """Atoms of a residue, each once: the whole residue's most occupied alternative, for a consistent conformer."""
    weight: dict[str, float] = {}
    for atom in residue:
        if atom.has_altloc():
            weight[atom.altloc] = weight.get(atom.altloc, 0.0) + atom.occ
    kept: dict[str, gemmi.Atom] = {}
    for atom in residue:
        if atom.is_hydrogen() and not hydrogens:
            continue
        if atom.name not in kept or _preferred(atom, kept[atom.name], weight):
            kept[atom.name] = atom
    return list(kept.values())


def _preferred(atom: gemmi.Atom, current: gemmi.Atom, weight: dict[str, float]) -> bool:
    return (weight.get(atom.altloc, 0.0), atom.occ) > (weight.get(current.altloc, 0.0), current.occ)
