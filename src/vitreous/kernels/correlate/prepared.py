"""An image made ready to be searched: padded to a size whose transforms are cheap, transformed, transposed."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.fft
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.correlate.columns import BlockedImage, block_image

_LEAST_SIZE = 32  # of a transform: sixteen columns go together


@dataclass(frozen=True)
class SearchImage:
    """pixels: the (filtered) image (y, x). box: side of the templates. padded: (y, x) size of the transforms.

    columns_ft: the half transform with kx first, (padded_x // 2 + 1, padded_y); blocked: the same as the CPU form wants
    it. The float64 reference works in real space and has neither.
    """

    pixels: Float[Tensor, "height width"]
    box: int
    padded: tuple[int, int]
    columns_ft: Complex[Tensor, "half padded_y"] | None = None
    blocked: BlockedImage | None = None

    @property
    def valid_shape(self) -> tuple[int, int]:
        """(y, x) positions at which a template lies wholly inside."""
        height, width = self.pixels.shape
        return height - self.box + 1, width - self.box + 1


def cheap_size(size: int) -> int:
    """The smallest even size >= size with prime factors up to 5: both FFT libraries are quick there."""
    return 2 * int(scipy.fft.next_fast_len((size + 1) // 2, real=True))


def prepare_image(pixels: Float[Tensor, "height width"], box: int) -> SearchImage:
    """Make an image ready for templates of side box (even). float64 asks for the reference.

    The circular correlation of the padded transform is the true one wherever the template lies inside the image, so no
    more padding is needed than a cheap size. Raises ValueError for an odd box or one larger than the image.
    """
    if box % 2 or min(pixels.shape) < box:
        raise ValueError(f"a box of {box} does not fit: it must be even and within the image {tuple(pixels.shape)}")
    padded = (cheap_size(max(pixels.shape[0], _LEAST_SIZE)), cheap_size(max(pixels.shape[1], _LEAST_SIZE)))
    if pixels.dtype == torch.float64:
        return SearchImage(pixels, box, padded)
    single = pixels.to(torch.float32)
    # float64 here costs nothing (once an image) and keeps the only rounding in the templates' own transforms.
    columns = torch.fft.rfft2(single.to(torch.float64), s=padded).T.contiguous()
    columns_ft = columns.to(torch.complex64)
    if single.is_cuda:
        return SearchImage(single, box, padded, columns_ft)
    return SearchImage(single, box, padded, columns_ft, block_image(columns.numpy(), padded, box))
