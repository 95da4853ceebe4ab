"""How the specimen moves during an exposure: drift of the whole field and a smooth local deformation.

What lies at x in the first frame lies at x + displacement in frame f. The local part has the form of RELION's
motion model (Zivanov, Nakane and Scheres (2019) IUCrJ 6, 5): quadratic in position, cubic in frame number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Spatial terms 1, x, x^2, y, y^2, xy; each times z, z^2, z^3 with z the frame from 0: 18 coefficients an axis.
N_SPATIAL, N_TEMPORAL = 6, 3


@dataclass(frozen=True)
class MotionSettings:
    """What to draw motion from.

    drift: A of the whole field over the exposure; early: fraction of it that falls within the first 4 e/A^2 or so;
    jitter: A rms a frame; local: A rms over the field of the deformation at the end of the exposure.
    """

    drift: float = 12.0
    early: float = 0.5
    jitter: float = 0.1
    local: float = 3.0


@dataclass(frozen=True)
class Motion:
    """Displacement of a movie's content in pixels, (x, y).

    field (n_frames, 2): of the whole field, zero in the first frame. coefficients (2, 6, 3): of the local model,
    for x and y displacement, spatial term, power of z - 1; positions are x / width - 0.5 and y / height - 0.5.
    """

    field: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    shape: tuple[int, int]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.field)

    def spatial(self, frame: int) -> NDArray[np.float64]:
        """Local model at one frame: (2, 6) coefficients of 1, x, x^2, y, y^2, xy."""
        return self.coefficients @ np.array([frame, frame**2, frame**3], dtype=np.float64)

    def displacement(self, frame: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Displacement (..., 2) as x, y in pixels at positions x, y (pixels) of one frame."""
        u, v = x / self.shape[1] - 0.5, y / self.shape[0] - 0.5
        terms = np.stack([np.ones_like(u), u, u * u, v, v * v, u * v], -1)
        return self.field[frame] + terms @ self.spatial(frame).T


def no_motion(n_frames: int, shape: tuple[int, int]) -> Motion:
    """A specimen that stands still."""
    return Motion(np.zeros((n_frames, 2)), np.zeros((2, N_SPATIAL, N_TEMPORAL)), shape)


def random_motion(
    exposures: NDArray[np.float64],
    shape: tuple[int, int],
    pixel_size: float,
    settings: MotionSettings,
    rng: np.random.Generator,
) -> Motion:
    """Draw the motion of one movie: fast at first, then slow, in a slowly turning direction.

    exposures (n_frames,): e/A^2 accumulated at the middle of each frame.
    """
    n_frames = len(exposures)
    since = exposures - exposures[0]
    span = max(float(since[-1]), 1e-6)
    settled = (1.0 - np.exp(-since / 3.0)) / max(1.0 - math.exp(-span / 3.0), 1e-6)
    path = settings.early * settled + (1.0 - settings.early) * since / span
    heading = rng.uniform(0.0, 2.0 * math.pi) + rng.uniform(-1.0, 1.0) * since / span
    steps = np.diff(path, prepend=0.0) * settings.drift
    track = np.cumsum(steps[:, None] * np.stack([np.cos(heading), np.sin(heading)], 1), axis=0)
    track[1:] += settings.jitter * rng.standard_normal((n_frames - 1, 2))
    return Motion(track / pixel_size, _random_deformation(settled, settings.local / pixel_size, rng), shape)


def _random_deformation(settled: NDArray[np.float64], rms: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Coefficients (2, 6, 3) of a deformation that follows `settled` as nearly as a cubic can; rms in pixels."""
    z = np.arange(len(settled), dtype=np.float64)
    powers = np.stack([z, z**2, z**3], 1)
    temporal = np.linalg.lstsq(powers, settled, rcond=None)[0] if len(z) > 3 else np.zeros(3)
    spatial = rng.standard_normal((2, N_SPATIAL))
    spatial[:, 0] = 0.0  # the field's mean motion is the drift's
    grid = (np.arange(16) + 0.5) / 16 - 0.5
    u, v = (axis.ravel() for axis in np.meshgrid(grid, grid))
    terms = np.stack([np.ones_like(u), u, u * u, v, v * v, u * v], 1)
    # Mean over the field taken out, so that `drift` stays the motion of the whole.
    spatial[:, 0] = -(terms @ spatial.T).mean(0)
    size = np.sqrt(np.mean(np.sum((terms @ spatial.T) ** 2, axis=1)))
    return spatial[:, :, None] * temporal * (rms / size)
