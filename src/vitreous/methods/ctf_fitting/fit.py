"""Fit the CTF of one micrograph from its power spectrum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vitreous.core.microscope import Microscope
from vitreous.methods.ctf_fitting.correlation import (
    Band,
    Correlator,
    Lens,
    Points,
    flatten_band,
    lens_rings,
    smooth_trend,
)
from vitreous.methods.ctf_fitting.equiphase import EquiphaseCurve, equiphase_curve, fit_resolution
from vitreous.methods.ctf_fitting.search import (
    Candidate,
    SearchSettings,
    best_b_factor,
    evidence,
    grid_search,
    refine,
)
from vitreous.methods.ctf_fitting.spectrum import (
    PolarSpectrum,
    Spectrum,
    SpectrumError,
    frequencies,
    polar_spectrum,
)
from vitreous.methods.ctf_fitting.thickness import fit_thickness

# The best of all trials on pure noise reaches 4 to 7 (median), 15 at most in a hundred micrographs.
_MIN_EVIDENCE = 18.0
# A: as far as the refinement goes whether or not rings are seen so far out. Rings too weak to be seen one by one still
# add up: half of what a weak spectrum says of defocus lies beyond 5 A.
_FINEST_UNSEEN = 4.0


@dataclass(frozen=True)
class CtfFit:
    """A fitted CTF in RELION's convention.

    defocus_u >= defocus_v in A; defocus_angle in degrees from x to the U axis, -90 .. 90; phase_shift in degrees.
    figure_of_merit: correlation of the spectrum's pixels with the fit over the band. resolution: A, to which the
    rings follow the fit (infinite: nowhere). evidence: log-likelihood gain over no rings at all. b_factor: A^2, of
    the rings. curve: the equiphase average. thickness: A, of the sample (0: it looks thin, or was taken so).
    """

    defocus_u: float
    defocus_v: float
    defocus_angle: float
    phase_shift: float
    figure_of_merit: float
    resolution: float
    evidence: float
    b_factor: float
    curve: EquiphaseCurve
    thickness: float = 0.0

    @property
    def has_rings(self) -> bool:
        """Whether Thon rings were found at all."""
        return self.evidence > _MIN_EVIDENCE and self.resolution < float("inf")

    @property
    def lens(self) -> Lens:
        """The same CTF as the search writes it."""
        thin = lens_of(self.defocus_u, self.defocus_v, self.defocus_angle, self.phase_shift)
        return replace(thin, thickness=self.thickness)


def fit_ctf(
    spectrum: Spectrum, microscope: Microscope, band: Band | None = None, settings: SearchSettings | None = None
) -> CtfFit:
    """Find defocus, astigmatism and (if asked for) phase shift.

    The whole grid is searched, its best separate peaks are refined in a band to 4 A at least, the best of them is
    taken; when its rings go on beyond that they are used too. Raises SpectrumError where the band holds too few
    Fourier pixels.
    """
    settings = settings or SearchSettings()
    band = usable_band(spectrum, band or Band(30.0, 5.0))
    polar = polar_spectrum(spectrum)
    starts = grid_search(polar, band, microscope, settings)
    fine = usable_band(spectrum, replace(band, high=min(band.high, _FINEST_UNSEEN)))
    correlate = Correlator(flatten_band(polar, fine), fine)
    refined = [refine(start, correlate, microscope, settings) for start in starts]
    best = max(refined, key=lambda candidate: candidate.score)
    settled = best_b_factor(best, correlate, microscope)
    if settled.b_factor != best.b_factor:  # the search chose one for all defoci, without astigmatism
        best = refine(settled, correlate, microscope, settings, spread=0.3)
    return finish_fit(spectrum, polar, best, (band, Band(band.low, nyquist_limit(spectrum))), microscope, settings)


def finish_fit(
    spectrum: Spectrum,
    polar: PolarSpectrum,
    best: Candidate,
    bands: tuple[Band, Band],
    microscope: Microscope,
    settings: SearchSettings,
) -> CtfFit:
    """From the best candidate of the search to the result: as far as rings go, and through a thick sample's nodes.

    polar: what is fitted (that of `spectrum`, or of tiles brought to one defocus). bands: of the search, and the whole.
    """
    band, whole = bands
    curve = equiphase_curve(polar, best.lens, microscope, whole)
    resolution = fit_resolution(curve, best.lens, microscope, spectrum.length)
    thick = None
    if resolution < 0.97 * band.high:
        band = replace(band, high=max(resolution, whole.high))
    if band.high < 0.97 * _FINEST_UNSEEN:
        correlate = Correlator(flatten_band(polar, band), band)
        best = refine(best_b_factor(best, correlate, microscope), correlate, microscope, settings, spread=0.3)
    if settings.thickness_max:
        thick = fit_thickness(polar, whole, best, microscope, settings)
    if thick is not None:
        best, band = thick, whole
    correlate = Correlator(flatten_band(polar, band), band)
    model = lens_rings(best.lens, correlate.points, microscope, best.b_factor)
    gain = evidence(float(correlate(model)), len(correlate.points.value))
    curve = equiphase_curve(polar, best.lens, microscope, whole)
    resolution = fit_resolution(curve, best.lens, microscope, spectrum.length)
    merit = pixel_correlation(spectrum, microscope, best, band)
    return report(best, merit, resolution, gain, curve)


def describe_lens(spectrum: Spectrum, microscope: Microscope, lens: Lens, band: Band | None = None) -> CtfFit:
    """What `fit_ctf` would say of a CTF that is known already: nothing is searched."""
    band = usable_band(spectrum, band or Band(30.0, 5.0))
    polar = polar_spectrum(spectrum)
    correlate = Correlator(flatten_band(polar, band), band)
    best = best_b_factor(Candidate(lens, 0.0, 0.0), correlate, microscope)
    curve = equiphase_curve(polar, lens, microscope, Band(band.low, nyquist_limit(spectrum)))
    resolution = fit_resolution(curve, lens, microscope, spectrum.length)
    gain = evidence(best.score, len(correlate.points.value))
    return report(best, pixel_correlation(spectrum, microscope, best, band), resolution, gain, curve)


def report(best: Candidate, merit: float, resolution: float, gain: float, curve: EquiphaseCurve) -> CtfFit:
    """Put a lens into RELION's terms."""
    half = float(np.hypot(best.lens.cosine, best.lens.sine))
    angle = float(np.rad2deg(0.5 * np.arctan2(best.lens.sine, best.lens.cosine)))
    return CtfFit(
        defocus_u=best.lens.defocus + half,
        defocus_v=best.lens.defocus - half,
        defocus_angle=angle,
        phase_shift=float(np.rad2deg(best.lens.phase)),
        figure_of_merit=merit,
        resolution=resolution,
        evidence=gain,
        b_factor=best.b_factor,
        curve=curve,
        thickness=best.lens.thickness,
    )


