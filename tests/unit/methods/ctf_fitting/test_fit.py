"""CTF fits of synthetic micrographs whose defocus is known, and of the real power spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.core.fourier import radius_grid
from vitreous.io.mrc import read_image
from vitreous.methods.ctf_fitting.correlation import Band, Correlator, Lens, flatten_band, lens_rings
from vitreous.methods.ctf_fitting.fit import CtfFit, fit_ctf, lens_of, score_lens
from vitreous.methods.ctf_fitting.search import Candidate, SearchSettings, best_b_factor, evidence, refine
from vitreous.methods.ctf_fitting.spectrum import (
    Spectrum,
    SpectrumError,
    polar_spectrum,
    spectrum_from_amplitudes,
    spectrum_of_micrograph,
)

KRIOS = Microscope(300.0, 2.7, 0.07)
PIXEL = 1.2


def synthetic(
    defocus_u: float, defocus_v: float, angle: float, phase: float = 0.0, *, size: int = 1024, strength: float = 1.0
) -> np.ndarray:
    """Noise with power 1 + strength CTF^2 exp(-40 k^2) over a steep low-frequency background."""
    rng = np.random.default_rng(int(defocus_u) + int(angle))
    one = [torch.tensor([value], dtype=torch.float64) for value in (defocus_u, defocus_v, angle, phase)]
    contrast = ctf((size, size), PIXEL, KRIOS, Defocus(*one), dtype=torch.float64)[0]
    k = radius_grid((size, size), PIXEL)
    power = 1.0 + strength * contrast**2 * torch.exp(-40.0 * k**2) + 5.0 * torch.exp(-60.0 * k)
    white = torch.fft.rfft2(torch.from_numpy(rng.standard_normal((size, size))))
    return np.asarray(torch.fft.irfft2(white * power.sqrt(), s=(size, size)), dtype=np.float32)


def angle_error(a: float, b: float) -> float:
    return abs((a - b + 90.0) % 180.0 - 90.0)


@pytest.mark.parametrize(
    ("mean", "astigmatism", "angle"),
    [
        (4000.0, 500.0, 30.0),
        (9000.0, 0.0, 0.0),
        (12500.0, 350.0, -70.0),
        (22000.0, 800.0, 88.0),
        (35000.0, 600.0, -20.0),
    ],
)
def test_synthetic_micrograph(mean: float, astigmatism: float, angle: float) -> None:
    # A quarter of a usual micrograph: on less the angle of 350 A of astigmatism is within 5 degrees only by luck.
    image = synthetic(mean + astigmatism / 2, mean - astigmatism / 2, angle, size=2048)
    settings = SearchSettings(defocus_min=3000.0)
    fit = fit_ctf(spectrum_of_micrograph(image, PIXEL), KRIOS, settings=settings)
    assert fit.has_rings
    assert abs((fit.defocus_u + fit.defocus_v) / 2 - mean) < 20.0
    assert abs(fit.defocus_u - fit.defocus_v - astigmatism) < 60.0
    if astigmatism > 300.0:
        assert angle_error(fit.defocus_angle, angle) < 5.0
    assert fit.resolution < 6.0


def test_phase_plate() -> None:
    image = synthetic(10400.0, 10000.0, 25.0, 70.0)
    settings = SearchSettings(phase_max=180.0)
    fit = fit_ctf(spectrum_of_micrograph(image, PIXEL), KRIOS, settings=settings)
    assert abs(fit.phase_shift - 70.0) < 6.0
    assert abs((fit.defocus_u + fit.defocus_v) / 2 - 10200.0) < 80.0
    assert angle_error(fit.defocus_angle, 25.0) < 5.0


def test_strong_astigmatism_is_found_from_the_grid() -> None:
    image = synthetic(17000.0, 15000.0, 45.0, strength=2.0)
    fit = fit_ctf(spectrum_of_micrograph(image, PIXEL), KRIOS)
    assert abs(fit.defocus_u - 17000.0) < 80.0
    assert abs(fit.defocus_v - 15000.0) < 80.0
    assert angle_error(fit.defocus_angle, 45.0) < 2.0


def test_noise_has_no_rings() -> None:
    image = np.random.default_rng(3).standard_normal((1024, 1024)).astype(np.float32)
    fit = fit_ctf(spectrum_of_micrograph(image, PIXEL), KRIOS)
    assert not fit.has_rings


def test_wrong_defocus_scores_low() -> None:
    spectrum = spectrum_of_micrograph(synthetic(15000.0, 14800.0, 10.0), PIXEL)
    right = score_lens(spectrum, KRIOS, lens_of(15000.0, 14800.0, 10.0))
    assert right > 0.15
    assert score_lens(spectrum, KRIOS, lens_of(38000.0, 37000.0, 10.0)) < 0.2 * right


def test_half_ring_error_is_negative() -> None:
    """A CTF with its phase out by a quarter of a turn puts zeros on maxima: the score must say so by its sign."""
    spectrum = spectrum_of_micrograph(synthetic(15000.0, 15000.0, 0.0), PIXEL)
    band = Band(30.0, 5.0)
    correlate = Correlator(flatten_band(polar_spectrum(spectrum), band), band)
    scores = [
        float(correlate(lens_rings(Lens(15000.0, phase=phase), correlate.points, KRIOS, 40.0)))
        for phase in (0.0, np.pi / 2)
    ]
    assert scores[0] > 0.3
    assert scores[1] == pytest.approx(-scores[0], abs=0.02)


def test_background_does_not_move_the_fit() -> None:
    """Doubling the spectrum and bending it smoothly changes neither the flattened rings' defocus nor their score."""
    spectrum = spectrum_of_micrograph(synthetic(15000.0, 14600.0, 10.0), PIXEL)
    k = np.hypot(np.fft.fftfreq(spectrum.box)[:, None], np.fft.rfftfreq(spectrum.box))
    bent = Spectrum(spectrum.power * 2.0 * np.exp(-6.0 * k), spectrum.pixel_size)
    a, b = fit_ctf(spectrum, KRIOS), fit_ctf(bent, KRIOS)
    assert b.defocus_u == pytest.approx(a.defocus_u, abs=3.0)
    assert b.figure_of_merit == pytest.approx(a.figure_of_merit, abs=0.003)


