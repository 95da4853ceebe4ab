"""Leave-one-out correlation sums on the CPU: one fused pass a frame, no temporaries of the frames' size.

Threads are Python's (the loop leaves the interpreter lock): movies run side by side in one process, which
numba's own pools do not all allow. Arrays are flat and their indices unsigned: signed ones may be negative to numba,
and the tests for that keep the loops from being vectorised. Rows are short: were they not inlined, calls with so many
arrays would take as long as the arithmetic.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex, Float
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads

Floats = NDArray[np.float32]
_N = 9  # sums a patch and frame


@njit(inline="always", cache=True, fastmath=True, nogil=True)
def _align_row(
    frames: Floats, start: np.uint64, n: np.uint64,
    cos_x: Floats, sin_x: Floats, first_x: np.uint64, c: np.float32, s: np.float32,
    re: Floats, im: Floats, at: np.uint64, sum_re: Floats, sum_im: Floats,
) -> None:  # fmt: skip
    """Turn n coefficients from `start` on by the phases of row (c, s) and columns; keep them, add them to the sum."""
    two, one = np.uint64(2), np.uint64(1)
    for x in range(n):
        phase_re = c * cos_x[first_x + x] - s * sin_x[first_x + x]
        phase_im = c * sin_x[first_x + x] + s * cos_x[first_x + x]
        frame_re = frames[two * (start + x)]
        frame_im = frames[two * (start + x) + one]
        aligned_re = frame_re * phase_re - frame_im * phase_im
        aligned_im = frame_re * phase_im + frame_im * phase_re
        re[at + x] = aligned_re
        im[at + x] = aligned_im
        sum_re[x] += aligned_re
        sum_im[x] += aligned_im


@njit(inline="always", cache=True, fastmath=True, nogil=True)
def _correlate_row(
    re: Floats, im: Floats, at: np.uint64, n: np.uint64, sum_re: Floats, sum_im: Floats,
    w: Floats, first_w: np.uint64, qx: Floats, k: np.float32, out: NDArray[np.float64], to: np.uint64,
) -> None:  # fmt: skip
    """A frame's row against the sum of the other frames', with what its derivatives need; k is the row's frequency."""
    zero, half = np.float32(0.0), np.float32(0.5)
    r0, r1, r2, i0, i1, p0, p1, p2 = zero, zero, zero, zero, zero, zero, zero, zero
    for x in range(n):
        a, b = re[at + x], im[at + x]
        others_re = sum_re[x] - a
        others_im = sum_im[x] - b
        cross_re = w[first_w + x] * (a * others_re + b * others_im)
        cross_im = w[first_w + x] * (b * others_re - a * others_im)
        power = half * (cross_re * cross_re + cross_im * cross_im)
        q = qx[x]
        r0 += cross_re
        r1 += q * cross_re
        r2 += q * q * cross_re
        i0 += cross_im
        i1 += q * cross_im
        p0 += power
        p1 += q * power
        p2 += q * q * power
    sums = (r0, -i1, -k * i0, -r2, -k * k * r0, -k * r1, p2, k * k * p0, k * p1)
    for j in range(_N):
        out[to + np.uint64(j)] += sums[j]


@njit(cache=True, fastmath=True, nogil=True)
def _sums(
    frames: Floats, w: Floats, qy: Floats, qx: Floats,
    columns: tuple[Floats, Floats], rows: tuple[Floats, Floats], looked_at: tuple[NDArray[np.int64], NDArray[np.int64]],
    shape: tuple[int, int, int, int], out: NDArray[np.float64],
) -> None:  # fmt: skip
    """shape: (p, f, height, width) of the frames. looked_at: which n rows of them, and how many columns of each.

    columns, rows: cosines and sines of the phases, (p, f, qx.size) and (p, f, n). qy (n,), qx: frequencies.
    """
    n_patches, n_frames = np.uint64(shape[0]), np.uint64(shape[1])
    height, width = np.uint64(shape[2]), np.uint64(shape[3])
    n_rows, n_columns = np.uint64(qy.size), np.uint64(qx.size)
    re, im = np.empty(shape[1] * qx.size, np.float32), np.empty(shape[1] * qx.size, np.float32)
    sum_re, sum_im = np.empty(qx.size, np.float32), np.empty(qx.size, np.float32)
    for p in range(n_patches):
        # A row of all frames at a time: it stays in the cache between the sum and the correlation.
        for i in range(n_rows):
            y, n = np.uint64(looked_at[0][i]), np.uint64(looked_at[1][i])
            sum_re[:] = 0.0
            sum_im[:] = 0.0
            for f in range(n_frames):
                frame = p * n_frames + f
                start, row = (frame * height + y) * width, frame * n_rows + i
                _align_row(
                    frames, start, n, columns[0], columns[1], frame * n_columns, rows[0][row], rows[1][row],
                    re, im, f * n_columns, sum_re, sum_im,
                )  # fmt: skip
            for f in range(n_frames):
                to = (p * n_frames + f) * np.uint64(_N)
                _correlate_row(re, im, f * n_columns, n, sum_re, sum_im, w, y * width, qx, qy[i], out, to)


def sums(
    frames_ft: Complex[Tensor, "p f height half"],
    weights: Float[Tensor, "height half"],
    ky: Float[Tensor, "height"],
    kx: Float[Tensor, "half"],
    displacements: Float[Tensor, "p f 2"],
) -> Float[Tensor, "p f 9"]:
    """As `reference.sums`, in float32 with float64 totals over rows."""
    w = weights.to(torch.float32).contiguous().numpy()
    # Rows beyond the weights' disc end early.
    used = np.where((w > 0).any(1), w.shape[1] - np.argmax(w[:, ::-1] > 0, axis=1), 0)
    kept = np.flatnonzero(used)
    looked_at = (kept, used[kept].astype(np.int64))
    frames = torch.view_as_real(frames_ft.to(torch.complex64).contiguous()).numpy()
    qy, qx = ((2.0 * np.pi * k.to(torch.float64)).to(torch.float32).numpy() for k in (ky, kx))
    # Phases are as dear as the rest where the weights leave a small part: no more of them than that.
    qy, qx = qy[kept], qx[: used.max(initial=0)]
    d = displacements.to(torch.float32).numpy()
    angles = (d[..., 0, None] * qx, d[..., 1, None] * qy)
    phases = [function(angle) for angle in angles for function in (np.cos, np.sin)]
    out = np.zeros((*frames_ft.shape[:2], _N))

    def part(patches: slice) -> None:
        cos_x, sin_x, cos_y, sin_y = (phase[patches].reshape(-1) for phase in phases)
        here = out[patches]
        _sums(
            frames[patches].reshape(-1), w.reshape(-1), qy, qx, (cos_x, sin_x), (cos_y, sin_y), looked_at,
            (len(here), *frames.shape[1:4]), here.reshape(-1),
        )  # fmt: skip

    in_threads(part, len(frames))
    return torch.from_numpy(out)
