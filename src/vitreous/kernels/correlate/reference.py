"""Correlation as it is defined: a window of the image times the template, summed, float64."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitreous.kernels.correlate.prepared import SearchImage
from vitreous.kernels.correlate.statistics import Statistics, invert


def correlation(image: Float[Tensor, "height width"], template: Float[Tensor, "box box"]) -> Float[Tensor, "y x"]:
    """c(y, x) = sum over i, j of image(y + i, x + j) template(i, j), at valid positions."""
    box = template.shape[-1]
    windows = image.unfold(0, box, 1).unfold(1, box, 1)
    return torch.einsum("yxij,ij->yx", windows, template.to(image.dtype))


def correlate(
    image: SearchImage,
    templates: Float[Tensor, "m box box"],
    numbers: Int[Tensor, "m"],
    twins: Int[Tensor, "m"] | None,
    statistics: Statistics,
) -> None:
    """See kernels.correlate.correlate."""
    for index, template in enumerate(templates):
        _take_up(correlation(image.pixels, template), int(numbers[index]), statistics)
        if twins is not None and int(twins[index]) >= 0:
            _take_up(correlation(image.pixels, invert(template)), int(twins[index]), statistics)


def _take_up(values: Tensor, number: int, statistics: Statistics) -> None:
    single = values.to(statistics.maximum.dtype)
    higher = (single > statistics.maximum) | ((single == statistics.maximum) & (number < statistics.best))
    statistics.maximum = torch.where(higher, single, statistics.maximum)
    statistics.best = torch.where(higher, torch.full_like(statistics.best, number), statistics.best)
    statistics.sum_squares += values.square()
    if statistics.trimmed is not None:
        kept = values < statistics.trimmed.cut
        statistics.trimmed.count += kept
        statistics.trimmed.total += values * kept
        statistics.trimmed.squares += values.square() * kept
