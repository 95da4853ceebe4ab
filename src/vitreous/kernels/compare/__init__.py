"""Compare images with projections at many shifts: the hot loop of every expectation step.

For image i, projection r and shift t the gain in log-likelihood over an empty reference is

    sum_k Re[conj(P_rk) (CTF X)_ik / sigma2_k exp(-2 pi i k.t)] - CTF_ik^2 |P_rk|^2 / (2 sigma2_k)

over the independent coefficients k (Scheres (2012) J. Mol. Biol. 415, 406, eq. 5, less the power of the
image, which is the same for all samples). `reference.py` writes it out, `cpu.py` runs numba and BLAS,
`cuda.py` is torch products throughout; a test holds all forms together.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.compare import cpu, cuda
from vitreous.kernels.compare.inputs import DenseGains, DenseRows, Samples, WhitenedImages

__all__ = [
    "DenseGains",
    "DenseRows",
    "Samples",
    "WhitenedImages",
    "compare_all_shifts",
    "compare_dense",
    "compare_sparse",
    "prepare_rows",
]


def prepare_rows(references: Complex[Tensor, "r m"]) -> DenseRows:
    """Lay projections out once for comparison with many batches of images."""
    return cuda.prepare_rows(references)


def compare_dense(
    images: WhitenedImages,
    rows: DenseRows,
    phases: Complex[Tensor, "t m"],
    *,
    low_precision: bool = False,
) -> DenseGains:
    """Gain of every image against every reference row at every shift (float32), as one matrix product.

    low_precision: bfloat16 inputs with float32 sums where the machine has them (AMX, tensor cores): the set of
    significant samples stays the same to within 0.2% (see the test); not for final weights.
    """
    return cuda.dense(images, rows, phases, low_precision=low_precision)


def compare_sparse(
    images: WhitenedImages,
    references: Complex[Tensor, "rows m"],
    phases: Complex[Tensor, "shifts m"],
    samples: Samples,
) -> Float[Tensor, "entries a b"]:
    """Gain of chosen samples: entry e, orientation child a, shift child b (float32)."""
    if images.data.is_cuda:
        return cuda.sparse(images, references, phases, samples)
    return cpu.sparse(images, references, phases, samples)


def compare_all_shifts(
    images: WhitenedImages,
    references: Complex[Tensor, "rows m"],
    phases: Complex[Tensor, "shifts m"],
    pair_images: NDArray[np.int64],
    pair_rows: NDArray[np.int64],
    *,
    low_precision: bool = False,
) -> Float[Tensor, "pairs shifts"]:
    """Gain of chosen pairs of an image and a row at every shift (float32); low_precision as in `compare_dense`."""
    if images.data.is_cuda:
        there = (torch.from_numpy(one).to(images.data.device) for one in (pair_images, pair_rows))
        return cuda.all_shifts(images, references, phases, *there, low_precision=low_precision)
    return cpu.all_shifts(images, references, phases, pair_images, pair_rows, low_precision=low_precision)
