"""Sum images over their posterior: the hot loop of every maximisation step.

For each orientation row, over the samples that have a part in it,

    data_k  = sum_i sum_t w_irt (CTF X)_ik / sigma2_k exp(-2 pi i k.t)
    power_k = sum_i sum_t w_irt CTF_ik^2 / sigma2_k

so that each orientation is put into the volume (or 2D average) once and not once an image (Scheres (2012)
J. Struct. Biol. 180, 519, eq. 3). The shifts are summed first: sum_t w_t exp(-2 pi i k.t) multiplies the image
once. Alongside, the expected gain of each image by shell, from which noise and norm are estimated.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.compare.inputs import WhitenedImages
from vitreous.kernels.weighted_sums import cpu, cuda
from vitreous.kernels.weighted_sums.inputs import WeightedSamples, WeightedSums

__all__ = ["WeightedSamples", "WeightedSums", "pair_totals", "weighted_sums"]


def weighted_sums(
    masked: WhitenedImages,
    unmasked: WhitenedImages,
    references: Complex[Tensor, "rows m"],
    phases: Complex[Tensor, "shifts m"],
    samples: WeightedSamples,
    shell_starts: Tensor,
) -> WeightedSums:
    """Sum unmasked images by row; gains by shell from the masked ones.

    shell_starts: (n_shells + 1,) first coefficient of each shell (`Coefficients.shell_starts`).
    """
    form = cuda if masked.data.is_cuda else cpu
    return form.sums(masked, unmasked, references, phases, samples, shell_starts)


def pair_totals(samples: WeightedSamples, shifts: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each (image, row) pair, (n_pairs, 4): sum of w, of w y, of w x and of w (y^2 + x^2) over its shifts.

    shifts: (n_shifts, 2), y and x of the shifts that the samples number.
    """
    return cpu.pair_totals(samples, shifts)
