"""Patches that move by themselves: carbon, a crack, a crystal. One of them bends the model for the whole field.

A patch in a corner pulls a quadratic surface so strongly that its own residual stays small and its neighbours' grow,
and two that go together hide each other. So a third of the patches, the worst first, are taken away from the surface
(externally studentised residuals; Belsley, Kuh and Welsch (1980) Regression Diagnostics, section 2.1), and then let in
again, the nearest first, as long as the surface through the others foretells them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import special

from vitreous.data.motion import space_basis

Array = NDArray[np.float64]
_FALSE_ALARM = 1e-3  # chance of taking out a patch of a movie that has no outlier
_COMPONENTS = 2  # independent numbers in a track: along x and along y (in time it is smooth)
_SMALLEST = 0.75  # px: a patch that is nearer to the surface through the others does no harm
_MOST = 0.34  # of all patches: where more disagree, it is the surface that is wrong


def outlying_patches(
    tracks: Float[np.ndarray, "p f 2"], centres: Float[np.ndarray, "p 2"], shape: tuple[int, int]
) -> Bool[np.ndarray, "p"]:
    """Which patches do not lie on a quadratic surface with the others.

    tracks: displacement (x, y) in px of each patch in each frame, found without a model. centres: (x, y) px. shape:
    (ny, nx) of the field. None is said to be outlying where there are too few to tell, or where they are no minority.
    """
    n = len(tracks)
    values = tracks.reshape(n, -1)
    design = space_basis(centres[:, 0], centres[:, 1], shape)
    out = np.zeros(n, dtype=np.bool_)
    for _ in range(int(_MOST * n)):
        kept = np.flatnonzero(~out)
        if len(kept) <= design.shape[1] + 2:
            break
        out[kept[int(_studentised(values[kept], design[kept]).argmax())]] = True
    while out.any():
        ratio, distance = _surprise(values, design, out)
        nearest = int(np.where(out, ratio, np.inf).argmin())
        if ratio[nearest] > 1.0 and distance[out].min() > _SMALLEST:
            break
        out[nearest if ratio[nearest] <= 1.0 else int(np.where(out, distance, np.inf).argmin())] = False
    return out


def _studentised(values: Array, design: Array) -> Array:
    """Residual of each patch over its standard error, as the others without it tell."""
    free = len(values) - design.shape[1] - 1
    q, _ = np.linalg.qr(design)
    residual = values - q @ (q.T @ values)
    rest = np.maximum(1.0 - (q**2).sum(1), 1e-6)  # one less the leverage
    square = (residual**2).mean(1)
    others = np.maximum((square.sum() - square / rest) / free, 1e-12)
    return np.asarray(np.sqrt(square / rest / others))


def _surprise(values: Array, design: Array, out: Bool[np.ndarray, "p"]) -> tuple[Array, Array]:
    """How far each patch is from the surface through those that are not out: over what chance allows, and in px."""
    kept = ~out
    q, r = np.linalg.qr(design[kept])
    coefficients = np.linalg.solve(r, q.T @ values[kept])
    difference = ((values - design @ coefficients) ** 2).mean(1)
    spread = 1.0 + (np.linalg.solve(r.T, design.T) ** 2).sum(0)
    free = int(kept.sum()) - design.shape[1]
    noise = max(float(difference[kept].sum()) / free, 1e-12)
    limit = _f_above(_FALSE_ALARM / len(values), _COMPONENTS, _COMPONENTS * free)
    # Along x and y together.
    return np.sqrt(difference / (spread * noise * limit)), np.sqrt(2.0 * difference)


def _f_above(probability: float, first: float, second: float) -> float:
    """The value that an F variable of these degrees of freedom exceeds with this (small) probability."""
    share = float(special.betaincinv(0.5 * second, 0.5 * first, probability))
    return second / first * (1.0 - share) / share
