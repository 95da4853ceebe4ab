"""Fourier transforms of sixteen columns at once, in place, digit-reversed in between: plans and passes.

Van Loan (1992) Computational Frameworks for the Fast Fourier Transform, sections 1.9, 2.1 and 2.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from vitreous.kernels.correlate import butterflies
from vitreous.kernels.correlate.butterflies import RADICES, ROW

CACHED_ROWS = 256  # 32 kB: blocks of so many rows go through all their passes in the first-level cache


@dataclass(frozen=True)
class Plan:
    """How `length` rows are transformed, of which a forward transform finds the first `box` filled.

    radices: of the passes; the first is at most length / box, 1 where there is none.

    factors: exp(-2 pi i j k / n) of every pass, for j below n / radix and k from 1 below radix, real and imaginary
    parts one after the other, float32; offsets: where each pass's begin, in bytes. spread: those of the first pass,
    (box, radix). order: the frequency that stands at each place of a forward transform.
    """

    length: int
    radices: NDArray[np.int64]
    factors: NDArray[np.float32]
    offsets: NDArray[np.int64]
    spread: NDArray[np.float32]
    order: NDArray[np.int64]


def plan_transform(length: int, box: int) -> Plan:
    """Raises ValueError where length has prime factors beyond 5 or a box fills more than half of it."""
    radices = _split(length, box)
    order = np.zeros(1, np.int64)
    factors, offsets, n = [], [], length
    for radix in radices:
        factors.append(_roots(n // radix, radix, n)[:, 1:].ravel())
        offsets.append(8 * sum(len(one) for one in factors[:-1]))
        n //= radix
    for radix in radices[::-1]:  # of each pass's outputs the k-th block holds the frequencies k modulo radix
        order = (np.arange(radix)[:, None] + radix * order).ravel()
    joined = np.concatenate(factors).astype(np.complex64).view(np.float32)
    spread = _roots(box, radices[0], length).astype(np.complex64).view(np.float32)
    return Plan(length, np.array(radices), joined, np.array(offsets), spread, order)


def _roots(count: int, radix: int, n: int) -> NDArray[np.complex128]:
    return np.exp(-2j * np.pi * np.outer(np.arange(count), np.arange(radix)) / n)


def _split(length: int, box: int) -> list[int]:
    """Radices of the passes: the largest that leaves the box whole first, then large ones."""
    fitting = [radix for radix in RADICES if length % radix == 0 and box * radix <= length]
    if not fitting:
        return [1, *_factor(length)]
    return [fitting[0], *_factor(length // fitting[0])]


def _factor(n: int) -> list[int]:
    found = []
    while n > 1:
        radix = next((r for r in RADICES if n % r == 0), 0)
        if not radix:
            raise ValueError(f"{n} has a prime factor beyond 5")
        if n == 16:
            radix = 4  # two of four rather than eight and two
        found.append(radix)
        n //= radix
    return found


@numba.njit(cache=True, boundscheck=False)
def forward_pass(base, length, n, radix, table):  # type: ignore[no-untyped-def]
    """One pass over the blocks of n rows of a column: each becomes radix blocks."""
    count, step = n // radix, n // radix * ROW
    for start in range(base, base + length * ROW, n * ROW):
        if radix == 8:
            butterflies.last_8(start, step, 0, 0)
            for j in range(1, count):
                butterflies.forward_8(start + j * ROW, step, table + j * 56, 0)
        elif radix == 4:
            butterflies.last_4(start, step, 0, 0)
            for j in range(1, count):
                butterflies.forward_4(start + j * ROW, step, table + j * 24, 0)
        elif radix == 5:
            butterflies.last_5(start, step, 0, 0)
            for j in range(1, count):
                butterflies.forward_5(start + j * ROW, step, table + j * 32, 0)
        elif radix == 3:
            butterflies.last_3(start, step, 0, 0)
            for j in range(1, count):
                butterflies.forward_3(start + j * ROW, step, table + j * 16, 0)
        elif radix == 2:
            butterflies.last_2(start, step, 0, 0)
            for j in range(1, count):
                butterflies.forward_2(start + j * ROW, step, table + j * 8, 0)


@numba.njit(cache=True, boundscheck=False)
def inverse_pass(base, length, n, radix, table):  # type: ignore[no-untyped-def]
    """Undoes forward_pass, but for a factor of radix."""
    count, step = n // radix, n // radix * ROW
    for start in range(base, base + length * ROW, n * ROW):
        if radix == 8:
            butterflies.first_8(start, step, 0, 0)
            for j in range(1, count):
                butterflies.inverse_8(start + j * ROW, step, table + j * 56, 0)
        elif radix == 4:
            butterflies.first_4(start, step, 0, 0)
            for j in range(1, count):
                butterflies.inverse_4(start + j * ROW, step, table + j * 24, 0)
        elif radix == 5:
            butterflies.first_5(start, step, 0, 0)
            for j in range(1, count):
                butterflies.inverse_5(start + j * ROW, step, table + j * 32, 0)
        elif radix == 3:
            butterflies.first_3(start, step, 0, 0)
            for j in range(1, count):
                butterflies.inverse_3(start + j * ROW, step, table + j * 16, 0)
        elif radix == 2:
            butterflies.first_2(start, step, 0, 0)
            for j in range(1, count):
                butterflies.inverse_2(start + j * ROW, step, table + j * 8, 0)


@numba.njit(cache=True, boundscheck=False)
def inverse_passes(base, length, radices, offsets, table):  # type: ignore[no-untyped-def]
    """A whole inverse transform of `length` rows at `base` from digit-reversed to natural order, unnormalised."""
    n, outer = length, 0
    while outer < len(radices) - 1 and n > CACHED_ROWS:
        n //= radices[outer]
        outer += 1
    for row in range(base, base + length * ROW, n * ROW):
        inner = 1
        for i in range(len(radices) - 1, outer - 1, -1):
            inner *= radices[i]
            inverse_pass(row, n, inner, radices[i], table + offsets[i])
    for i in range(outer - 1, -1, -1):
        n *= radices[i]
        inverse_pass(base, length, n, radices[i], table + offsets[i])
