"""Correlation kernel: every form against the float64 reference, twins, odd sizes, merging, trimmed sums."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from vitreous.kernels.correlate import Statistics, correlate, cpu, cuda, prepare_image
from vitreous.kernels.correlate.prepared import SearchImage
from vitreous.kernels.correlate.reference import correlation
from vitreous.kernels.correlate.statistics import invert

# The form for GPUs is torch throughout and runs anywhere; on a GPU it is the same code.
FORMS = {"cpu": (cpu, "cpu"), "cuda form": (cuda, "cpu"), "gpu": (cuda, "cuda")}
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
EACH_FORM = ["cpu", "cuda form", pytest.param("gpu", marks=[pytest.mark.gpu, NEEDS_GPU])]


def random_templates(count: int, box: int, generator: torch.Generator) -> torch.Tensor:
    templates = torch.randn(count, box, box, generator=generator, dtype=torch.float64) / box
    templates[:, 0] = 0.0
    templates[:, :, 0] = 0.0
    return templates


def searched(
    image: SearchImage, templates: torch.Tensor, twins: torch.Tensor | None, trim: torch.Tensor | None = None
) -> Statistics:
    statistics = Statistics.empty(image.valid_shape, image.box, trim=trim, device=image.pixels.device)
    correlate(image, templates.to(image.pixels.device), torch.arange(len(templates)), twins, statistics)
    return statistics


def test_reference_is_the_definition(generator: torch.Generator) -> None:
    image = torch.randn(23, 31, generator=generator, dtype=torch.float64)
    template = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    expected = scipy.signal.correlate2d(image.numpy(), template.numpy(), mode="valid")
    np.testing.assert_allclose(correlation(image, template).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("form", EACH_FORM)
@pytest.mark.parametrize("shape", [(48, 48), (45, 64), (61, 47), (97, 33), (64, 128)])
@pytest.mark.parametrize("with_twins", [False, True])
def test_fast_forms_equal_the_reference(
    shape: tuple[int, int], with_twins: bool, form: str, generator: torch.Generator
) -> None:
    box, count = 16, 11
    pixels = torch.randn(shape, generator=generator, dtype=torch.float64)
    templates = random_templates(count, box, generator)
    twins = torch.arange(count, 2 * count) if with_twins else None
    if twins is not None:
        twins[3] = -1  # an orientation without a twin
    cuts = 1.0 + torch.rand(shape[0] - box + 1, shape[1] - box + 1, generator=generator)
    truth = searched(prepare_image(pixels, box), templates, twins, trim=cuts)
    module, device = FORMS[form]
    image = prepare_image(pixels.to(device, torch.float32), box)
    fast = Statistics.empty(image.valid_shape, box, trim=cuts, device=image.pixels.device)
    module.correlate(image, templates.to(device), torch.arange(count), twins, fast)
    fast.count_templates(templates.to(device), twins)
    assert fast.maximum.shape == (shape[0] - box + 1, shape[1] - box + 1)
    torch.testing.assert_close(fast.maximum.cpu(), truth.maximum, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(fast.sum_squares.cpu(), truth.sum_squares, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(fast.template_sum.cpu(), truth.template_sum, atol=1e-6, rtol=1e-6)
    assert fast.count == truth.count == count + (count - 1) * with_twins
    assert bool((fast.best.cpu() == truth.best).double().mean() > 0.999)
    assert fast.trimmed is not None and truth.trimmed is not None
    same = fast.trimmed.count.cpu() == truth.trimmed.count
    assert float(same.double().mean()) > 0.999
    torch.testing.assert_close(fast.trimmed.total.cpu()[same], truth.trimmed.total[same], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(fast.trimmed.squares.cpu()[same], truth.trimmed.squares[same], atol=1e-4, rtol=1e-5)


def test_sum_of_correlations_is_one_correlation(generator: torch.Generator) -> None:
    box = 16
    image = prepare_image(torch.randn(40, 52, generator=generator, dtype=torch.float64), box)
    templates = random_templates(5, box, generator)
    statistics = searched(image, templates, torch.arange(5, 10))
    total = sum(correlation(image.pixels, one) + correlation(image.pixels, invert(one)) for one in templates)
    assert isinstance(total, torch.Tensor)
    torch.testing.assert_close(correlation(image.pixels, statistics.template_sum), total)


def test_twin_is_the_template_turned_by_180_degrees(generator: torch.Generator) -> None:
    templates = random_templates(2, 12, generator)
    torch.testing.assert_close(invert(invert(templates)), templates)
    assert float(invert(templates)[0, 6 + 2, 6 - 3]) == float(templates[0, 6 - 2, 6 + 3])


def test_batches_that_do_not_divide_give_the_same_numbers(generator: torch.Generator) -> None:
    """Leopard-EM 1.3.0 gave wrong angles in a last, shorter batch."""
    box, count = 16, 13
    image = prepare_image(torch.randn(50, 50, generator=generator), box)
    templates = random_templates(count, box, generator)
    whole = searched(image, templates, None)
    parts = Statistics.empty(image.valid_shape, box)
    for start in range(0, count, 5):
        numbers = torch.arange(start, min(start + 5, count))
        correlate(image, templates[start : start + 5], numbers, None, parts)
    assert torch.equal(parts.best, whole.best)
    torch.testing.assert_close(parts.maximum, whole.maximum, atol=1e-6, rtol=0)
    merged = Statistics.empty(image.valid_shape, box)
    merged.merge(parts)
    assert torch.equal(merged.maximum, parts.maximum) and torch.equal(merged.best, parts.best)


def test_merging_is_exact_in_any_order(generator: torch.Generator) -> None:
    box = 16
    image = prepare_image(torch.randn(50, 50, generator=generator), box)
    templates = random_templates(9, box, generator)
    pieces = []
    for start in (0, 3, 6):
        piece = Statistics.empty(image.valid_shape, box, trim=torch.full(image.valid_shape, 2.0))
        correlate(image, templates[start : start + 3], torch.arange(start, start + 3), None, piece)
        pieces.append(Statistics.from_arrays(piece.arrays()))
    results = []
    for order in ((0, 1, 2), (2, 0, 1)):
        total = Statistics.empty(image.valid_shape, box, trim=torch.full(image.valid_shape, 2.0))
        for index in order:
            total.merge(pieces[index])
        results.append(total)
    assert torch.equal(results[0].maximum, results[1].maximum) and torch.equal(results[0].best, results[1].best)
    torch.testing.assert_close(results[0].sum_squares, results[1].sum_squares, rtol=1e-12, atol=0)
    assert results[0].count == 9


def test_equal_correlations_take_the_lower_number(generator: torch.Generator) -> None:
    box = 16
    image = prepare_image(torch.randn(40, 40, generator=generator), box)
    template = random_templates(1, box, generator).repeat(2, 1, 1)
    statistics = Statistics.empty(image.valid_shape, box)
    correlate(image, template, torch.tensor([7, 4]), torch.tensor([8, 5]), statistics)
    assert set(statistics.best.unique().tolist()) == {4, 5}


def test_wrong_boxes_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="even"):
        prepare_image(torch.zeros(32, 32), 15)
    with pytest.raises(ValueError, match="within the image"):
        prepare_image(torch.zeros(32, 12), 16)
    image = prepare_image(torch.zeros(32, 32), 16)
    with pytest.raises(ValueError, match="boxes of 16"):
        correlate(image, torch.zeros(1, 8, 8), torch.zeros(1, dtype=torch.int64), None, Statistics.empty((17, 17), 16))
