"""Intensity scale of groups of particles (one micrograph each): thick ice shows a particle more weakly.

Within a group the reference is multiplied by one factor s, the one that fits its images best: sum XA / sum AA of images
X and projections A = CTF P, over all samples with their posterior weights and in units of the noise. The factors are
normalised to a mean of one over the particles. Scheres (2012) J. Struct. Biol. 180, 519, section 2.7.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.weighted_sums import WeightedSamples, WeightedSums
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.expectation import Posterior
from vitreous.methods.refinement.particles import ParticleSet

SCALE_SSNR = 3.0  # shells whose signal-to-noise ratio in the reference is above this have a say, as in RELION
_LOWEST, _HIGHEST = 0.2, 5.0  # of the median
_ROWS = 4096  # orientations whose power is held at a time


def signal_products(
    posterior: Posterior, sums: WeightedSums, coefficients: Coefficients, max_shell: int
) -> Float[np.ndarray, "n 2"]:
    """Expected sums of X A and of A^2 of each image up to max_shell, A with the scale it was compared with."""
    m = coefficients.count(max_shell)
    images = posterior.images.masked.first(m)
    power = _expected_power(posterior.samples, posterior.references, images.n_images, m)
    squares = 2.0 * np.einsum("nm,nm->n", images.half_power.cpu().numpy(), power, dtype=np.float64)
    gains = sums.gains[:, : max_shell + 1].sum(1).cpu().numpy()  # of X A - A^2 / 2
    return np.stack([gains + 0.5 * squares, squares], 1)


def _expected_power(samples: WeightedSamples, references: Tensor, n: int, m: int) -> Float[np.ndarray, "n m"]:
    """Mean |P|^2 over each image's posterior, m coefficients."""
    from scipy.sparse import csr_matrix  # a tenth of a second, for those who ask for scales

    pairs = np.repeat(np.arange(samples.n_pairs), np.diff(samples.starts))
    weights = np.bincount(pairs, samples.weights, minlength=samples.n_pairs).astype(np.float32)
    rows, compact = np.unique(samples.rows, return_inverse=True)
    posterior = csr_matrix((weights, (samples.images, compact)), shape=(n, len(rows)))
    total = np.zeros((n, m), dtype=np.float32)
    for first in range(0, len(rows), _ROWS):
        chosen = torch.from_numpy(rows[first : first + _ROWS]).to(references.device)
        power = torch.view_as_real(references[chosen, :m]).square().sum(-1)
        total += posterior[:, first : first + _ROWS] @ power.cpu().numpy()
    return total


def new_scale(
    products: Float[Tensor, "groups 2"], previous: NDArray[np.float64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scale of each group from the sums of its particles (of X A and A^2 with the previous scale).

    groups: of the particles summed over; a group without any keeps its scale. No scale is less than a fifth or more
    than five times the median.
    """
    xa, aa = products.numpy().T
    sizes = np.bincount(groups, minlength=len(previous))
    measured = (sizes > 0) & (aa > 0)
    scale = np.where(measured, previous * xa / np.where(aa > 0, aa, 1.0), previous)
    if not measured.any():
        return scale
    median = float(np.median(scale[measured]))
    if median <= 0:
        return previous
    scale = np.where(measured, np.clip(scale, _LOWEST * median, _HIGHEST * median), scale)
    mean = float((scale * sizes).sum() / sizes.sum())
    return np.where(measured, scale / mean, scale)


def renewed_scale(
    products: Float[Tensor, "groups 2"], particles: ParticleSet, indices: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """The scales after a pass over `indices` (None: all); empty where scales are not estimated."""
    if particles.scale is None or particles.scale_groups is None:
        return np.zeros(0)
    if not len(products):
        return particles.scale
    groups = particles.scale_groups if indices is None else particles.scale_groups[indices]
    return new_scale(products, particles.scale, groups)


def scale_shell(ssnr: Float[Tensor, "*classes shells"], at_least: int = 2) -> int:
    """Highest shell up to which the best class's signal-to-noise ratio stays above the threshold."""
    best = ssnr.reshape(-1, ssnr.shape[-1]).amax(0)[1:]
    below = torch.nonzero(best < SCALE_SSNR).flatten()
    return max(at_least, int(below[0]) if len(below) else len(best))
