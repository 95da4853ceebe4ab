"""How the specimen moved during a movie: a shift per frame and RELION's polynomial for what differs over the field.

Sign, as in RELION's files (checked by running relion_run_motioncorr on a movie of known motion): a *shift* is
what is to be applied to a frame to bring it onto the first one. The *displacement* is its negative: where a
feature is found in a frame, minus where it is in the first. The corrected image at (x, y) is frame f read at
(x, y) + displacement. Frames count from 0 here (from 1 in files), x and y are pixels of the movie.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_COEFFICIENTS = 18  # for each axis: 6 terms in space times 3 in time


@dataclass(frozen=True)
class Motion:
    """The motion in one movie.

    shape: (ny, nx) pixels. global_shifts: (n_frames, 2) as (x, y) pixels, zero in the first frame.
    coefficients: (2, 18) of the local shift in x and y, or None where the field moves as a whole.
    patch_centres: (n_patches, 2) as (x, y) pixels and patch_shifts: (n_patches, n_frames, 2), what was measured
    in each patch beside the global shift.
    hot_pixels: (n, 2) as (x, y), pixels replaced.
    local_by_frame: (n_frames, 2, 6) of the local shift over the field in each frame, where it is a spline in time; the
    coefficients are then those of the polynomial nearest to it, for whoever knows no other. None where it is they.
    """

    shape: tuple[int, int]
    global_shifts: NDArray[np.float64]
    coefficients: NDArray[np.float64] | None = None
    patch_centres: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    patch_shifts: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0, 2)))
    hot_pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    local_by_frame: NDArray[np.float64] | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.global_shifts)


def time_basis(frame: ArrayLike) -> NDArray[np.float64]:
    """(t, t^2, t^3) of frame indices from 0: shape (..., 3)."""
    t = np.asarray(frame, dtype=np.float64)
    return np.stack([t, t**2, t**3], axis=-1)


def space_basis(x: ArrayLike, y: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """(1, x, x^2, y, y^2, xy) of positions as fractions of the field, from -0.5 to 0.5: shape (..., 6)."""
    u = np.asarray(x, dtype=np.float64) / shape[1] - 0.5
    v = np.asarray(y, dtype=np.float64) / shape[0] - 0.5
    u, v = np.broadcast_arrays(u, v)
    return np.stack([np.ones_like(u), u, u**2, v, v**2, u * v], axis=-1)


def local_shift(motion: Motion, frame: ArrayLike, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """The local part (x, y) in pixels at frames (from 0) and positions (pixels), which broadcast: (..., 2)."""
    space, table = space_basis(x, y, motion.shape), local_field(motion, frame)
    return np.einsum("...s,...as->...a", space, table)


def local_field(motion: Motion, frame: ArrayLike) -> NDArray[np.float64]:
    """The local shift (x, y) over the field at frames (from 0), as coefficients of `space_basis`: (..., 2, 6).

    Zivanov, Nakane and Scheres (2019) IUCrJ 6, 5; coefficient index = 3 * space term + time term.
    """
    index = np.asarray(frame)
    if motion.local_by_frame is not None:
        return motion.local_by_frame[index].copy()
    if motion.coefficients is None:
        return np.zeros((*index.shape, 2, 6))
    return np.einsum("ast,...t->...as", motion.coefficients.reshape(2, 6, 3), time_basis(index))


def nearest_polynomial(by_frame: ArrayLike) -> NDArray[np.float64]:
    """Coefficients (2, 18) of the polynomial in time that is nearest to (n_frames, 2, 6) over all frames.

    Nearest at every place of the field: the least squares of each term's track are the least squares of their sum.
    """
    values = np.asarray(by_frame, dtype=np.float64)
    powers = time_basis(np.arange(len(values)))
    scale = np.abs(powers).max(0).clip(min=1.0)
    found = np.linalg.lstsq(powers / scale, values.reshape(len(values), -1), rcond=None)[0] / scale[:, None]
    return np.asarray(found.T.reshape(2, N_COEFFICIENTS))


def polynomial_error(motion: Motion) -> float:
    """How far the polynomial is from the local motion for which it stands: rms over field and frames, pixels."""
    return motion_error(motion, replace(motion, local_by_frame=None), grid_points(motion.shape))[0]


def displacement(motion: Motion, frame: ArrayLike, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """How far a feature has moved (x, y), pixels, at frames (from 0) and positions, which broadcast: shape (..., 2)."""
    index = np.asarray(frame)
    local = local_shift(motion, index, x, y)
    return -(motion.global_shifts[np.broadcast_to(index, local.shape[:-1])] + local)


def field_displacement(motion: Motion, points: ArrayLike) -> NDArray[np.float64]:
    """Displacement of m points (m, 2) as (x, y) in every frame: (n_frames, m, 2) pixels."""
    where = np.asarray(points, dtype=np.float64)
    return displacement(motion, np.arange(motion.n_frames)[:, None], where[None, :, 0], where[None, :, 1])


def grid_points(shape: tuple[int, int], n: int = 7) -> NDArray[np.float64]:
    """n x n points (n*n, 2) as (x, y) at the centres of equal cells of the field."""
    fraction = (np.arange(n) + 0.5) / n
    x, y = np.meshgrid(fraction * shape[1], fraction * shape[0])
    return np.stack([x.ravel(), y.ravel()], axis=1)


def motion_error(
    estimated: Motion | ArrayLike, true: Motion | ArrayLike, points: ArrayLike, pixel_size: float = 1.0
) -> tuple[float, float]:
    """Root mean square of the displacement error per frame over the field: (in pixels, in A).

    estimated, true: a `Motion`, or displacements (n_frames, m, 2) at the points (m, 2) as (x, y). One constant
    offset is taken off for the movie: where the first frame lay is not defined, only what moved since.
    """
    tracks = [
        field_displacement(item, points) if isinstance(item, Motion) else np.asarray(item, dtype=np.float64)
        for item in (estimated, true)
    ]
    if tracks[0].shape != tracks[1].shape:
        raise ValueError(f"displacements have different shapes: {tracks[0].shape} and {tracks[1].shape}")
    difference = tracks[0] - tracks[1]
    difference = difference - difference.mean(axis=(0, 1))
    rms = float(np.sqrt((difference**2).sum(-1).mean()))
    return rms, rms * pixel_size


@dataclass(frozen=True)
class AccumulatedMotion:
    """Length of the path of the field's centre in A: over all frames, within the early exposure, and after it."""

    total: float
    early: float
    late: float


def accumulated_motion(
    motion: Motion, pixel_size: float, dose_per_frame: float, *, pre_exposure: float = 0.0, early_dose: float = 4.0
) -> AccumulatedMotion:
    """Path length of the global shifts. early_dose in e/A^2: RELION's 4.

    (RELION documents these columns in A; the files it writes hold pixels.)
    """
    steps = np.hypot(*np.diff(motion.global_shifts, axis=0).T) * pixel_size
    dose_at_end = pre_exposure + dose_per_frame * np.arange(2, motion.n_frames + 1)
    early = float(steps[dose_at_end <= early_dose].sum())
    total = float(steps.sum())
    return AccumulatedMotion(total, early, total - early)
