from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.methods.selection.features import measure_classes
from vitreous.methods.selection.judge import judge_classes, leading_classes, reference_values, weighted_median
from vitreous.methods.selection.likeness import likeness_to_leaders

BOX, PIXEL, DIAMETER = 64, 3.5, 190.0
RADIUS = DIAMETER / 2 / PIXEL


def smooth(image: np.ndarray, resolution: float) -> np.ndarray:
    """Low-passed and cut to the mask, as averages come."""
    tensor = torch.from_numpy(image)
    filtered = to_real(to_fourier(tensor) * lowpass((BOX, BOX), PIXEL, resolution), (BOX, BOX)).numpy()
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    return filtered * (np.hypot(x, y) < RADIUS)


def view(seed: int, x: float = 0.0) -> np.ndarray:
    """A projection of an elongated particle of many small domains."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(40, 2)) * [8.0, 5.5]
    places -= places.mean(axis=0)
    rows, columns = np.mgrid[:BOX, :BOX] - BOX // 2
    image = np.zeros((BOX, BOX))
    for px, py in places:
        image += np.exp(-((columns - px - x) ** 2 + (rows - py) ** 2) / (2 * 2.0**2))
    return image


def noise(seed: int, level: float) -> np.ndarray:
    return level * np.random.default_rng(100 + seed).normal(size=(BOX, BOX))


@pytest.fixture(scope="module")
def gallery() -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Averages, shares, resolutions; the first ones are good, the rest is junk of every kind."""
    good = [smooth(view(seed) + noise(seed, 0.4), 15.0) for seed in range(8)]
    good_share, good_resolution = [0.12, 0.11, 0.1, 0.09, 0.08, 0.06, 0.04, 0.03], [15, 15, 15, 16, 16, 15, 17, 17.0]
    junk = {
        "noise": (smooth(noise(1, 6.0), 25.0), 0.05, 25.0),
        "weak": (smooth(0.2 * view(1) + noise(2, 1.0), 25.0), 0.06, 25.0),
        "off centre": (smooth(view(2, x=11.0) + noise(3, 0.4), 17.0), 0.04, 17.0),
        "neighbours": (smooth(0.8 * view(3, x=-15) + 0.8 * view(4, x=15) + noise(4, 1.0), 22.0), 0.05, 22.0),
        "small": (smooth(12 * np.exp(-(np.add.outer(*[(np.arange(BOX) - 32.0) ** 2] * 2)) / 18) + noise(5, 0.15), 18.0),
                  0.05, 21.0),
        "empty": (np.zeros((BOX, BOX)), 0.0, 999.0),
        "carbon edge": (smooth(6.0 * (np.indices((BOX, BOX))[1] > 40) + noise(6, 1.0), 20.0), 0.06, 20.0),
        "nearly empty": (smooth(view(6) + noise(7, 3.0), 30.0), 0.001, 30.0),
    }  # fmt: skip
    images = np.stack(good + [one[0] for one in junk.values()])
    share = np.array(good_share + [one[1] for one in junk.values()])
    resolution = np.array(good_resolution + [one[2] for one in junk.values()])
    return images, share / share.sum(), resolution, len(good)


def test_good_classes_stay_and_junk_goes(gallery):
    images, share, resolution, n_good = gallery
    verdicts = judge_classes(measure_classes(images, PIXEL, DIAMETER, share, resolution))
    assert [verdict.kept for verdict in verdicts[:n_good]] == [True] * n_good
    assert [verdict.kept for verdict in verdicts[n_good:]] == [False] * (len(images) - n_good)
    assert all(verdict.reason for verdict in verdicts)


def test_reasons_name_what_is_wrong(gallery):
    images, share, resolution, n_good = gallery
    reasons = [v.reason for v in judge_classes(measure_classes(images, PIXEL, DIAMETER, share, resolution))]
    assert "off centre" in reasons[n_good + 2]
    assert "too small" in reasons[n_good + 4]
    assert "not resolved" in reasons[n_good + 5]
    assert "resolution 25.0 A (best classes 15.0 A)" in reasons[n_good]
    assert "of the particles" in reasons[0]


