"""Bring a map onto a reference: rotation, shift and hand.

Every orientation of a 15-degree grid is tried for both hands, with all shifts at once by FFT, on coefficients of
the lowest shells; the best are refined together with their shifts on ever finer ones. Each shell of both maps is
scaled to unit power first, so what is maximised is a mean Fourier shell correlation and not the low-resolution
envelope, which is blind to the hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize
from torch import Tensor

from vitreous.core.fourier import rescale
from vitreous.core.rotations import angular_distance
from vitreous.core.so3 import orientation_grid
from vitreous.data.volume import Volume
from vitreous.methods.maps.fourier_sampling import SampledTransform, half_ball, sampled_transform

_COARSE_ORDER = 2
_COARSE_RADIUS = 6
_REFINE_RADII = (10, 16, 26)
_FINAL_RADIUS = 40  # for the better hand alone
_KEPT = (8, 3, 1)  # candidates a hand that go into each refinement
_BATCH = 256


@dataclass(frozen=True)
class Alignment:
    """How to bring a map onto a reference: a point p of the map (x, y, z in A from its centre) goes to M p + shift.

    rotation (3, 3), proper. mirrored: the map's z axis is inverted first (it has the other hand): M = R diag(1, 1, -1).
    shift: A (x, y, z). correlation: mean FSC over the reference's first 26 shells (or to Nyquist) after alignment;
    other_hand: the same for the best alignment of the other hand.
    """

    rotation: Float[Tensor, "3 3"]
    shift: Float[Tensor, "3"]
    mirrored: bool
    correlation: float
    other_hand: float

    @property
    def matrix(self) -> Float[Tensor, "3 3"]:
        """M, the hand included."""
        return self.rotation @ _flip(self.mirrored)


@dataclass(frozen=True)
class _Candidate:
    rotation: Tensor
    shift: Tensor
    score: float


@dataclass(frozen=True)
class _Comparison:
    """Coefficients of a reference within some shells, to be compared with a moving map's at any orientation.

    weighted: conjugate coefficients of the reference, over the power of both maps in their shell.
    """

    moving: SampledTransform
    points: Float[Tensor, "m 3"]
    frequencies: Float[Tensor, "m 3"]
    weighted: Complex[Tensor, "m"]

    def single(self) -> _Comparison:
        """The same in single precision, for searching."""
        moving = replace(self.moving, data=self.moving.data.to(torch.complex64))
        frequencies = self.frequencies.to(torch.float32)
        return _Comparison(moving, self.points, frequencies, self.weighted.to(torch.complex64))

    def cross(self, matrices: Float[Tensor, "n 3 3"]) -> Complex[Tensor, "n m"]:
        """Weighted products at orientations (no shift); their real sum is the score."""
        return self.moving(self.frequencies @ matrices) * self.weighted

    def score(self, matrix: Float[Tensor, "3 3"], shift: Float[Tensor, "3"]) -> Tensor:
        """Mean FSC at an orientation and a shift in A; differentiable."""
        phase = -2.0 * torch.pi * (self.frequencies @ shift)
        return (self.cross(matrix) * torch.polar(torch.ones_like(phase), phase)).real.sum()


def _compare(moving: SampledTransform, reference: SampledTransform, length: float, radius: int) -> _Comparison:
    points = half_ball(radius)
    frequencies = points / length
    shell = torch.floor(points.norm(dim=1) + 0.5).to(torch.int64)
    fixed = reference(frequencies)
    weight = _inverse_power(fixed, shell) * _inverse_power(moving(frequencies), shell)
    # Every shell counts alike: a mean FSC, in which the few coefficients of the inner shells are heard too.
    counts = torch.bincount(shell, minlength=radius + 1).clamp(min=1)
    weight = weight / counts[shell] / len(torch.unique(shell))
    return _Comparison(moving, points, frequencies, fixed.conj() * weight)


def align_map(
    moving: Volume, reference: Volume, *, symmetry: str = "C1", hands: tuple[bool, ...] = (False, True)
) -> Alignment:
    """Find the rotation, shift and hand that bring a map onto a reference.

    The maps may differ in box and voxel size. hands: which to try, False as it is, True mirrored.
    symmetry: point group of the moving map about RELION's axes; of its equivalent answers one is searched for, which
    makes the search as many times shorter.
    """
    length = reference.box * reference.voxel_size
    limit = min(0.5 / moving.voxel_size, 0.5 / reference.voxel_size)
    largest = min(_FINAL_RADIUS, int(0.9 * limit * length))
    reach = 1.2 * largest / length
    fixed, loose = sampled_transform(reference, reach), sampled_transform(moving, reach)
    best: dict[bool, _Candidate] = {}
    for mirrored in hands:
        turned = _flip_transform(loose) if mirrored else loose
        found = _coarse(_compare(turned, fixed, length, min(_COARSE_RADIUS, largest)).single(), length, symmetry)
        for radius, kept in zip(_REFINE_RADII, _KEPT, strict=True):
            comparison = _compare(turned, fixed, length, min(radius, largest))
            found = sorted((_refine(start, comparison) for start in found[:kept]), key=lambda one: -one.score)
        best[mirrored] = found[0]
    mirrored = max(best, key=lambda hand: best[hand].score)
    other = best[not mirrored].score if len(best) > 1 else float("nan")
    turned = _flip_transform(loose) if mirrored else loose
    winner = _refine(best[mirrored], _compare(turned, fixed, length, largest))
    return Alignment(winner.rotation, winner.shift, mirrored, best[mirrored].score, other)


def apply_alignment(moving: Volume, alignment: Alignment, reference: Volume) -> Volume:
    """The map in the reference's frame, box and voxel size (cubic splines on a grid made finer by two)."""
    fine = moving.box * 2 if moving.box <= 160 else moving.box
    density = moving.density.to(torch.float64)
    finer = rescale(density, (fine,) * 3) if fine != moving.box else density
    scale = moving.box * moving.voxel_size / fine
    axis = (torch.arange(reference.box, dtype=torch.float64) - reference.box // 2) * reference.voxel_size
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    target = torch.stack([x, y, z], -1).reshape(-1, 3)
    source = (target - alignment.shift) @ alignment.matrix / scale + fine // 2
    values = ndimage.map_coordinates(finer.numpy(), source.flip(-1).T.numpy(), order=3, mode="constant")
    shape = (reference.box,) * 3
    return Volume(torch.from_numpy(values.reshape(shape)).to(torch.float32), reference.voxel_size)


def _flip(mirrored: bool) -> Tensor:
    return torch.diag(torch.tensor([1.0, 1.0, -1.0 if mirrored else 1.0], dtype=torch.float64))


def _flip_transform(transform: SampledTransform) -> SampledTransform:
    return replace(transform, data=transform.data.flip(0).contiguous())


def _inverse_power(values: Tensor, shell: Tensor) -> Tensor:
    power = torch.zeros(int(shell.max()) + 1, dtype=torch.float64).index_add_(0, shell, values.abs().square())
    count = torch.bincount(shell, minlength=len(power)).clamp(min=1)
    return (power / count).clamp(min=1e-300).rsqrt()[shell]


def _coarse(comparison: _Comparison, length: float, symmetry: str) -> list[_Candidate]:
    """The best orientations of the grid, each with its best shift, no two within a step of each other."""
    rotations = orientation_grid(_COARSE_ORDER, symmetry).rotations()
    radius = int(comparison.points.abs().max())
    grid = 3 * radius + 3
    index = torch.remainder(comparison.points.to(torch.int64), grid)
    flat = (index[:, 2] * grid + index[:, 1]) * grid + index[:, 0]
    scores, places = [], []
    for batch in rotations.split(_BATCH):
        spectrum = torch.zeros(len(batch), grid**3, dtype=torch.complex64)
        # The shift t multiplies by exp(-2 pi i k t): a forward transform over k gives the score at each t.
        spectrum[:, flat] = comparison.cross(batch.to(torch.float32))
        values = torch.fft.fftn(spectrum.reshape(-1, grid, grid, grid), dim=(1, 2, 3)).real.flatten(1)
        top = values.max(1)
        scores.append(top.values)
        places.append(top.indices)
    score, place = torch.cat(scores), torch.cat(places)
    found: list[_Candidate] = []
    for number in torch.argsort(score, descending=True).tolist():
        if all(float(angular_distance(rotations[number], one.rotation)) > 20.0 for one in found):
            found.append(
                _Candidate(rotations[number], _shift_at(int(place[number]), grid, length), float(score[number]))
            )
        if len(found) == _KEPT[0]:
            break
    return found


def _shift_at(place: int, grid: int, length: float) -> Tensor:
    z, y, x = (int(index) for index in np.unravel_index(place, (grid,) * 3))
    wrapped = [index - grid if index > grid // 2 else index for index in (x, y, z)]
    return torch.tensor(wrapped, dtype=torch.float64) * (length / grid)


def _refine(start: _Candidate, comparison: _Comparison) -> _Candidate:
    """Climb to the nearest maximum over rotation and shift together (BFGS with exact gradients)."""
    # A unit of each parameter moves the outermost coefficients' phases alike.
    outer = float(comparison.frequencies.abs().max())
    angle_unit, shift_unit = 1.0 / float(comparison.points.abs().max()), 0.2 / outer

    def place(values: Tensor) -> tuple[Tensor, Tensor]:
        return small_rotation(values[:3] * angle_unit) @ start.rotation, start.shift + values[3:] * shift_unit

    def cost(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = torch.from_numpy(values.copy()).requires_grad_()
        score = comparison.score(*place(at))
        (gradient,) = torch.autograd.grad(score, at)
        return -float(score.detach()), -gradient.numpy()

    result = minimize(cost, np.zeros(6), jac=True, method="L-BFGS-B", options={"maxiter": 40, "ftol": 1e-7})
    rotation, shift = place(torch.from_numpy(result.x))
    return _Candidate(rotation, shift, -float(result.fun))


def small_rotation(vector: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """Rotation by |vector| radians about vector, differentiable at zero too (matrix exponential)."""
    zero = torch.zeros_like(vector[0])
    x, y, z = vector.unbind()
    rows = [torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])]
    return torch.linalg.matrix_exp(torch.stack(rows))
