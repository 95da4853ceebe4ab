"""A ferritin look-alike that needs no file: 24 helical subunits on a shell with octahedral symmetry.

Each subunit is a left-handed coiled coil of four antiparallel alpha helices (A-D) and a short helix E along the
4-fold axis, as in horse spleen apoferritin (Lawson et al. (1991) Nature 349, 541; Banyard, Stammers and Harrison
(1978) Nature 271, 282): inner radius about 40 A, outer about 60 A, 4-fold axes on x, y and z. The angles of the
bundle on the shell were found once by a search for the closest packing whose backbones stay 5 A apart. Side
chains take the first rotamer that clears what stands already; where none does, a smaller residue is put.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vitreous.core.symmetry import symmetry_matrices
from vitreous.data.atoms import Atoms
from vitreous.methods.simulation.helix import BACKBONE_ELEMENTS, Points, helix_backbone, ideal_helix, side_chain, wind

# Four-helix coiled coil: radius and pitch as in Harbury et al. (1993) Science 262, 1401 (7.6 A, left-handed).
_BUNDLE_RADIUS = 7.6
_BUNDLE_PITCH = -150.0
_HELIX_LENGTHS = (30, 29, 31, 28)  # residues of A, B, C, D: unequal, so that the bundle has a direction
_E_LENGTH = 18
_E_HEIGHT = 45.3  # A from the centre of the shell
_E_AZIMUTH = 35.0  # deg about the 4-fold axis

# Where the bundle sits on the face between the 4-folds x and z, about their 2-fold axis (A, degrees).
_SHELL_RADIUS = 50.3
_IN_PLANE = 25.5  # of the bundle's axis from the line between the 4-folds
_ALONG = -0.6
_ASIDE = -12.6
_ROLL = 67.6
_OUT_OF_PLANE = 1.9

# Rotamers (chi1, chi2) of residues in helices, the commonest first: Lovell et al. (2000) Proteins 40, 389.
_ROTAMERS = tuple(itertools.product((-65.0, 180.0, 62.0), (180.0, -65.0, 65.0, 90.0)))
_CLEARANCE = 3.1  # A between atoms that are not bonded
_CORE = "LMLFLVLM"
_SURFACE = "KERYEQKRFEKSRMEY"
_SMALLER = {"R": "KMA", "K": "MSA", "E": "SA", "Q": "SA", "M": "LVA", "F": "LVA", "Y": "LVA", "L": "VA"}
_B_FACTOR_CORE, _B_FACTOR_SIDE = 20.0, 30.0


def _octahedral() -> NDArray[np.float64]:
    """The 24 rotations of O, the identity first: (24, 3, 3)."""
    return symmetry_matrices("O").numpy()


@dataclass(frozen=True)
class Subunit:
    """One subunit in place: backbone (n, 5, 3) of N, CA, C, O, CB in A; buried (n,): side chain inside its bundle."""

    backbone: Points
    buried: NDArray[np.bool_]
    helix: NDArray[np.int64]


def _bundle_to_shell(points: Points) -> Points:
    """Take the bundle from about z to its place beside the 2-fold axis between the 4-folds x and z."""
    outward = np.array([1.0, 0.0, 1.0]) / math.sqrt(2.0)
    long, short = np.array([-1.0, 0.0, 1.0]) / math.sqrt(2.0), np.array([0.0, 1.0, 0.0])
    in_plane, dip, roll = math.radians(_IN_PLANE), math.radians(_OUT_OF_PLANE), math.radians(_ROLL)
    tangent = math.cos(in_plane) * long + math.sin(in_plane) * short
    side = np.cross(outward, tangent)
    axis = math.cos(dip) * tangent + math.sin(dip) * outward
    radial = math.cos(dip) * outward - math.sin(dip) * tangent
    frame = np.stack([radial, np.cross(axis, radial), axis], 1)
    turned = frame @ np.array(
        [[math.cos(roll), -math.sin(roll), 0.0], [math.sin(roll), math.cos(roll), 0.0], [0.0, 0.0, 1.0]]
    )
    return points @ turned.T + _SHELL_RADIUS * outward + _ALONG * tangent + _ASIDE * side


def _buried(n_residues: int) -> NDArray[np.bool_]:
    """Residues whose CA points to the axis of the coiled coil: positions a and d of the heptad."""
    turn = ideal_helix().turn - 2.0 * math.pi * ideal_helix().rise / _BUNDLE_PITCH
    angle = (np.arange(n_residues) - (n_residues - 1) / 2) * turn
    return np.cos(angle) > math.cos(math.radians(60.0))


def subunit_backbone() -> Subunit:
    """Backbone of helices A-E of the subunit nearest to the +x, +z face."""
    strands, buried = [], []
    for index, n_residues in enumerate(_HELIX_LENGTHS):
        straight = helix_backbone(n_residues, 180.0, _BUNDLE_PITCH)
        if index % 2:
            straight = straight @ np.diag([1.0, -1.0, -1.0])  # antiparallel: turned about x, so x stays inward
        strands.append(_bundle_to_shell(wind(straight, _BUNDLE_RADIUS, 90.0 * index, _BUNDLE_PITCH)))
        buried.append(_buried(n_residues))
    short = wind(helix_backbone(_E_LENGTH, 180.0, _BUNDLE_PITCH), _BUNDLE_RADIUS, _E_AZIMUTH, _BUNDLE_PITCH)
    strands.append(short + np.array([0.0, 0.0, _E_HEIGHT]))
    buried.append(_buried(_E_LENGTH))
    helix = np.repeat(np.arange(5), [*_HELIX_LENGTHS, _E_LENGTH])
    return Subunit(np.concatenate(strands), np.concatenate(buried), helix)


def _images(points: Points, rotations: NDArray[np.float64]) -> Points:
    return np.einsum("gij,nj->gni", rotations, points).reshape(-1, 3)


def _nearest(others: cKDTree, points: Points) -> float:
    distances, _ = others.query(points)
    return float(np.min(distances))


def _sequence(subunit: Subunit) -> list[str]:
    core, surface = itertools.cycle(_CORE), itertools.cycle(_SURFACE)
    return [next(core) if inside else next(surface) for inside in subunit.buried]


def _fit_side_chain(
    wanted: str, backbone: Points, others: cKDTree, mates: NDArray[np.float64]
) -> tuple[Points, list[str]]:
    """The wanted residue, or the largest smaller one, in the first rotamer clear of all other atoms."""
    for name in (wanted, *_SMALLER.get(wanted, "A")):
        for chi in _ROTAMERS:
            points, elements = side_chain(name, backbone, chi)
            if len(points) == 0:
                break
            clear = _nearest(others, points) >= _CLEARANCE
            if clear and _nearest(cKDTree(_images(points, mates)), points) >= _CLEARANCE:
                return points, elements
    return np.zeros((0, 3)), []


def _pack_side_chains(subunit: Subunit) -> list[tuple[Points, list[str]]]:
    """Side chains of all residues, the buried ones first, each clear of backbones and of those placed before."""
    mates = _octahedral()[1:]
    backbone = subunit.backbone
    centre = backbone.reshape(-1, 3).mean(0)
    reach = np.linalg.norm(backbone - centre, axis=-1).max() + 12.0
    placed: list[Points] = []
    chains: list[tuple[Points, list[str]]] = [(np.zeros((0, 3)), [])] * len(backbone)
    names = _sequence(subunit)
    for residue in np.argsort(~subunit.buried, kind="stable"):
        rest = np.delete(backbone, residue, axis=0).reshape(-1, 3)
        own = np.concatenate([rest, *placed])
        every = np.concatenate([own, _images(np.concatenate([backbone.reshape(-1, 3), *placed]), mates)])
        near = every[np.linalg.norm(every - centre, axis=1) < reach]
        chains[residue] = _fit_side_chain(names[residue], backbone[residue], cKDTree(near), mates)
        placed.append(chains[residue][0])
    return chains


@lru_cache(maxsize=1)
def ferritin_subunit() -> Atoms:
    """One subunit of the look-alike, in place on the shell whose centre is the origin."""
    subunit = subunit_backbone()
    points, elements, b_factors = [], [], []
    for backbone, (side, names) in zip(subunit.backbone, _pack_side_chains(subunit), strict=True):
        points.append(np.concatenate([backbone, side]))
        elements.extend([*BACKBONE_ELEMENTS, *names])
        b_factors.extend([_B_FACTOR_CORE] * 5 + [_B_FACTOR_SIDE] * len(names))
    n = len(elements)
    return Atoms(np.concatenate(points), np.array(elements, dtype=object), np.array(b_factors), np.ones(n))


def ferritin() -> Atoms:
    """The whole look-alike: 24 copies of `ferritin_subunit`, about 29,000 atoms, no hydrogens. Always the same."""
    subunit = ferritin_subunit()
    rotations = _octahedral()
    copies = len(rotations)
    return Atoms(
        _images(subunit.positions, rotations),
        np.tile(subunit.elements, copies),
        np.tile(subunit.b_factors, copies),
        np.tile(subunit.occupancies, copies),
    )
