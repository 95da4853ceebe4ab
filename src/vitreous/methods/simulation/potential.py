"""The electrostatic potential of an atomic model in ice: as a map, or projected along the beam.

Every atom is a point times a radial form factor (element, hydrogens, displaced ice, B factor). All the different
form factors of a model lie close to a space of a few functions, found by a singular value decomposition; so
atoms are scattered once per basis function, whatever the number of elements and B factors, and the result is
exact to the tolerance of that decomposition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fourier import crop_fourier, lowpass, radius_grid, to_fourier, to_real
from vitreous.core.scattering import atom_potential
from vitreous.data.atoms import Atoms
from vitreous.data.volume import Volume
from vitreous.methods.simulation.splat import splat_projections, splat_volume, spline_transform

_OVERSAMPLING = 2  # of the grid on which atoms are scattered
_RADIAL_SAMPLES = 1024
_B_FACTOR_STEP = 0.25  # A^2; exp(-B k^2/4) changes by 0.7% at most at 3 A for one step


@dataclass(frozen=True)
class FormFactors:
    """Form factors of n atoms as combinations of a few radial functions.

    weights (n, rank); basis (rank, samples) in V A^3 at frequencies k (samples,) in 1/A, from 0 to the band's edge.
    """

    weights: NDArray[np.float32]
    basis: NDArray[np.float64]
    k: NDArray[np.float64]

    def on_grid(self, shape: tuple[int, ...], pixel_size: float) -> list[Tensor]:
        """Each basis function on the rfft grid of an array of `shape`; its last value beyond the band."""
        radius = radius_grid(shape, pixel_size).numpy()
        return [torch.from_numpy(np.interp(radius, self.k, row).astype(np.float32)) for row in self.basis]


@dataclass(frozen=True)
class Scattering:
    """What of the physics is counted in.

    hydrogens: mean hydrogens on heavy atoms (None: where the model has no hydrogens); solvent: the ice displaced by
    the atoms is taken off; b_factor: added to every atom's (A^2); resolution: Fourier-shell cut (A; 0: Nyquist).
    """

    hydrogens: bool | None = None
    solvent: bool = True
    b_factor: float = 0.0
    resolution: float = 0.0


def factorise(atoms: Atoms, k_max: float, scattering: Scattering, *, tolerance: float = 1e-4) -> FormFactors:
    """Few radial functions that span the form factors of all atoms up to k_max (1/A).

    tolerance: largest error of any atom's form factor, relative to the largest form factor of the model.
    """
    hydrogens = scattering.hydrogens
    if hydrogens is None:
        hydrogens = not np.isin(atoms.elements.astype(str), ["H", "D"]).any()
    elements, element_of = np.unique(atoms.elements.astype(str), return_inverse=True)
    steps = np.rint((atoms.b_factors + scattering.b_factor) / _B_FACTOR_STEP).astype(np.int64)
    kinds, kind_of = np.unique(np.stack([element_of, steps], 1), axis=0, return_inverse=True)
    k = np.linspace(0.0, k_max, _RADIAL_SAMPLES)
    curves = np.stack([atom_potential(name, k, hydrogens=hydrogens, solvent=scattering.solvent) for name in elements])
    curves = curves[kinds[:, 0]] * np.exp(-0.25 * _B_FACTOR_STEP * kinds[:, 1, None] * k * k)
    left, values, right = np.linalg.svd(curves, full_matrices=False)
    limit = tolerance * np.abs(curves).max()
    rank = 1
    while rank < len(values):
        if np.abs(curves - (left[:, :rank] * values[:rank]) @ right[:rank]).max() <= limit:
            break
        rank += 1
    coefficients = left[:, :rank] * values[:rank]
    weights = coefficients[kind_of.reshape(-1)] * atoms.occupancies[:, None]
    return FormFactors(weights.astype(np.float32), right[:rank], k)


def _band_edge(pixel_size: float, ndim: int) -> float:
    return 0.5 * ndim**0.5 / pixel_size


def _shell_cut(shape: tuple[int, ...], pixel_size: float, resolution: float) -> Tensor:
    """Soft cut at the resolution asked for, or just within Nyquist: the corners go, so the map is isotropic."""
    edge = 2.0
    nyquist = 1.0 / (2.0 * pixel_size) - 0.5 * edge / (min(shape) * pixel_size)
    cut = min(1.0 / resolution, nyquist) if resolution > 0 else nyquist
    return lowpass(shape, pixel_size, 1.0 / cut, edge=edge).to(torch.float32)


def potential_map(atoms: Atoms, box: int, voxel_size: float, scattering: Scattering | None = None) -> Volume:
    """Potential in V on a cube, band-limited at its Nyquist frequency; the origin of the model at box//2.

    The integral over the cube is the sum of the form factors at zero (V A^3).
    """
    scattering = scattering or Scattering()
    factors = factorise(atoms, _band_edge(voxel_size, 3), scattering)
    fine, shape = (box * _OVERSAMPLING,) * 3, (box,) * 3
    points = atoms.positions * (_OVERSAMPLING / voxel_size)
    total = torch.zeros(box, box, box // 2 + 1, dtype=torch.complex64)
    for channel, basis in enumerate(factors.on_grid(shape, voxel_size)):
        grid = torch.from_numpy(splat_volume(points, factors.weights[:, channel], fine[0]))
        total += crop_fourier(to_fourier(grid, 3), fine, shape) * basis
    kernel = spline_transform(fine)
    cut = _shell_cut(shape, voxel_size, scattering.resolution)
    total = total * (cut / crop_fourier(kernel, fine, shape).to(torch.float32))
    return Volume(to_real(total, shape, 3) / voxel_size**3, voxel_size)


class Projector:
    """Projected potentials (V A) of one model at one pixel size, straight from its atoms."""

    def __init__(self, atoms: Atoms, box: int, pixel_size: float, scattering: Scattering | None = None) -> None:
        scattering = scattering or Scattering()
        self.box = box
        self.pixel_size = pixel_size
        self._fine = (box * _OVERSAMPLING,) * 2
        self._shape = (box,) * 2
        self._points = np.ascontiguousarray(atoms.positions * (_OVERSAMPLING / pixel_size))
        factors = factorise(atoms, _band_edge(pixel_size, 2), scattering)
        self._weights = np.ascontiguousarray(factors.weights)
        kernel = crop_fourier(spline_transform(self._fine), self._fine, self._shape)
        cut = _shell_cut(self._shape, pixel_size, scattering.resolution) / kernel.to(torch.float32)
        self._basis = torch.stack(factors.on_grid(self._shape, pixel_size)) * cut / pixel_size**2

    def __call__(
        self, rotations: Float[Tensor, "n 3 3"], offsets: Float[Tensor, "n 2"] | None = None
    ) -> Float[Tensor, "n box box"]:
        """Project at rotations (volume axes to image axes), the model's origin at box//2 + offsets (x, y) pixels."""
        return to_real(self.transforms(rotations, offsets), self._shape)

    def transforms(self, rotations: Float[Tensor, "n 3 3"], offsets: Float[Tensor, "n 2"] | None = None) -> Tensor:
        """The same as centred transforms, complex64 (n, box, box//2+1)."""
        moves = torch.zeros(len(rotations), 2) if offsets is None else offsets
        fine = splat_projections(
            self._points,
            self._weights,
            rotations.to(torch.float64).numpy(),
            (moves.to(torch.float64) * _OVERSAMPLING).numpy(),
            self._fine[0],
        )
        cropped = crop_fourier(to_fourier(torch.from_numpy(fine)), self._fine, self._shape)
        return (cropped * self._basis).sum(1)


def radius_of(atoms: Atoms) -> float:
    """Distance in A of the farthest atom from the model's origin."""
    return float(np.linalg.norm(atoms.positions, axis=1).max())