def test_verdicts_do_not_depend_on_grey_scale_or_order(gallery):
    images, share, resolution, _ = gallery
    plain = judge_classes(measure_classes(images, PIXEL, DIAMETER, share, resolution))
    order = np.random.default_rng(0).permutation(len(images))
    other = judge_classes(measure_classes(30.0 * images[order], PIXEL, DIAMETER, share[order], resolution[order]))
    for place, one in zip(order, other, strict=True):
        assert one.kept == plain[place].kept
        assert one.score == pytest.approx(plain[place].score, abs=1e-6)


def test_all_good_classes_are_all_kept(gallery):
    images, share, resolution, n_good = gallery
    measured = measure_classes(images[:n_good], PIXEL, DIAMETER, share[:n_good], resolution[:n_good])
    assert all(verdict.kept for verdict in judge_classes(measured))


def test_rare_views_with_secondary_structure_are_not_lost(gallery):
    images, share, _, n_good = gallery
    resolution = np.array([6.0, 6.0, 6.0, 6.5, 7.0, 8.0, 10.0, 12.0])
    measured = measure_classes(images[:n_good], PIXEL, DIAMETER, share[:n_good], resolution)
    assert all(verdict.kept for verdict in judge_classes(measured))


def test_the_leaders_are_large_and_well_resolved(gallery):
    images, share, resolution, _ = gallery
    resolution = resolution.copy()
    resolution[-1] = 5.0  # a handful of particles overfitted
    measured = measure_classes(images, PIXEL, DIAMETER, share, resolution)
    assert reference_values(measured, leading_classes(measured)).resolution == 15.0


def test_strictness_is_the_users(gallery):
    images, share, resolution, _ = gallery
    measured = measure_classes(images, PIXEL, DIAMETER, share, resolution)
    counts = [sum(v.kept for v in judge_classes(measured, cut)) for cut in (0.0, 0.3, 0.5, 0.9)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == len(images)


def test_nothing_resolved_is_said():
    images, ones = np.zeros((3, BOX, BOX)), np.full(3, 1 / 3)
    with pytest.raises(ValueError, match="no class is resolved"):
        judge_classes(measure_classes(images, PIXEL, DIAMETER, ones, np.full(3, 999.0)))


def test_weighted_median():
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0])) == 2.0
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([5.0, 1.0, 1.0])) == 3.0


def test_likeness_sees_through_rotation_and_mirror():
    first, other = smooth(view(1), 15.0), smooth(view(2), 15.0)
    turned = ndimage.rotate(np.roll(first[::-1], 1, axis=0), 37.5, reshape=False, order=3, mode="nearest")
    images = np.stack([first, turned, other, smooth(noise(3, 6.0), 15.0)])
    found = likeness_to_leaders(images, PIXEL, DIAMETER, np.full(4, 15.0), np.array([0]))
    assert found[0] == 0.0  # no other leader
    assert found[1] > 0.97
    assert found[3] < found[2] < 0.95


def test_a_thin_class_that_looks_like_the_best_is_forgiven_its_resolution(gallery):
    images, share, resolution, n_good = gallery
    blurred = smooth(images[0][::-1].copy(), 26.0)
    images = np.concatenate([images, blurred[None]])
    share, resolution = np.append(share, 0.04), np.append(resolution, 25.0)
    measured = measure_classes(images, PIXEL, DIAMETER, share, resolution)
    likeness = likeness_to_leaders(images, PIXEL, DIAMETER, resolution, leading_classes(measured))
    assert not judge_classes(measured)[-1].kept
    verdicts = judge_classes(measured, likeness=likeness)
    assert verdicts[-1].kept
    assert [v.kept for v in verdicts[:-1]] == [True] * n_good + [False] * (len(images) - 1 - n_good)
