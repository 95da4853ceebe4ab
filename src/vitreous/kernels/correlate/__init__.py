"""Cross-correlation of one image with many small templates, and what is kept of it at every pixel.

A template correlates with the image wherever it lies wholly inside (valid cropping): position (y, x) of the maps is the
image pixel under the template's first row and column. The *twin* of a template is its inversion about the box centre,
the projection at psi + 180 degrees; its transform is the conjugate, so one forward transform serves both.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitreous.kernels.correlate import cpu, cuda, reference
from vitreous.kernels.correlate.cpu import working_bytes
from vitreous.kernels.correlate.prepared import SearchImage, prepare_image
from vitreous.kernels.correlate.reference import correlation
from vitreous.kernels.correlate.statistics import Statistics

__all__ = ["SearchImage", "Statistics", "correlate", "correlation", "prepare_image", "working_bytes"]


def correlate(
    image: SearchImage,
    templates: Float[Tensor, "m box box"],
    numbers: Int[Tensor, "m"],
    twins: Int[Tensor, "m"] | None,
    statistics: Statistics,
) -> None:
    """Correlate with m templates (and their twins) and take the results up in `statistics`, in place.

    templates: first row and column zero, so that the box is symmetric about its centre. numbers, twins: what stands in
    `statistics.best` where a template, or its twin, is the highest so far; a twin number below 0 leaves that twin out
    (twins None: no twins at all). Of equal correlations the lower number wins.
    The form is chosen by the image: float64 reference, numba and MKL transforms on the CPU, torch on CUDA.
    """
    if templates.shape[-1] != image.box or templates.shape[-2] != image.box:
        raise ValueError(f"templates of {tuple(templates.shape[-2:])} for an image prepared for boxes of {image.box}")
    if image.pixels.dtype == torch.float64:
        reference.correlate(image, templates, numbers, twins, statistics)
    else:
        (cuda if image.pixels.is_cuda else cpu).correlate(image, templates, numbers, twins, statistics)
    statistics.count_templates(templates, twins)
