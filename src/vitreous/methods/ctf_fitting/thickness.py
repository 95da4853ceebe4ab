"""How thick the sample is, from the nodes at which its Thon rings vanish.

Elferich, Kong, Zottig and Grigorieff (2024) eLife 13, RP97227. The first node lies at k = 1/sqrt(lambda t): at 4.4 A
for 1,000 A of ice at 300 kV. A sample whose first node is beyond the spectrum (400 A at 2.8 A) only looks as if its
rings faded sooner, and no thickness is reported.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vitreous.core.microscope import Microscope
from vitreous.methods.ctf_fitting.correlation import Band, Correlator, flatten_band, lens_defocus, rings
from vitreous.methods.ctf_fitting.search import Candidate, SearchSettings, evidence, merge_sectors, refine
from vitreous.methods.ctf_fitting.spectrum import PolarSpectrum

Array = NDArray[np.float64]
_STEP = 50.0  # A
_ENVELOPES = (0.0, 40.0, 100.0, 250.0, 600.0)  # A^2, to start from
# A: where a spectrum's steep background begins, and with it rings whose share of the power is no Gaussian of k. They
# say little of defocus, and bias it by 15 A in 2,000 A of sample, where few others are left.
_LOWEST = 20.0
_SECTORS = 24
_STARTS = 3
# Of log-likelihood over a thin sample; chosen, not calibrated: no false alarm in 12 thin simulated samples.
_MIN_GAIN = 12.0


def fit_thickness(
    polar: PolarSpectrum, band: Band, thin: Candidate, microscope: Microscope, settings: SearchSettings
) -> Candidate | None:
    """The CTF of a thick sample, if it describes the rings over the whole band better than that of a thin one.

    The rings' amplitude over frequency is tried with every thickness, then all parameters are refined together. None
    where the sample looks thin.
    """
    band = replace(band, low=min(band.low, _LOWEST))
    points = flatten_band(merge_sectors(polar, _SECTORS), band)
    correlate = Correlator(points, band)
    thinnest = band.high**2 / microscope.wavelength
    thicknesses = np.arange(thinnest + _STEP, settings.thickness_max + 0.5 * _STEP, _STEP)
    if not len(thicknesses):
        return None
    n = len(points.value)
    nodes = np.sinc(microscope.wavelength * thicknesses[:, None] * points.k_squared)
    bare = rings(points.k_squared, lens_defocus(thin.lens, points.angle), microscope, points.length, thin.lens.phase)
    scores = np.empty((len(_ENVELOPES), len(thicknesses)))
    flat = [0.0] * len(_ENVELOPES)
    for index, b_factor in enumerate(_ENVELOPES):
        damped = bare * np.exp(-0.25 * b_factor * points.k_squared)
        scores[index] = correlate(nodes * damped)
        flat[index] = float(correlate(damped))
    envelope = _ENVELOPES[int(np.argmax(flat))]
    # The envelope is free: one of a grid, too flat or too steep, is made up for by 8% of the thickness.
    without = refine(
        Candidate(thin.lens, envelope, 0.0), correlate, microscope, settings, spread=0.3, free_envelope=True
    )
    best = None
    for _ in range(_STARTS):
        index, at = (int(one) for one in np.unravel_index(int(scores.argmax()), scores.shape))
        if not np.isfinite(scores[index, at]):
            break
        lens = replace(thin.lens, thickness=float(thicknesses[at]))
        start = Candidate(lens, _ENVELOPES[index], 0.0)
        found = refine(start, correlate, microscope, settings, spread=0.5, free_envelope=True)
        best = found if best is None or found.score > best.score else best
        scores[:, np.abs(thicknesses - thicknesses[at]) < 5 * _STEP] = -np.inf
    if best is None or best.lens.thickness < thinnest:
        return None
    return best if evidence(best.score, n) - evidence(without.score, n) > _MIN_GAIN else None
