"""How the specimen moves during an exposure: drift of the whole field and a smooth local deformation.

What lies at x in the first frame lies at x + displacement in frame f. The local part has the form of RELION's
motion model (Zivanov, Nakane and Scheres (2019) IUCrJ 6, 5): quadratic in position, cubic in frame number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitreous.data.motion import Motion, grid_points, local_field, space_basis, time_basis

_SETTLING = 4.0  # e/A^2 within which the fast early motion dies away
N_SPATIAL, N_TEMPORAL = 6, 3  # terms of space_basis and time_basis


@dataclass(frozen=True)
class MotionSettings:
    """What to draw motion from.

    drift: A of the whole field over the exposure; early: fraction of it that falls within the first 4 e/A^2 or so;
    jitter: A rms a frame; local: A rms over the field of the deformation at the end of the exposure.
    """

    drift: float = 8.0
    early: float = 0.35
    jitter: float = 0.1
    local: float = 2.0


def no_motion(n_frames: int, shape: tuple[int, int]) -> Motion:
    """A specimen that stands still."""
    return Motion(shape, np.zeros((n_frames, 2)), None)


def displacement_model(motion: Motion, frame: int) -> NDArray[np.float64]:
    """Displacement (x, y) in pixels at one frame as (2, 6) coefficients of space_basis, the whole field's included."""
    model = -local_field(motion, frame)
    model[:, 0] -= motion.global_shifts[frame]
    return model


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
    settled = (1.0 - np.exp(-since / _SETTLING)) / max(1.0 - math.exp(-span / _SETTLING), 1e-6)
    path = settings.early * settled + (1.0 - settings.early) * since / span
    heading = rng.uniform(0.0, 2.0 * math.pi) + rng.uniform(-1.0, 1.0) * since / span
    steps = np.diff(path, prepend=0.0) * settings.drift
    track = np.cumsum(steps[:, None] * np.stack([np.cos(heading), np.sin(heading)], 1), axis=0)
    track[1:] += settings.jitter * rng.standard_normal((n_frames - 1, 2))
    # The deformation settles more slowly than the drift: a cubic, all that the model has, can follow it.
    relaxed = (1.0 - np.exp(-3.0 * since / span)) / (1.0 - math.exp(-3.0))
    local = _random_deformation(relaxed, settings.local / pixel_size, rng)
    return Motion(shape, 0.0 - track / pixel_size, -local.reshape(2, N_SPATIAL * N_TEMPORAL))


def _random_deformation(settled: NDArray[np.float64], rms: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Coefficients (2, 6, 3) of a deformation that follows `settled` as nearly as a cubic can; rms in pixels."""
    powers = time_basis(np.arange(len(settled)))
    temporal = np.linalg.lstsq(powers, settled, rcond=None)[0] if len(settled) > N_TEMPORAL else np.zeros(N_TEMPORAL)
    spatial = rng.standard_normal((2, N_SPATIAL))
    points = grid_points((1, 1), 16)
    terms = space_basis(points[:, 0], points[:, 1], (1, 1))
    # The mean over the field is taken out, so that `drift` stays the motion of the whole.
    spatial[:, 0] = 0.0
    spatial[:, 0] = -(terms @ spatial.T).mean(0)
    size = np.sqrt(np.mean(np.sum((terms @ spatial.T) ** 2, axis=1)))
    return spatial[:, :, None] * temporal * (rms / size)
