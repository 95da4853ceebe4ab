"""Correlation on a GPU, in torch: the same pruned order of transforms as on the CPU, float32.

The complex columns are transformed back for all kx, then only the valid rows, as real ones.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitreous.kernels.correlate.prepared import SearchImage
from vitreous.kernels.correlate.statistics import Statistics


def correlate(
    image: SearchImage,
    templates: Float[Tensor, "m box box"],
    numbers: Int[Tensor, "m"],
    twins: Int[Tensor, "m"] | None,
    statistics: Statistics,
) -> None:
    """See kernels.correlate.correlate; on the image's device, all m templates at once."""
    device = image.pixels.device
    height, width = image.padded
    rows_ft = torch.fft.rfft(templates.to(device, torch.float32), n=width)
    spectra = torch.fft.fft(rows_ft.transpose(1, 2), n=height)  # (m, half, height)
    products = image.columns_ft * spectra.conj()
    labels = numbers.to(device, torch.int32)
    values = _back(products, image, 0)
    if twins is not None:
        present = torch.nonzero(twins >= 0)[:, 0].to(device)
        values = torch.cat([values, _back(image.columns_ft * spectra[present], image, image.box)])
        labels = torch.cat([labels, twins.to(device, torch.int32)[present]])
    _take_up(values, labels, statistics)


def _back(products: Tensor, image: SearchImage, offset: int) -> Tensor:
    """Correlations (m, valid_y, valid_x) from products (m, half, height); a twin's lie box pixels further on."""
    height, width = image.padded
    valid_y, valid_x = image.valid_shape
    rows = (torch.arange(valid_y, device=products.device) + offset) % height
    columns = (torch.arange(valid_x, device=products.device) + offset) % width
    back = torch.fft.ifft(products).transpose(1, 2)
    values = torch.fft.irfft(back[:, rows] if offset else back[:, :valid_y], n=width)
    return values[..., columns] if offset else values[..., :valid_x]


def _take_up(values: Tensor, labels: Tensor, statistics: Statistics) -> None:
    order = torch.argsort(labels)  # argmax takes the first of equals: the lowest number
    high, where = values[order].max(0)
    number = labels[order][where]
    better = (high > statistics.maximum) | ((high == statistics.maximum) & (number < statistics.best))
    statistics.maximum = torch.where(better, high, statistics.maximum)
    statistics.best = torch.where(better, number, statistics.best)
    statistics.sum_squares += values.square().sum(0)
    if statistics.trimmed is not None:
        kept = values < statistics.trimmed.cut
        statistics.trimmed.count += kept.sum(0, dtype=torch.int32)
        statistics.trimmed.total += (values * kept).sum(0)
        statistics.trimmed.squares += (values.square() * kept).sum(0)
