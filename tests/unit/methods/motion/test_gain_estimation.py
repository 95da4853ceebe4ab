"""Gain estimated from movies whose gain is known."""

from __future__ import annotations

import numpy as np
import pytest

from vitreous.methods.motion.gain_estimation import estimate_gain

N = 192


def sums(n_movies: int, counts: float, gain: np.ndarray | float = 1.0, seed: int = 1) -> list[np.ndarray]:
    """Sums of movies: illumination that falls off, a smooth specimen that differs, counts that the gain has to undo."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
    k2 = np.fft.fftfreq(N)[:, None] ** 2 + np.fft.rfftfreq(N) ** 2
    out = []
    for _ in range(n_movies):
        specimen = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((N, N))) * np.exp(-200 * k2))
        light = counts * (1 - 0.2 * (x**2 + y**2)) * (1 + 0.1 * specimen / specimen.std())
        out.append(rng.poisson(np.clip(light / gain, 0, None)).astype(float))
    return out


def pattern(spread: float) -> np.ndarray:
    return np.random.default_rng(7).normal(1.0, spread, (N, N)).clip(0.4)


@pytest.mark.parametrize(("n_movies", "counts"), [(40, 60.0), (12, 60.0)])
def test_the_gain_is_found_to_what_counting_allows(n_movies: int, counts: float) -> None:
    true = pattern(0.1)
    found = estimate_gain(sums(n_movies, counts, true), (N, N))
    assert found is not None
    inside = (slice(20, -20), slice(20, -20))
    error = (found.gain / found.gain[inside].mean() - true / true[inside].mean())[inside]
    limit = 1.0 / np.sqrt(0.85 * n_movies * counts)  # Poisson noise, and the light at the edges
    assert error.std() < 1.3 * limit
    assert found.spread == pytest.approx(0.1, rel=0.1)
    assert found.uncertainty == pytest.approx(error.std(), rel=0.3)


def test_frames_that_are_corrected_already_give_none() -> None:
    assert estimate_gain(sums(10, 50.0), (N, N)) is None
    assert estimate_gain(sums(1, 50.0, pattern(0.1)), (N, N)) is None
    assert estimate_gain([], (N, N)) is None


def test_a_weak_pattern_is_shrunk_so_that_it_does_no_harm() -> None:
    true = pattern(0.02)
    found = estimate_gain(sums(6, 100.0, true), (N, N))
    assert found is not None
    inside = (slice(20, -20), slice(20, -20))
    with_it = (true / found.gain)[inside].std()
    assert with_it < true[inside].std()


def test_dead_and_hot_pixels_have_no_gain() -> None:
    true = pattern(0.1)
    movies = sums(10, 60.0, true)
    for total in movies:
        total[50, 60] = 0.0
        total[90, 100] *= 20.0
    found = estimate_gain(movies, (N, N))
    assert found is not None
    assert found.gain[50, 60] == 0.0
    assert found.gain[90, 100] == 0.0
    assert (found.gain == 0.0).sum() == 2
