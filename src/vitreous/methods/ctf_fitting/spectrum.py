"""Power spectra of micrographs, and their reduction to polar bins in which a CTF is fitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float64]
_TAPER = 0.12  # share of a tile's side that fades in at each edge


class SpectrumError(ValueError):
    """A micrograph or power spectrum from which no CTF can be fitted (one sentence, for the quarantine list)."""


@dataclass(frozen=True)
class Spectrum:
    """Averaged power (squared amplitude) in rfft layout (box, box//2+1), zero frequency first; pixel_size in A."""

    power: Float[np.ndarray, "box half"]
    pixel_size: float

    @property
    def box(self) -> int:
        """Side of the full transform in Fourier pixels."""
        return int(self.power.shape[0])

    @property
    def length(self) -> float:
        """Side of the tiles it was made of, in A: a Fourier pixel is 1/length wide."""
        return self.box * self.pixel_size


def automatic_box(shape: tuple[int, int], pixel_size: float, target_pixel_size: float = 1.4) -> int:
    """Side of the spectrum: 1,024 where tiles that large fit into the micrograph twice across, else 512.

    A tile holds only the share 1 - displacement/length of the signal that defocus spreads out (see `rings`): at 512
    pixels of 1.4 A and 2 um the rings at 5 A have 0.78 of their contrast, at 1,024 they have 0.89.
    """
    return 1024 if min(shape) * pixel_size >= 2 * 1024 * max(pixel_size, target_pixel_size) else 512


def spectrum_of_micrograph(
    image: Float[np.ndarray, "height width"], pixel_size: float, *, box: int = 0, target_pixel_size: float = 1.4
) -> Spectrum:
    """Mean power of half-overlapping tapered tiles (Welch), cropped in Fourier space to target_pixel_size.

    The tiles are as large as it takes for `box` Fourier pixels to end at the Nyquist frequency of
    target_pixel_size (A), which is the same as resampling the micrograph first; a micrograph that is coarser
    already is taken as it is. box 0: see `automatic_box`. Welch (1967) IEEE Trans. Audio Electroacoust. 15, 70.
    """
    total: Array | None = None
    count, size = 0, pixel_size
    for tile in tile_spectra(image, pixel_size, box=box, target_pixel_size=target_pixel_size):
        total = tile.spectrum.power if total is None else total + tile.spectrum.power
        count, size = count + 1, tile.spectrum.pixel_size
    assert total is not None  # there is always one tile
    return Spectrum(total / count, size)


@dataclass(frozen=True)
class Tile:
    """The spectrum of one tile; x, y: its middle in A from the middle of the micrograph."""

    spectrum: Spectrum
    x: float
    y: float


def tile_spectra(
    image: Float[np.ndarray, "height width"], pixel_size: float, *, box: int = 512, target_pixel_size: float = 1.4
) -> Iterator[Tile]:
    """The tiles of `spectrum_of_micrograph` one by one."""
    check_image(image)
    box = box or automatic_box((image.shape[0], image.shape[1]), pixel_size, target_pixel_size)
    wanted = box * max(target_pixel_size / pixel_size, 1.0)
    size = min(fft.next_fast_len(round(wanted / 2), real=True) * 2, min(image.shape) // 2 * 2)
    box = min(round(size * pixel_size / max(target_pixel_size, pixel_size) / 2) * 2, size)
    window = np.outer(taper(size), taper(size)).astype(np.float32)
    height, width = image.shape
    for top in tile_starts(height, size):
        for left in tile_starts(width, size):
            piece = image[top : top + size, left : left + size].astype(np.float32)
            transform = fft.rfft2((piece - piece.mean()) * window)
            power = crop_power(transform.real**2 + transform.imag**2, box) / (size * size)
            x, y = (left + 0.5 * (size - width)) * pixel_size, (top + 0.5 * (size - height)) * pixel_size
            yield Tile(Spectrum(power, pixel_size * size / box), float(x), float(y))


def spectrum_of_frames(
    frames: Iterable[Float[np.ndarray, "height width"]],
    pixel_size: float,
    *,
    average: int = 1,
    box: int = 512,
    target_pixel_size: float = 1.4,
) -> Spectrum:
    """Mean spectrum of sums of `average` consecutive frames: Thon rings that motion between frames does not blur.

    A last group that is not full is left out unless it is the only one. McMullan et al. (2015) Ultramicroscopy
    158, 26: 4 e/A^2 a group is about best.
    """
    spectra: list[Spectrum] = []
    total: Array | None = None
    n_in_group = 0
    for frame in frames:
        total = frame.astype(np.float64) if total is None else total + frame
        n_in_group += 1
        if n_in_group == average:
            spectra.append(spectrum_of_micrograph(total, pixel_size, box=box, target_pixel_size=target_pixel_size))
            total, n_in_group = None, 0
    if total is not None and not spectra:
        spectra.append(spectrum_of_micrograph(total, pixel_size, box=box, target_pixel_size=target_pixel_size))
    if not spectra:
        raise SpectrumError("the movie has no frames")
    power = np.mean([spectrum.power for spectrum in spectra], axis=0)
    return Spectrum(power, spectra[0].pixel_size)


def spectrum_from_filtered(filtered: Float[np.ndarray, "box box"], pixel_size: float) -> Spectrum:
    """An amplitude spectrum whose background another program has subtracted already, zero frequency at box//2.

    It is put on a flat background: what is fitted is contrast over background, to whose scale the fit is blind.
    """
    spread = float(filtered.std())
    if not (np.isfinite(spread) and spread > 0):
        raise SpectrumError("the spectrum is constant or holds NaN or infinite values")
    return spectrum_from_amplitudes(np.maximum(1.0 + 0.1 * filtered / spread, 0.05), pixel_size)


def spectrum_from_amplitudes(amplitudes: Float[np.ndarray, "box box"], pixel_size: float) -> Spectrum:
    """A stored power spectrum as RELION's motion correction writes it.

    amplitudes: square image with the zero frequency at index box//2. The files are called power spectra but hold
    amplitudes (CTFFIND's convention for its input), so they are squared here.
    """
    if amplitudes.ndim != 2 or amplitudes.shape[0] != amplitudes.shape[1]:
        raise SpectrumError(f"a power spectrum is square, this one is {' x '.join(map(str, amplitudes.shape))}")
    if not np.isfinite(amplitudes).all():
        raise SpectrumError("the power spectrum holds NaN or infinite values")
    box = amplitudes.shape[0]
    half = np.fft.ifftshift(amplitudes.astype(np.float64))[:, : box // 2 + 1]
    if not half[1:, 1:].std() > 0:
        raise SpectrumError("the power spectrum is constant")
    return Spectrum(half**2, pixel_size)


def check_image(image: Float[np.ndarray, "height width"]) -> None:
    """Raise SpectrumError for a micrograph that holds no spectrum: not 2D, too small, not finite, or constant."""
    if image.ndim != 2 or min(image.shape) < 128:
        raise SpectrumError(f"a micrograph of {' x '.join(map(str, image.shape))} pixels is too small for a CTF fit")
    if not np.isfinite(image.sum(dtype=np.float64)):
        raise SpectrumError("the micrograph holds NaN or infinite values")
    if float(image.max()) == float(image.min()):
        raise SpectrumError("the micrograph is constant (blank or too dark)")


def tile_starts(size: int, tile: int) -> NDArray[np.int64]:
    """Where tiles begin so that they overlap by half and the last one ends at the edge."""
    count = max(1, int(np.ceil((size - tile) / (tile / 2))) + 1) if size > tile else 1
    return np.round(np.linspace(0, size - tile, count)).astype(np.int64)


def taper(size: int) -> Array:
    """A window that is 1 but for raised-cosine edges, normalised to unit mean square."""
    edge = max(1, round(_TAPER * size))
    window = np.ones(size)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    window[:edge], window[size - edge :] = ramp, ramp[::-1]
    return window / np.sqrt(np.mean(window**2))


def crop_power(power: Float[np.ndarray, "size size_half"], box: int) -> Array:
    """The low-frequency part of power in rfft layout, as a transform of side box has it (box even)."""
    low = box // 2
    rows = np.r_[0:low, power.shape[0] - (box - low) : power.shape[0]]
    return power[rows, : low + 1].astype(np.float64)


def frequencies(spectrum: Spectrum) -> tuple[Array, Array]:
    """(ky, kx) of the rfft grid in 1/A, of shapes (box, 1) and (half,)."""
    ky = np.fft.fftfreq(spectrum.box, d=spectrum.pixel_size).astype(np.float64)
    kx = np.fft.rfftfreq(spectrum.box, d=spectrum.pixel_size).astype(np.float64)
    return ky[:, None], kx


@dataclass(frozen=True)
class PolarSpectrum:
    """A spectrum averaged in sectors and shells: arrays (n_sectors, n_shells).

    power: mean power of a bin. count: Fourier pixels in it (0: empty). k_squared: their mean |k|^2 in 1/A^2.
    angle: middle of each sector in radians (n_sectors,), 0 .. pi. shell: Fourier radius of each shell (n_shells,).
    length: A, from the Spectrum.
    """

    power: Array
    count: Array
    k_squared: Array
    angle: Array
    shell: NDArray[np.int64]
    length: float


def polar_spectrum(spectrum: Spectrum, n_sectors: int = 72) -> PolarSpectrum:
    """Average a spectrum over bins one Fourier pixel deep and 180/n_sectors degrees wide.

    Friedel's law makes half a turn enough. The pixels next to the axes, where detector stripes and the edges of
    the image leave a cross, are left out.
    """
    box = spectrum.box
    y = np.fft.fftfreq(box, d=1 / box)[:, None]
    x = np.arange(box // 2 + 1, dtype=np.float64)[None, :]
    radius = np.sqrt(y * y + x * x)
    angle = np.mod(np.arctan2(y, x), np.pi)
    sector = np.minimum((angle / np.pi * n_sectors).astype(np.int64), n_sectors - 1)
    shell = np.floor(radius + 0.5).astype(np.int64)
    n_shells = box // 2
    use = (np.abs(y) > 1) & (x > 1) & (shell < n_shells)
    index = (sector * n_shells + shell)[use]
    size = n_sectors * n_shells
    count = np.bincount(index, minlength=size).astype(np.float64)
    safe = np.maximum(count, 1.0)
    power = np.bincount(index, weights=spectrum.power[use], minlength=size) / safe
    k_squared = np.bincount(index, weights=(radius[use] / spectrum.length) ** 2, minlength=size) / safe
    grid = (n_sectors, n_shells)
    middle = (np.arange(n_sectors) + 0.5) * np.pi / n_sectors
    return PolarSpectrum(
        power.reshape(grid),
        count.reshape(grid),
        k_squared.reshape(grid),
        middle,
        np.arange(n_shells),
        spectrum.length,
    )
