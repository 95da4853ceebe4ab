"""Thresholds, p-values and peaks; what noise alone gives."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from scipy import special

from vitreous.methods.matching.match import MatchSettings, find_hits, match_micrograph, prepare_search
from vitreous.methods.matching.peaks import find_peaks
from vitreous.methods.matching.significance import (
    calibrated_threshold,
    detection_threshold,
    expected_false_positives,
    joint_p_values,
)


def test_threshold_of_a_full_search() -> None:
    """4096^2 pixels, box 512, 1.584 million orientations, 13 planes."""
    assert detection_threshold((4096 - 511) ** 2, 1_584_480 * 13) == pytest.approx(7.775, abs=0.0005)
    z = detection_threshold(1e6, 1e5, 3.0)
    assert expected_false_positives(z, 1e6, 1e5) == pytest.approx(3.0, rel=1e-9)
    with pytest.raises(ValueError, match="false positives"):
        detection_threshold(10.0, 10.0, 200.0)


def test_correlations_with_noise_are_standard_normal(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    """Mean 0 and variance 1 by construction, and as many beyond a threshold as the tail of the normal law has."""
    settings = MatchSettings(45.0, 60.0, defocus_min=-200.0, defocus_max=200.0)
    beyond = {2.0: 0, 3.0: 0, 4.0: 0}
    count, squares = 0, 0.0
    for seed in range(24):
        image = torch.randn(160, 160, generator=torch.Generator().manual_seed(seed))
        search = prepare_search(image, molecule.volume(), lens, settings)
        templates = search.maker(search.orientations.angles[::8]).numpy()
        spectra = scipy.fft.rfft2(templates, s=(160, 160)).conj() * scipy.fft.rfft2(search.image.pixels.numpy())
        values = scipy.fft.irfft2(spectra, s=(160, 160))[:, :113, :113]
        count, squares = count + values.size, squares + float((values.astype(np.float64) ** 2).sum())
        for threshold in beyond:
            beyond[threshold] += int((values > threshold).sum())
    # Some 2,500 Fourier coefficients an image: the mean square of 24 images is good to 0.6%, with weights to about 1%.
    assert squares / count == pytest.approx(1.0, abs=0.03)
    # Neighbours and orientations are correlated, so the spread is that of far fewer independent draws.
    for threshold, tolerance in ((2.0, 0.05), (3.0, 0.15), (4.0, 0.6)):
        expected = 0.5 * count * special.erfc(threshold / np.sqrt(2.0))
        assert beyond[threshold] / expected == pytest.approx(1.0, abs=tolerance)


@pytest.mark.slow
def test_noise_alone_gives_no_more_hits_than_are_accepted(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    """The formula takes all correlations for independent; they are not, so it errs on the safe side."""
    settings = MatchSettings(20.0, 18.0, defocus_min=0.0, defocus_max=0.0)
    found = np.zeros(2)
    images = 24
    for seed in range(images):
        image = torch.randn(160, 160, generator=torch.Generator().manual_seed(100 + seed))
        maps = match_micrograph(image, molecule.volume(), lens, settings)
        found += [len(find_hits(maps, false_positives=accepted)) for accepted in (1.0, 300.0)]
    assert found[0] <= images + 3.0 * images**0.5
    assert 0 < found[1] <= 300.0 * images


def maxima_of_noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """The highest of 400 normal deviates each."""
    return special.ndtri(rng.random(count) ** (1.0 / 400.0))


@pytest.mark.parametrize("particles", [0, 40])
def test_calibrated_threshold_counts_noise_and_not_particles(particles: int) -> None:
    rng = np.random.default_rng(7)
    beyond = {1.0: 0, 10.0: 0}
    for _ in range(40):
        noise = maxima_of_noise(rng, 5000)
        scores = np.append(noise, rng.normal(9.0, 1.0, particles))
        for (
            accepted
        ) in beyond:  # the formula knows no more than a number of pixels and correlations, a hundred too many
            cut = calibrated_threshold(scores, 1e6, 2e5, accepted)
            assert cut < detection_threshold(1e6, 2e5, accepted)
            beyond[accepted] += int((noise > cut).sum())
    assert 0.5 < beyond[1.0] / 40 < 1.7
    assert 7.0 < beyond[10.0] / 400 * 10 < 13.0


def test_calibrated_threshold_is_the_formula_where_little_is_known() -> None:
    assert calibrated_threshold(np.linspace(3, 5, 50), 1e4, 1e3) == detection_threshold(1e4, 1e3)


@pytest.mark.slow
def test_calibrated_threshold_on_searched_noise(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    """Ten false positives an image accepted: as many found, within the spread of a fit to a thousand maxima."""
    settings = MatchSettings(20.0, 18.0, defocus_min=0.0, defocus_max=0.0)
    found = []
    for seed in range(12):
        image = torch.randn(320, 320, generator=torch.Generator().manual_seed(200 + seed))
        maps = match_micrograph(image, molecule.volume(), lens, settings)
        found.append(len(find_hits(maps, false_positives=10.0, calibrated=True)))
    assert 5.0 < np.mean(found) < 16.0


def test_joint_p_values_single_out_what_is_high_in_both() -> None:
    rng = np.random.default_rng(5)
    bulk = rng.multivariate_normal([6.0, 5.0], [[0.1, 0.06], [0.06, 0.1]], 2000)
    mip = np.append(bulk[:, 0], [9.0, 9.0, 4.0])
    score = np.append(bulk[:, 1], [8.0, 4.0, 8.0])
    p = joint_p_values(mip, score)
    assert p[2000] == p.min() and p[2000] < 1e-3
    assert p[2001] == 1.0 and p[2002] == 1.0  # high in one alone
    # The probability of a quadrant falls below a more often than a, but no more often than a product of two would.
    assert 0.01 < (p[:2000] < 0.01).mean() < 0.01 * (1.0 - np.log(0.01))


def test_peaks_keep_their_distance() -> None:
    score = np.zeros((60, 70), np.float32)
    score[20, 20], score[20, 24], score[40, 50], score[59, 0] = 5.0, 6.0, 7.0, 4.0
    peaks = find_peaks(score, 3.0, 5.0)
    assert peaks.positions.tolist() == [[40, 50], [20, 24], [59, 0]]
    assert find_peaks(score, 3.0, 3.0).positions.tolist() == [[40, 50], [20, 24], [20, 20], [59, 0]]
    assert len(find_peaks(score, 8.0, 5.0)) == 0
