"""Leave-one-out correlation sums on the CPU: one fused pass a frame, no temporaries of the frames' size.

Threads are Python's (the loop leaves the interpreter lock): movies run side by side in one process, which
numba's own pools do not all allow.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex, Float
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads


@njit(cache=True, fastmath=True, nogil=True)
def _sums(
    frames: NDArray[np.float32],
    w: NDArray[np.float32],
    qy: NDArray[np.float32],
    qx: NDArray[np.float32],
    d: NDArray[np.float64],
    used: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    n_patches, n_frames, height = frames.shape[:3]
    for p in range(n_patches):
        cos_x = np.empty((n_frames, qx.size), np.float32)
        sin_x = np.empty((n_frames, qx.size), np.float32)
        for f in range(n_frames):
            for x in range(qx.size):
                cos_x[f, x] = np.cos(qx[x] * d[p, f, 0])
                sin_x[f, x] = np.sin(qx[x] * d[p, f, 0])
        a_re = np.empty((n_frames, qx.size), np.float32)
        a_im = np.empty((n_frames, qx.size), np.float32)
        s_re = np.empty(qx.size, np.float32)
        s_im = np.empty(qx.size, np.float32)
        # A row of all frames at a time: it stays in the cache between the sum and the correlation.
        for y in range(height):
            n = used[y]
            s_re[:n] = 0.0
            s_im[:n] = 0.0
            for f in range(n_frames):
                c = np.float32(np.cos(qy[y] * d[p, f, 1]))
                s = np.float32(np.sin(qy[y] * d[p, f, 1]))
                for x in range(n):
                    pr = c * cos_x[f, x] - s * sin_x[f, x]
                    pi = c * sin_x[f, x] + s * cos_x[f, x]
                    fr = frames[p, f, y, x, 0]
                    fi = frames[p, f, y, x, 1]
                    ar = fr * pr - fi * pi
                    ai = fr * pi + fi * pr
                    a_re[f, x] = ar
                    a_im[f, x] = ai
                    s_re[x] += ar
                    s_im[x] += ai
            k = qy[y]
            for f in range(n_frames):
                r0 = np.float32(0.0)
                r1 = np.float32(0.0)
                r2 = np.float32(0.0)
                i0 = np.float32(0.0)
                i1 = np.float32(0.0)
                p0 = np.float32(0.0)
                p1 = np.float32(0.0)
                p2 = np.float32(0.0)
                for x in range(n):
                    br = s_re[x] - a_re[f, x]
                    bi = s_im[x] - a_im[f, x]
                    cr = w[y, x] * (a_re[f, x] * br + a_im[f, x] * bi)
                    ci = w[y, x] * (a_im[f, x] * br - a_re[f, x] * bi)
                    power = np.float32(0.5) * (cr * cr + ci * ci)
                    q = qx[x]
                    r0 += cr
                    r1 += q * cr
                    r2 += q * q * cr
                    i0 += ci
                    i1 += q * ci
                    p0 += power
                    p1 += q * power
                    p2 += q * q * power
                out[p, f, 0] += r0
                out[p, f, 1] -= i1
                out[p, f, 2] -= k * i0
                out[p, f, 3] -= r2
                out[p, f, 4] -= k * k * r0
                out[p, f, 5] -= k * r1
                out[p, f, 6] += p2
                out[p, f, 7] += k * k * p0
                out[p, f, 8] += k * p1


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
    used = np.where((w > 0).any(1), w.shape[1] - np.argmax(w[:, ::-1] > 0, axis=1), 0).astype(np.int64)
    frames = torch.view_as_real(frames_ft.to(torch.complex64).contiguous()).numpy()
    qy = (2.0 * np.pi * ky.to(torch.float64)).to(torch.float32).numpy()
    qx = (2.0 * np.pi * kx.to(torch.float64)).to(torch.float32).numpy()
    d = displacements.to(torch.float64).contiguous().numpy()
    out = np.zeros((*frames_ft.shape[:2], 9))

    def part(patches: slice) -> None:
        _sums(frames[patches], w, qy, qx, d[patches], used, out[patches])

    in_threads(part, len(frames))
    return torch.from_numpy(out)
