"""Comparison as torch matrix products: the dense form everywhere, the sparse form on GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vitreous.kernels.compare.inputs import DenseGains, DenseRows, Samples, WhitenedImages, as_parts

_CHUNK = 1 << 24  # elements of a temporary


@contextmanager
def products_in(low_precision: bool, device: torch.device) -> Iterator[None]:
    """Let float32 products round their inputs (bfloat16 on CPU, tf32 on CUDA), for this block alone."""
    if not low_precision:
        yield
        return
    backend: Any = torch.backends.cuda.matmul
    if device.type != "cuda":
        backend = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009 (not in torch's type stubs)
    before = backend.fp32_precision
    backend.fp32_precision = "tf32" if device.type == "cuda" else "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


def prepare_rows(references: Tensor) -> DenseRows:
    """See `compare.prepare_rows`."""
    return DenseRows(as_parts(references), references.abs().square())


def dense(images: WhitenedImages, rows: DenseRows, phases: Tensor, *, low_precision: bool = False) -> DenseGains:
    """See `compare_dense`."""
    n, m = images.data.shape
    n_shifts, n_rows = phases.shape[0], rows.parts.shape[0]
    norms = images.half_power @ rows.power.T  # always full precision
    cross = torch.empty(n, n_shifts, n_rows, dtype=torch.float32, device=images.data.device)
    step = max(1, _CHUNK // max(1, n_shifts * m))
    with products_in(low_precision, images.data.device):
        for start in range(0, n, step):
            shifted = as_parts(images.data[start : start + step, None] * phases).flatten(0, 1)
            torch.mm(shifted, rows.parts.T, out=cross[start : start + step].view(-1, n_rows))
    return DenseGains(cross, norms)


def sparse(images: WhitenedImages, references: Tensor, phases: Tensor, samples: Samples) -> Tensor:
    """See `compare_sparse`: a product over all shifts for each pair, of which the wanted ones are kept."""
    device = images.data.device
    a, b = samples.orientation_children, samples.shift_children
    m = images.data.shape[1]
    pair_images = torch.from_numpy(samples.images).to(device)
    pair_rows = torch.from_numpy(samples.rows).to(device)
    entry_pairs = torch.from_numpy(samples.entry_pairs()).to(device)
    shifts = torch.from_numpy(samples.shifts).to(device)
    table = as_parts(phases.conj()).T.contiguous()  # Re(Y phase) = Re Y Re phase - Im Y Im phase
    out = torch.empty(samples.n_entries, a, b, dtype=torch.float32, device=device)
    step = max(1, _CHUNK // (a * max(m, phases.shape[0])))
    for start in range(0, samples.n_pairs, step):
        stop = min(start + step, samples.n_pairs)
        i = pair_images[start:stop]
        children = pair_rows[start:stop, None] * a + torch.arange(a, device=device)
        p = references[children]  # (pairs, a, m)
        y = p.conj() * images.data[i][:, None]
        norm = torch.einsum("pam,pm->pa", p.abs().square(), images.half_power[i])
        gains = (as_parts(y) @ table - norm[..., None]).unflatten(-1, (-1, b))  # (pairs, a, shifts, b)
        first, last = int(samples.starts[start]), int(samples.starts[stop])
        out[first:last] = gains[entry_pairs[first:last] - start, :, shifts[first:last]]
    return out


def all_shifts(
    images: WhitenedImages,
    references: Tensor,
    phases: Tensor,
    pair_images: Tensor,
    pair_rows: Tensor,
    *,
    low_precision: bool,
) -> Tensor:
    """See `compare_all_shifts`."""
    table = as_parts(phases.conj()).T.contiguous()
    out = torch.empty(len(pair_rows), len(phases), dtype=torch.float32, device=images.data.device)
    step = max(1, _CHUNK // images.data.shape[1])
    for start in range(0, len(pair_rows), step):
        i, p = pair_images[start : start + step], references[pair_rows[start : start + step]]
        norm = (p.abs().square() * images.half_power[i]).sum(1)
        with products_in(low_precision, p.device):
            out[start : start + step] = as_parts(p.conj() * images.data[i]) @ table
        out[start : start + step] -= norm[:, None]
    return out
