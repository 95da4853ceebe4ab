"""The part of a frame's transform that tells how it moved: low and middle frequencies, weighted."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from scipy import fft as scipy_fft
from scipy.fft import next_fast_len
from torch import Tensor

from vitreous.core.fourier import crop_fourier, hermitian_weights

# Cross-spectra are weighted by exp(-sharpness B k^2); what weighs less than this is not looked at.
_NEGLIGIBLE = 3e-3
# In large fields there is signal to spare: at RELION's B of 150 px^2 the band then ends just below half the Nyquist
# frequency, and frames can be binned by two.
_LARGE_FIELD, _SPARED = 2048, 1e-2
# Below this many Fourier pixels lie illumination and windows, not specimen.
_LOWEST_SHELL = 3.0


@dataclass(frozen=True)
class Band:
    """A Fourier crop of a field. shape: (ny, nx) of the movie or a patch of it; cropped: (ny, nx) of what is kept.

    Frequencies are in cycles per movie pixel all the same, so displacements stay in movie pixels.
    """

    shape: tuple[int, int]
    cropped: tuple[int, int]

    @property
    def ky(self) -> Float[Tensor, "height"]:
        """Frequencies of the rows."""
        return torch.fft.fftfreq(self.cropped[0], dtype=torch.float64) * (self.cropped[0] / self.shape[0])

    @property
    def kx(self) -> Float[Tensor, "half"]:
        """Frequencies of the columns."""
        return torch.fft.rfftfreq(self.cropped[1], dtype=torch.float64) * (self.cropped[1] / self.shape[1])

    def crop(self, image_ft: Complex[Tensor, "height half"]) -> Complex[Tensor, "height half"]:
        """Keep the band's part of a transform."""
        return crop_fourier(image_ft, self.shape, self.cropped)

    def transform(self, image: Float[Tensor, "height width"]) -> Complex[Tensor, "height half"]:
        """The band's part of an image's rfft2. Columns outside are left out between its two passes: a quarter less."""
        columns = torch.fft.rfft(image)[:, : self.cropped[1] // 2 + 1]
        return self.crop(torch.fft.fft(columns, dim=0))

    def weights(self, b_factor: float, sharpness: float) -> Float[Tensor, "height half"]:
        """exp(-sharpness B k^2) with the Hermitian multiplicity; zero on the central cross, near zero and beyond.

        The cross (kx = 0 or ky = 0) holds row and column noise of the detector, which does not move.
        """
        return _weights(self, b_factor, sharpness)


@functools.lru_cache(maxsize=16)
def _weights(band: Band, b_factor: float, sharpness: float) -> Float[Tensor, "height half"]:
    # Kept, as they are the same for every movie of a size: not to be written to.
    k2 = band.ky[:, None] ** 2 + band.kx**2
    w = torch.exp(-sharpness * b_factor * k2)
    limit = min(0.5 * c / s for c, s in zip(band.cropped, band.shape, strict=True))
    lowest = max(_LOWEST_SHELL / s for s in band.shape)
    w = torch.where((w < _NEGLIGIBLE) | (k2 >= limit**2) | (k2 < lowest**2), 0.0, w)
    w[0, :] = 0.0
    w[:, 0] = 0.0
    return (w * hermitian_weights(band.cropped[1])).to(torch.float32)


def band_limit(b_factor: float, sharpness: float, negligible: float = _NEGLIGIBLE) -> float:
    """Frequency (cycles per pixel, at most 0.5) beyond which the weight is negligible."""
    return min(0.5, math.sqrt(-math.log(negligible) / (sharpness * b_factor))) if b_factor > 0 else 0.5


def alignment_band(shape: tuple[int, int], b_factor: float, sharpness: float) -> tuple[Band, int]:
    """What alignment sees of a frame: a band, and how many pixels are binned (0: cropped in Fourier space).

    Binning needs no transform of a whole frame, but loses a few percent of the signal at the end of the band.
    """
    if min(shape) < _LARGE_FIELD:
        return band_of(shape, band_limit(b_factor, sharpness)), 0
    return binned_band(shape, band_limit(b_factor, sharpness, _SPARED))


def band_of(shape: tuple[int, int], limit: float) -> Band:
    """The smallest crop of quick even size that holds frequencies up to limit (cycles per pixel)."""
    ny, nx = (min(size, 2 * next_fast_len(math.ceil(size * limit) + 1)) for size in shape)
    return Band(shape, (ny, nx))


def binned_band(shape: tuple[int, int], limit: float) -> tuple[Band, int]:
    """Pixels to be binned so that frequencies up to limit are kept, and the band of the binned frames.

    Rows and columns at the far end are left out (at most a few percent) until the transform has a quick size.
    """
    factor = max(1, int(0.5 / limit))
    ny, nx = (_quick_size(size // factor) for size in shape)
    return Band((ny * factor, nx * factor), (ny, nx)), factor


def _quick_size(size: int) -> int:
    """The largest even size not beyond this one whose transform is quick."""
    even = size - size % 2
    while even > 2 and next_fast_len(even) != even:
        even -= 2
    return even


def bin_frame(frame: Float[Tensor, "height width"], band: Band, factor: int) -> Float[Tensor, "h w"]:
    """Sums of factor x factor pixels.

    White noise stays white, however much of it is folded back; the signal's amplitude falls as sinc(factor k) along
    each axis, to 0.9 at the end of the band.
    """
    if factor == 1:
        return frame[: band.shape[0], : band.shape[1]]
    rows = frame[: band.shape[0] : factor].clone()
    for i in range(1, factor):
        rows += frame[i : band.shape[0] : factor]
    out = rows[:, : band.shape[1] : factor].clone()
    for i in range(1, factor):
        out += rows[:, i : band.shape[1] : factor]
    return out


def inverse_real(images_ft: Complex[Tensor, "*batch height half"], shape: tuple[int, int]) -> Tensor:
    """Inverse rfft2. On the CPU its last pass is scipy's: torch's inverse real transform takes up to twice as long."""
    if images_ft.device.type == "cpu":
        columns = torch.fft.ifft(images_ft, dim=-2).numpy()
        return torch.from_numpy(scipy_fft.irfft(columns, n=shape[1], workers=torch.get_num_threads()))
    return torch.fft.irfft2(images_ft, s=shape)


def phases(band: Band, displacement: Float[Tensor, "2"], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row (ny, 1) and column (nx//2+1,) factors that bring content displaced by (x, y) movie pixels back."""
    one = torch.ones((), dtype=torch.float64)
    row = torch.polar(one, 2.0 * math.pi * band.ky[:, None] * float(displacement[1]))
    column = torch.polar(one, 2.0 * math.pi * band.kx * float(displacement[0]))
    return row.to(device=device, dtype=torch.complex64), column.to(device=device, dtype=torch.complex64)
