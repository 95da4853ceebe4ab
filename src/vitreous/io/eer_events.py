"""Decode the run lengths of one EER frame (Guo et al. 2020 IUCrJ 7, 860)."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def add_events(
    data: NDArray[np.uint8],
    skip_bits: int,
    sub_bits: tuple[int, int],
    upsampling: int,
    counts: NDArray[np.uint16],
) -> int:
    """Add the events of one raw frame to counts (y, x), the sensor's size times upsampling (a power of two).

    Codes are packed from the lowest bit up. A code of skip_bits tells how many pixels hold no event; the largest
    one means that no event follows it. After any other come the bits of position within the pixel, x below y,
    with their highest bit turned over. What pads the stream beyond the last pixel is ignored.
    Returns the number of events, -1 where the stream ends before the frame does.
    """
    width = counts.shape[1] // upsampling
    n_pixels = width * (counts.shape[0] // upsampling)
    x_bits, y_bits = sub_bits
    event_bits = x_bits + y_bits
    longest = (1 << skip_bits) - 1
    level = 0
    while (1 << level) < upsampling:
        level += 1
    window = np.uint64(0)
    held = 0
    next_byte = 0
    pixel = 0
    events = 0
    while pixel < n_pixels:
        while held <= 48 and next_byte < data.shape[0]:
            window |= np.uint64(data[next_byte]) << np.uint64(held)
            held += 8
            next_byte += 1
        if held < skip_bits:
            return -1
        skip = int(window & np.uint64(longest))
        window >>= np.uint64(skip_bits)
        held -= skip_bits
        pixel += skip
        if skip == longest:
            continue
        if pixel >= n_pixels:
            break
        if held < event_bits:
            return -1
        x_sub = int(window & np.uint64((1 << x_bits) - 1)) ^ (1 << (x_bits - 1))
        y_sub = int((window >> np.uint64(x_bits)) & np.uint64((1 << y_bits) - 1)) ^ (1 << (y_bits - 1))
        window >>= np.uint64(event_bits)
        held -= event_bits
        y = (pixel // width) * upsampling + (y_sub >> (y_bits - level))
        x = (pixel % width) * upsampling + (x_sub >> (x_bits - level))
        counts[y, x] += np.uint16(1)
        events += 1
        pixel += 1
    return events
