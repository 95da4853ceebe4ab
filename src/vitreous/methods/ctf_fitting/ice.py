"""How much crystalline ice a micrograph shows: the ring at 3.7 A that hexagonal and cubic ice share.

Hexagonal ice has its strongest reflections at 3.90, 3.67 and 3.44 A, cubic ice at 3.67 A (Dubochet et al. (1988)
Q. Rev. Biophys. 21, 129): all between 0.25 and 0.28 1/A or next to it.
"""

from __future__ import annotations

import numpy as np

from vitreous.methods.ctf_fitting.spectrum import Spectrum, polar_spectrum

RING = (0.25, 0.28)  # 1/A
_FLANKS = ((0.21, 0.245), (0.29, 0.32))  # 1/A: where the background beside it is read


def ice_ring(spectrum: Spectrum) -> float:
    """Power in the ring over what the frequencies beside it foretell, less 1: 0 for vitreous ice.

    The background is a straight line through the logarithms of power on either side. NaN where the spectrum ends before
    the outer side does (pixels above 1.55 A), or has no power there.
    """
    polar = polar_spectrum(spectrum)
    weight = polar.count.sum(0)
    k = np.sqrt((polar.k_squared * polar.count).sum(0) / np.maximum(weight, 1.0))
    power = (polar.power * polar.count).sum(0) / np.maximum(weight, 1.0)
    inside = (k >= RING[0]) & (k <= RING[1]) & (weight > 0)
    beside = np.zeros_like(inside)
    for low, high in _FLANKS:
        flank = (k >= low) & (k <= high) & (weight > 0)
        if flank.sum() < 3:
            return float("nan")
        beside |= flank
    if inside.sum() < 3 or power[inside | beside].min() <= 0:
        return float("nan")
    slope, offset = np.polyfit(k[beside], np.log(power[beside]), 1, w=np.sqrt(weight[beside]))
    expected = np.exp(slope * k[inside] + offset)
    return float(np.average(power[inside] / expected, weights=weight[inside]) - 1.0)
