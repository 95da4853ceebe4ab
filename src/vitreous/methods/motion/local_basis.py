"""What local motion may look like: quadratic over the field, in time a cubic or a spline, with what is likely of it.

The cubic is RELION's and MotionCor2's. It cannot follow a jump: whatever it does early it must do late as well. The
spline's pieces are short at the start of the exposure, where most of the motion is; that it has more of them than there
is signal for does no harm, as the prior (a random walk) fills in what the images do not say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BSpline
from torch import Tensor

from vitreous.data.motion import space_basis, time_basis

Array = NDArray[np.float64]
TimeModel = Literal["polynomial", "spline"]
N_SPACE = 6
_ALIKE = 0.5  # of the field: over such distances local motion is alike
_PIECES = 6  # of a spline in time
_EARLY = 1.7  # its knots are at the i/n-th of the movie to this power


@dataclass(frozen=True)
class TimeFunctions:
    """Functions of the frame index (from 0), zero at the first frame: t (...,) -> (..., k). knots: None for a cubic."""

    knots: Array | None = None

    def __call__(self, frame: ArrayLike) -> Array:
        """Their values; beyond a spline's ends those at its ends."""
        if self.knots is None:
            return time_basis(frame)
        inside = np.clip(np.asarray(frame, dtype=np.float64), self.knots[0], self.knots[-1])
        values = BSpline(self.knots, np.eye(len(self.knots) - 4), 3)(inside)
        return np.asarray(values)[..., 1:]  # the first of them is the only one that is not zero at the start


def in_time(model: TimeModel, n_frames: int, n_times: int) -> TimeFunctions:
    """n_times: at how many times the motion is measured; a spline has a piece for every two of them at most."""
    if model == "polynomial":
        return TimeFunctions()
    last, pieces = float(max(n_frames - 1, 1)), max(1, min(_PIECES, n_times // 2))
    inner = last * (np.arange(1, pieces) / pieces) ** _EARLY
    return TimeFunctions(np.concatenate([np.zeros(4), inner, np.full(4, last)]))


@dataclass(frozen=True)
class LocalBasis:
    """columns (p, f, m): displacement in one axis at patches and times per unit of each coefficient (x and y alike).

    Independent coefficients of unit variance give motion of unit mean square that is likely as motion goes: a
    random walk in time, alike over distances of about half the field. Terms that are the same over the whole
    field are left to the frames' own shifts.
    units (6 k, m): from the coefficients to those of the products of 6 space terms and k functions of time.
    """

    columns: Float[Tensor, "p f m"]
    units: Array
    in_time: TimeFunctions

    @property
    def is_polynomial(self) -> bool:
        """Whether the coefficients are RELION's."""
        return self.in_time.knots is None

    def coefficients(self, model: Float[Tensor, "m 2"]) -> Array:
        """(2, 6 k): coefficient index = k * space term + function of time."""
        return np.asarray((self.units @ model.numpy()).T)

    def by_frame(self, model: Float[Tensor, "m 2"], n_frames: int) -> Array:
        """(n_frames, 2, 6): the polynomial over the field in each frame."""
        table = self.coefficients(model).reshape(2, N_SPACE, -1)
        return np.einsum("ask,nk->nas", table, self.in_time(np.arange(n_frames)))


def local_basis(centres: Array, times: Array, shape: tuple[int, int], in_time: TimeFunctions) -> LocalBasis:
    """Basis for patches at centres (p, 2) as (x, y) px of a field (ny, nx), at times (f,)."""
    space, time = space_basis(centres[:, 0], centres[:, 1], shape), in_time(times)
    n, m = len(space) * len(time), N_SPACE * time.shape[1]
    full = np.einsum("ps,ft->pfst", space, time).reshape(n, m)
    own = time.shape[1]  # functions of time alone come first
    local = full[:, own:]
    scale = np.sqrt((local**2).mean(0)) + 1e-30
    _, singular, right = np.linalg.svd(local / scale, full_matrices=False)
    kept = singular > 1e-6 * singular.max()
    orthonormal = np.zeros((m, int(kept.sum())))
    orthonormal[own:] = right[kept].T / singular[kept] / scale[:, None]
    columns = (full @ orthonormal).reshape(len(space), len(time), -1)
    x, y = centres[:, 0] / shape[1], centres[:, 1] / shape[0]
    distance2 = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    in_space = np.exp(-0.5 * distance2 / _ALIKE**2)
    walk = np.minimum(times[:, None], times)
    covariance = np.einsum("pfm,pq,fg,qgn->mn", columns, in_space, walk, columns, optimize=True)
    values, vectors = np.linalg.eigh(covariance)
    values = values.clip(min=1e-6 * values.max())
    units = orthonormal @ (vectors * np.sqrt(values / values.sum() * n))
    return LocalBasis(torch.from_numpy((full @ units).reshape(columns.shape)), units, in_time)
