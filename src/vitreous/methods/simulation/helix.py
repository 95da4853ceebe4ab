"""Protein built from internal coordinates: ideal alpha helices, straight or wound into a coiled coil.

Backbone torsions phi -57, psi -47, omega 180 degrees give 3.6 residues a turn and 1.5 A a residue: Pauling, Corey
and Branson (1951) PNAS 37, 205; Arnott and Dover (1967) J. Mol. Biol. 30, 209. Bond lengths and angles: Engh and
Huber (1991) Acta Cryst. A47, 392. Coiled coil: Crick (1953) Acta Cryst. 6, 685.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

PHI, PSI, OMEGA = -57.0, -47.0, 180.0
BACKBONE = ("N", "CA", "C", "O", "CB")
BACKBONE_ELEMENTS = ("N", "C", "C", "O", "C")
_IDEAL_RESIDUES = 20  # made to find the axis of the ideal helix

# Side chains beyond CB: atom -> (element, three earlier atoms, bond A, angle deg, torsion deg or the name of a chi).
# An atom is placed at `bond` from the last of the three. Trans wherever a rotamer is not chosen.
SideChain = tuple[tuple[str, str, tuple[str, str, str], float, float, float | str], ...]
SIDE_CHAINS: dict[str, SideChain] = {
    "A": (),
    "S": (("OG", "O", ("N", "CA", "CB"), 1.42, 110.5, "chi1"),),
    "V": (
        ("CG1", "C", ("N", "CA", "CB"), 1.52, 110.5, "chi1"),
        ("CG2", "C", ("N", "CA", "CB"), 1.52, 110.5, "chi1+122"),
    ),
    "L": (
        ("CG", "C", ("N", "CA", "CB"), 1.53, 116.3, "chi1"),
        ("CD1", "C", ("CA", "CB", "CG"), 1.52, 110.7, "chi2"),
        ("CD2", "C", ("CA", "CB", "CG"), 1.52, 110.7, "chi2+122"),
    ),
    "M": (
        ("CG", "C", ("N", "CA", "CB"), 1.52, 114.1, "chi1"),
        ("SD", "S", ("CA", "CB", "CG"), 1.80, 112.7, "chi2"),
        ("CE", "C", ("CB", "CG", "SD"), 1.79, 100.9, 180.0),
    ),
    "E": (
        ("CG", "C", ("N", "CA", "CB"), 1.52, 114.1, "chi1"),
        ("CD", "C", ("CA", "CB", "CG"), 1.52, 112.6, "chi2"),
        ("OE1", "O", ("CB", "CG", "CD"), 1.25, 118.4, 0.0),
        ("OE2", "O", ("CB", "CG", "CD"), 1.25, 118.4, 180.0),
    ),
    "Q": (
        ("CG", "C", ("N", "CA", "CB"), 1.52, 114.1, "chi1"),
        ("CD", "C", ("CA", "CB", "CG"), 1.52, 112.6, "chi2"),
        ("OE1", "O", ("CB", "CG", "CD"), 1.23, 120.8, 0.0),
        ("NE2", "N", ("CB", "CG", "CD"), 1.33, 116.4, 180.0),
    ),
    "K": (
        ("CG", "C", ("N", "CA", "CB"), 1.52, 114.1, "chi1"),
        ("CD", "C", ("CA", "CB", "CG"), 1.52, 111.3, "chi2"),
        ("CE", "C", ("CB", "CG", "CD"), 1.52, 111.3, 180.0),
        ("NZ", "N", ("CG", "CD", "CE"), 1.49, 111.9, 180.0),
    ),
    "R": (
        ("CG", "C", ("N", "CA", "CB"), 1.52, 114.1, "chi1"),
        ("CD", "C", ("CA", "CB", "CG"), 1.52, 111.3, "chi2"),
        ("NE", "N", ("CB", "CG", "CD"), 1.46, 112.0, 180.0),
        ("CZ", "C", ("CG", "CD", "NE"), 1.33, 124.2, 180.0),
        ("NH1", "N", ("CD", "NE", "CZ"), 1.33, 120.0, 0.0),
        ("NH2", "N", ("CD", "NE", "CZ"), 1.33, 120.0, 180.0),
    ),
    "F": (
        ("CG", "C", ("N", "CA", "CB"), 1.50, 113.8, "chi1"),
        ("CD1", "C", ("CA", "CB", "CG"), 1.38, 120.7, "chi2"),
        ("CD2", "C", ("CA", "CB", "CG"), 1.38, 120.7, "chi2+180"),
        ("CE1", "C", ("CB", "CG", "CD1"), 1.38, 120.7, 180.0),
        ("CE2", "C", ("CB", "CG", "CD2"), 1.38, 120.7, 180.0),
        ("CZ", "C", ("CG", "CD1", "CE1"), 1.38, 120.0, 0.0),
    ),
    "Y": (
        ("CG", "C", ("N", "CA", "CB"), 1.51, 113.9, "chi1"),
        ("CD1", "C", ("CA", "CB", "CG"), 1.39, 120.8, "chi2"),
        ("CD2", "C", ("CA", "CB", "CG"), 1.39, 120.8, "chi2+180"),
        ("CE1", "C", ("CB", "CG", "CD1"), 1.38, 121.2, 180.0),
        ("CE2", "C", ("CB", "CG", "CD2"), 1.38, 121.2, 180.0),
        ("CZ", "C", ("CG", "CD1", "CE1"), 1.38, 119.6, 0.0),
        ("OH", "O", ("CD1", "CE1", "CZ"), 1.38, 119.9, 180.0),
    ),
}


def place_atom(a: Points, b: Points, c: Points, geometry: tuple[float, float, float]) -> Points:
    """The atom at bond (A) from c, angle (deg) b-c-new and torsion (deg) a-b-c-new.

    Parsons et al. (2005) J. Comput. Chem. 26, 1063 (natural extension reference frame).
    """
    bond, angle, torsion = geometry[0], math.radians(geometry[1]), math.radians(geometry[2])
    bc = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, bc)
    normal /= np.linalg.norm(normal)
    local = bond * np.array(
        [-math.cos(angle), math.sin(angle) * math.cos(torsion), math.sin(angle) * math.sin(torsion)]
    )
    return c + local[0] * bc + local[1] * np.cross(normal, bc) + local[2] * normal


def _extended_backbone(n_residues: int) -> Points:
    """N, CA, C of an ideal helix, (n, 3, 3), wherever it happens to lie."""
    atoms = [np.array([0.0, 0.0, 0.0]), np.array([1.458, 0.0, 0.0])]
    angle = math.radians(180.0 - 111.2)
    atoms.append(atoms[1] + 1.525 * np.array([math.cos(angle), math.sin(angle), 0.0]))
    for _ in range(n_residues - 1):
        for geometry in ((1.329, 116.2, PSI), (1.458, 121.7, OMEGA), (1.525, 111.2, PHI)):
            atoms.append(place_atom(atoms[-3], atoms[-2], atoms[-1], geometry))
    return np.array(atoms).reshape(n_residues, 3, 3)


@dataclass(frozen=True)
class IdealHelix:
    """Cylindrical coordinates of one residue's backbone atoms about the helix axis, and the step to the next.

    radius (5,) in A, angle (5,) in rad, height (5,) in A for N, CA, C, O, CB; CA at angle 0 and height 0.
    """

    radius: Points
    angle: Points
    height: Points
    turn: float  # rad a residue, positive: right-handed
    rise: float  # A a residue


@lru_cache(maxsize=1)
def ideal_helix() -> IdealHelix:
    """The alpha helix of PHI and PSI, measured on one built from its torsions."""
    n = _IDEAL_RESIDUES
    chain = _extended_backbone(n)
    # The step from each residue to the next is one screw motion: its rotation's axis is the helix's.
    first, second = chain[:-1].reshape(-1, 3), chain[1:].reshape(-1, 3)
    u, _, vt = np.linalg.svd((first - first.mean(0)).T @ (second - second.mean(0)))
    rotation = vt.T @ np.diag([1.0, 1.0, np.linalg.det(vt.T @ u.T)]) @ u.T
    turn = math.acos((np.trace(rotation) - 1.0) / 2.0)
    skew = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    axis = skew / np.linalg.norm(skew)
    step = second.mean(0) - rotation @ first.mean(0)
    rise = float(step @ axis)
    if rise < 0:
        axis, turn, rise = -axis, -turn, -rise
    # A point on the axis: fixed by the rotation but for the rise.
    origin = np.linalg.lstsq(np.eye(3) - rotation, step - (step @ axis) * axis, rcond=None)[0]
    middle = n // 2
    n_atom, ca, c = chain[middle]
    oxygen = place_atom(chain[middle + 1, 1], chain[middle + 1, 0], c, (1.231, 123.0, 0.0))
    beta = place_atom(c, n_atom, ca, (1.530, 110.1, -122.6))
    atoms = np.array([n_atom, ca, c, oxygen, beta]) - origin
    height = atoms @ axis
    radial = atoms - height[:, None] * axis
    x = radial[1] / np.linalg.norm(radial[1])
    y = np.cross(axis, x)
    angle = np.arctan2(radial @ y, radial @ x)
    return IdealHelix(np.linalg.norm(radial, axis=1), angle, height - height[1], turn, rise)


def helix_backbone(n_residues: int, phase: float, pitch: float = math.inf) -> Points:
    """N, CA, C, O, CB of a helix along +z about the z axis, centred on z = 0: (n, 5, 3) in A.

    phase: angle (deg) of the middle CA from the x axis. pitch: of the coiled coil that `wind` will make of it; the
    helix is turned beforehand by what the winding takes away, so its own twist stays ideal.
    """
    ideal = ideal_helix()
    residue = np.arange(n_residues) - (n_residues - 1) / 2
    height = residue[:, None] * ideal.rise + ideal.height
    angle = residue[:, None] * ideal.turn + ideal.angle + math.radians(phase) - 2.0 * math.pi * height / pitch
    return np.stack([ideal.radius * np.cos(angle), ideal.radius * np.sin(angle), height], -1)


def wind(points: Points, radius: float, azimuth: float, pitch: float) -> Points:
    """Bend a straight helix about z into a strand of a coiled coil about z: (..., 3) in A.

    The strand's axis lies at `radius` A and `azimuth` degrees where z = 0; a negative pitch (A a turn of the
    superhelix) winds left-handed, as alpha helices do. The point's x is along the outward radius of the strand.
    """
    z = points[..., 2]
    omega = 2.0 * math.pi / pitch
    # The strand's arc is longer than its projection on z: same length along the axis, so bonds keep their lengths.
    slope = radius * omega
    along = z / math.hypot(1.0, slope)
    phi = math.radians(azimuth) + omega * along
    outward = np.stack([np.cos(phi), np.sin(phi), np.zeros_like(phi)], -1)
    tangent = np.stack([-slope * np.sin(phi), slope * np.cos(phi), np.ones_like(phi)], -1) / math.hypot(1.0, slope)
    sideways = np.cross(tangent, outward)
    centre = outward * radius
    centre[..., 2] = along
    return centre + points[..., :1] * outward + points[..., 1:2] * sideways


def side_chain(name: str, backbone: Points, chi: tuple[float, float]) -> tuple[Points, list[str]]:
    """Atoms beyond CB of residue `name` on its backbone (5, 3) with torsions chi1, chi2 (deg): points, elements."""
    atoms = dict(zip(BACKBONE, backbone, strict=True))
    torsions = {"chi1": chi[0], "chi2": chi[1]}
    elements = []
    for atom, element, (a, b, c), bond, angle, torsion in SIDE_CHAINS[name]:
        if isinstance(torsion, str):
            base, _, extra = torsion.partition("+")
            torsion = torsions[base] + (float(extra) if extra else 0.0)
        atoms[atom] = place_atom(atoms[a], atoms[b], atoms[c], (bond, angle, torsion))
        elements.append(element)
    points = np.array(list(atoms.values())[5:]).reshape(-1, 3)
    return points, elements
