"""Radiation damage by spatial frequency, and the weights that make the most of a dose-fractionated exposure.

Grant and Grigorieff (2015) eLife 4, e06980: signal at frequency k fades as exp(-N / (2 Ne(k))) with the
exposure N (e/A^2), Ne(k) = 0.24499 k^-1.6649 + 2.8141 at 300 kV.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Fitted to rotavirus VP6 at 300 kV; frequencies in 1/A, exposures in e/A^2.
_AMPLITUDE = 0.24499
_EXPONENT = -1.6649
_OFFSET = 2.8141
# The exposure at which the signal-to-noise ratio of a sum is largest: x of exp(x/2) = 1 + x, times Ne.
OPTIMAL_EXPOSURES = 2.51284


def voltage_scale(voltage: float) -> float:
    """Critical exposure at a voltage (kV) relative to 300 kV: 0.8 at 200, 0.64 at 100.

    Slower electrons do more damage each. Grant and Grigorieff use 0.8 at 200 kV (the ratio of the squared
    electron speeds is 0.80); Peet, Henderson and Russo (2019) Ultramicroscopy 203, 125 measured 1.57 times the
    damage at 100 kV (1/1.57 = 0.64 = 0.8^2). 0.8^((300 - V)/100) goes through all three.
    """
    if not voltage > 0:
        raise ValueError(f"voltage must be positive, not {voltage}")
    return float(0.8 ** ((300.0 - voltage) / 100.0))


def critical_exposure(frequency: Float[Tensor, "*grid"], voltage: float = 300.0) -> Float[Tensor, "*grid"]:
    """Exposure (e/A^2) after which the signal power at a frequency (1/A) has fallen to 1/e; inf at zero."""
    return voltage_scale(voltage) * (_AMPLITUDE * frequency.pow(_EXPONENT) + _OFFSET)


def optimal_exposure(frequency: Float[Tensor, "*grid"], voltage: float = 300.0) -> Float[Tensor, "*grid"]:
    """Exposure (e/A^2) that maximises the signal-to-noise ratio of an unweighted sum at a frequency (1/A)."""
    return OPTIMAL_EXPOSURES * critical_exposure(frequency, voltage)


def dose_filter(
    frequency: Float[Tensor, "*grid"], exposure: Float[Tensor, "n"], voltage: float = 300.0
) -> Float[Tensor, "n *grid"]:
    """Fraction of the signal amplitude left at each frequency (1/A) after n exposures (e/A^2): exp(-N/(2 Ne))."""
    n = exposure.reshape(-1, *([1] * frequency.dim()))
    return torch.exp(-n / (2.0 * critical_exposure(frequency, voltage)))


def dose_weights(
    frequency: Float[Tensor, "*grid"], exposure: Float[Tensor, "n"], voltage: float = 300.0
) -> Float[Tensor, "n *grid"]:
    """Weights q_i / sqrt(sum_j q_j^2) of n frames at accumulated exposures (e/A^2), pre-exposure included.

    The best sum for the signal, with the noise power of one frame at every frequency. What all frames have
    borne (pre-exposure; where in a frame the exposure is counted) cancels, so it is taken off first: nothing
    underflows.
    """
    q = dose_filter(frequency, exposure - exposure.min(), voltage)
    return q / q.square().sum(0).sqrt()