def test_same_answer_twice() -> None:
    spectrum = spectrum_of_micrograph(synthetic(15000.0, 14600.0, 10.0), PIXEL)
    a, b = fit_ctf(spectrum, KRIOS), fit_ctf(spectrum, KRIOS)
    assert (a.defocus_u, a.defocus_angle, a.figure_of_merit) == (b.defocus_u, b.defocus_angle, b.figure_of_merit)


# CTFFIND4's answers in RELION's own tutorial on this data set: (defocus_u, defocus_v, angle).
TUTORIAL = {
    "00021": (10863.9, 10575.7, 78.0),
    "00022": (9836.5, 9586.7, 70.3),
    "00023": (10678.1, 10365.2, 72.0),
    "00024": (11693.0, 11353.9, 74.4),
    "00025": (10656.0, 10381.1, 73.2),
    "00026": (8346.4, 8101.4, 72.7),
    "00027": (9145.2, 8827.0, 78.4),
}


@pytest.mark.data
@pytest.mark.parametrize("number", sorted(TUTORIAL))
def test_real_power_spectrum(data_dir: Path, number: str) -> None:
    path = data_dir / f"betagal_empiar10204/MotionCorr/job002/Movies/20170629_{number}_frameImage_PS.mrc"
    amplitudes, pixel_size = read_image(path)
    fit: CtfFit = fit_ctf(spectrum_from_amplitudes(amplitudes, pixel_size), Microscope(200.0, 1.4, 0.1))
    u, v, angle = TUTORIAL[number]
    assert abs(fit.defocus_u - u) < 100.0
    assert abs(fit.defocus_v - v) < 100.0
    assert angle_error(fit.defocus_angle, angle) < 8.0


@pytest.mark.data
def test_real_micrograph(data_dir: Path) -> None:
    """A radial fit of this one gives 1.07 um (the data's README)."""
    image, _ = read_image(data_dir / "more/micrographs/fei-extended.mrc.gz")
    fit = fit_ctf(spectrum_of_micrograph(image, 0.854), Microscope(300.0, 2.7, 0.07))
    assert fit.has_rings
    assert abs((fit.defocus_u + fit.defocus_v) / 2 - 10700.0) < 300.0
    assert fit.resolution < 5.0


@pytest.mark.data
def test_the_wrong_defocus_of_that_project_is_seen_to_be_wrong(data_dir: Path) -> None:
    """CTFFIND's 37,034 and 35,846 A, from the wrong input, against what fits."""
    path = data_dir / "betagal_empiar10204/MotionCorr/job002/Movies/20170629_00021_frameImage_PS.mrc"
    amplitudes, pixel_size = read_image(path)
    spectrum, lens = spectrum_from_amplitudes(amplitudes, pixel_size), Microscope(200.0, 1.4, 0.1)
    right = score_lens(spectrum, lens, lens_of(*TUTORIAL["00021"]))
    assert right > 0.2
    assert score_lens(spectrum, lens, lens_of(37034.9, 35846.5, -14.8)) < 0.1 * right


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (np.zeros((512, 512), np.float32), "constant"),
        (np.full((512, 512), np.nan, np.float32), "NaN"),
        (np.zeros((64, 64), np.float32), "too small"),
    ],
)
def test_no_spectrum(image: np.ndarray, what: str) -> None:
    with pytest.raises(SpectrumError, match=what):
        spectrum_of_micrograph(image, PIXEL)


def test_weak_spectra_are_fitted_as_well_as_from_the_truth() -> None:
    settings, band = SearchSettings(defocus_min=3000.0), Band(30.0, 4.0)
    for mean, astigmatism, angle in [(23378.0, 718.0, 40.0), (7726.0, 769.0, -60.0), (15000.0, 500.0, 10.0)]:
        image = synthetic(mean + astigmatism / 2, mean - astigmatism / 2, angle, size=1024, strength=0.12)
        spectrum = spectrum_of_micrograph(image, PIXEL)
        fit = fit_ctf(spectrum, KRIOS, settings=settings)
        correlate = Correlator(flatten_band(polar_spectrum(spectrum), band), band)
        truth = Candidate(lens_of(mean + astigmatism / 2, mean - astigmatism / 2, angle), 0.0, 0.0)
        climbed = refine(best_b_factor(truth, correlate, KRIOS), correlate, KRIOS, settings)
        found = Candidate(
            fit.lens, fit.b_factor, float(correlate(lens_rings(fit.lens, correlate.points, KRIOS, fit.b_factor)))
        )
        assert log_posterior(found, correlate, settings) > log_posterior(climbed, correlate, settings) - 0.2


def log_posterior(candidate: Candidate, correlate: Correlator, settings: SearchSettings) -> float:
    astigmatism = 2.0 * np.hypot(candidate.lens.cosine, candidate.lens.sine)
    likelihood = evidence(candidate.score, len(correlate.points.value))
    return likelihood - 0.5 * float(astigmatism / settings.astigmatism_expected) ** 2
