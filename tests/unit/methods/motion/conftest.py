"""Movies of known motion: a band-limited specimen moved by Fourier and spline interpolation, with shot noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

MARGIN = 48


@dataclass
class Made:
    frames: NDArray[np.uint8]
    specimen: NDArray[np.float64]  # contrast (y, x) as it stands in the first frame
    true: NDArray[np.float64]  # displacement (f, m, 2) at points
    points: NDArray[np.float64]


def make_movie(
    n: int,
    n_frames: int,
    *,
    dose: float = 2.0,
    contrast: float = 0.1,
    b_factor: float = 60.0,
    drift: NDArray[np.float64] | None = None,
    local: float = 0.0,
    gain: NDArray[np.float64] | float = 1.0,
    seed: int = 0,
    course: Callable[[int], float] = lambda f: 1 - np.exp(-f / 4.0),
) -> Made:
    """drift: (n_frames, 2) as (x, y) pixels; local: scale of the local motion in px; gain: the detector's pattern.

    course: how much of the local motion is done by each frame.
    """
    rng = np.random.default_rng(seed)
    size = n + 2 * MARGIN
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    shape = np.exp(-b_factor * k**2 / 4) * (1 - np.exp(-((k / 0.01) ** 2)))
    specimen = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * shape, s=(size, size))
    specimen *= contrast / specimen.std()
    splines = spline_filter(specimen, 3).astype(np.float32)
    drift = np.zeros((n_frames, 2)) if drift is None else drift
    u, v = (axis.astype(np.float32) / n - 0.5 for axis in np.meshgrid(np.arange(n), np.arange(n)))

    def field(f: int, u: NDArray[np.float64], v: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        amount = local * (course(f) - course(0))
        return (
            drift[f, 0] + amount * (1.2 * u - 1.5 * u * v + v * v),
            drift[f, 1] + amount * (-1.4 * v + 1.3 * u * u),
        )

    frames = np.empty((n_frames, n, n), np.uint8)
    for f in range(n_frames):
        dx, dy = field(f, u, v)
        where = [MARGIN + (v + 0.5) * n - dy, MARGIN + (u + 0.5) * n - dx]
        image = map_coordinates(splines, where, order=3, prefilter=False, mode="grid-wrap")
        frames[f] = rng.poisson(np.clip(dose * (1 + image) * gain, 0, None))
    grid = (np.arange(5) + 0.5) / 5 - 0.5
    pu, pv = (axis.ravel() for axis in np.meshgrid(grid, grid))
    true = np.stack([np.stack(field(f, pu, pv), 1) for f in range(n_frames)])
    inside = specimen[MARGIN : MARGIN + n, MARGIN : MARGIN + n]
    return Made(frames, inside, true, np.stack([(pu + 0.5) * n, (pv + 0.5) * n], 1))


@pytest.fixture(scope="session")
def movie():
    """Maker of movies (see make_movie)."""
    return make_movie


@pytest.fixture(scope="session")
def drift():
    """A drift of n frames: quick at first, with some jitter."""

    def make(n: int, size: float = 1.0, seed: int = 5) -> NDArray[np.float64]:
        rng = np.random.default_rng(seed)
        t = np.arange(n)
        jitter = rng.normal(0, 0.15, (n, 2)).cumsum(0)
        track = size * np.stack([2.0 * t**0.7, -0.7 * t], 1) + jitter
        return track - track[0]

    return make
