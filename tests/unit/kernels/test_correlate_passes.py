"""Our Fourier transforms of sixteen columns: against numpy for every radix, and their plans."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from vitreous.kernels.correlate.butterflies import LANES, transpose
from vitreous.kernels.correlate.columns import block_starts
from vitreous.kernels.correlate.passes import forward_pass, inverse_passes, plan_transform


@numba.njit
def _forward(rows, radices, offsets, factors):  # type: ignore[no-untyped-def]
    n = rows.shape[0]
    for i in range(len(radices)):
        forward_pass(rows.ctypes.data, rows.shape[0], n, radices[i], factors.ctypes.data + offsets[i])
        n //= radices[i]


@numba.njit
def _transpose(source, target):  # type: ignore[no-untyped-def]
    transpose(source.ctypes.data, target.ctypes.data, 0, 0)


@pytest.mark.parametrize("length", [2, 3, 4, 5, 8, 16, 30, 48, 100, 270, 512, 600, 1024, 3840])
def test_transforms_equal_numpys(length: int) -> None:
    rng = np.random.default_rng(length)
    values = rng.standard_normal((length, LANES)) + 1j * rng.standard_normal((length, LANES))
    rows = np.stack([values.real, values.imag], 1).astype(np.float32)
    plan = plan_transform(length, length)
    _forward(rows, plan.radices, plan.offsets, plan.factors)
    truth = np.fft.fft(values, axis=0)[plan.order]
    np.testing.assert_allclose(rows[:, 0] + 1j * rows[:, 1], truth, atol=2e-6 * np.abs(truth).max())
    inverse_passes(rows.ctypes.data, length, plan.radices, plan.offsets, plan.factors.ctypes.data)
    np.testing.assert_allclose((rows[:, 0] + 1j * rows[:, 1]) / length, values, atol=1e-5)


def test_lanes_and_rows_are_exchanged() -> None:
    rows = np.arange(2.0 * LANES**2, dtype=np.float32).reshape(LANES, 2, LANES)
    target = np.empty_like(rows)
    _transpose(rows, target)
    np.testing.assert_array_equal(target, rows.transpose(2, 1, 0))


def test_plans() -> None:
    plan = plan_transform(1024, 256)
    assert plan.radices.prod() == 1024 and plan.radices[0] == 4  # three quarters of a column are zero
    assert plan_transform(48, 40).radices[0] == 1  # nothing to gain
    with pytest.raises(ValueError, match="prime factor"):
        plan_transform(28, 4)
    with pytest.raises(ValueError, match="at least 16"):
        block_starts(15)
    assert set(np.concatenate([np.arange(s, s + LANES) for s in block_starts(37)])) == set(range(37))