def lens_of(defocus_u: float, defocus_v: float, defocus_angle: float, phase_shift: float = 0.0) -> Lens:
    """RELION's parameters (A, degrees) as a Lens."""
    half = 0.5 * (defocus_u - defocus_v)
    axis = np.deg2rad(2.0 * defocus_angle)
    mean = 0.5 * (defocus_u + defocus_v)
    return Lens(mean, float(half * np.cos(axis)), float(half * np.sin(axis)), float(np.deg2rad(phase_shift)))


def score_lens(spectrum: Spectrum, microscope: Microscope, lens: Lens, band: Band | None = None) -> float:
    """figure_of_merit of a CTF that is given (e.g. from an earlier program) on this spectrum."""
    band = usable_band(spectrum, band or Band(30.0, 5.0))
    polar = polar_spectrum(spectrum)
    correlate = Correlator(flatten_band(polar, band), band)
    candidate = best_b_factor(Candidate(lens, 0.0, 0.0), correlate, microscope)
    return pixel_correlation(spectrum, microscope, candidate, band)


def pixel_correlation(spectrum: Spectrum, microscope: Microscope, candidate: Candidate, band: Band) -> float:
    """Normalised correlation of all Fourier pixels of the band with the CTF."""
    points = pixel_points(spectrum, band)
    model = lens_rings(candidate.lens, points, microscope, candidate.b_factor)
    return float(Correlator(points, band)(model))


def pixel_points(spectrum: Spectrum, band: Band) -> Points:
    """Every Fourier pixel of the band (the cross along the axes left out), flattened."""
    ky, kx = frequencies(spectrum)
    k_squared = ky * ky + kx * kx
    step = 1.5 / spectrum.length
    inside = (k_squared >= band.low**-2) & (k_squared <= band.high**-2) & (np.abs(ky) > step) & (kx > step)
    amplitude = np.sqrt(spectrum.power[inside])
    weight = np.ones_like(amplitude)
    trend = smooth_trend(amplitude, weight, np.sqrt(k_squared[inside]), band)
    angle = np.arctan2(*np.broadcast_arrays(ky, kx))[inside]
    return Points(amplitude / trend - 1.0, weight, k_squared[inside], angle, spectrum.length)


def nyquist_limit(spectrum: Spectrum) -> float:
    """The finest resolution in A that the spectrum holds, a little short of its Nyquist frequency."""
    return 2.04 * spectrum.pixel_size


def usable_band(spectrum: Spectrum, band: Band) -> Band:
    """The band, cut at the Nyquist frequency. Raises SpectrumError where it holds fewer than 20 Fourier pixels."""
    high = max(band.high, nyquist_limit(spectrum))
    if spectrum.length * (1.0 / high - 1.0 / band.low) < 20:
        raise SpectrumError(
            f"fewer than 20 Fourier pixels from {band.low:g} to {high:.3g} A: use a larger box or a wider range"
        )
    return Band(band.low, high)
