"""Summing frames that are put right: motion undone, exposure weighted, and the power spectrum for the CTF.

The whole-frame part of the motion is a phase ramp and costs no resolution; what is left over the field is
interpolated with cubic B-splines (kernels.warp). Frames that move as a whole are summed in Fourier space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.dose import dose_filter
from vitreous.core.fourier import crop_fourier, radius_grid
from vitreous.data.motion import N_COEFFICIENTS, Motion, time_basis
from vitreous.kernels.warp import prefilter, warp
from vitreous.methods.motion.frames import PreparedFrames, inverse_real
from vitreous.methods.motion.spectra import Band, phases

_FINEST_SPECTRUM = 1.4  # A: power spectra end at 2.8 A, beyond which no Thon ring is seen in a movie


@dataclass(frozen=True)
class Exposure:
    """pixel_size A; voltage kV; dose e/A^2 a frame (0: unknown, no weighting and no grouping by dose)."""

    pixel_size: float
    voltage: float = 300.0
    dose: float = 0.0


@dataclass(frozen=True)
class SumOptions:
    """binning: Fourier binning, at least 1. weighted, plain: which sums to make. halves: also sum every other frame.

    spectrum_box: px, 0 for no power spectrum. spectrum_dose: e/A^2 summed before a power spectrum is taken;
    spectrum_frames: the same as a number of frames (0: by dose).
    """

    binning: float = 1.0
    weighted: bool = True
    plain: bool = False
    spectrum_box: int = 512
    spectrum_dose: float = 4.0
    spectrum_frames: int = 0
    halves: bool = False


@dataclass(frozen=True)
class Sums:
    """weighted, plain: (y, x) images or None; spectrum: amplitudes (box, box), zero frequency at box//2, or None.

    even, odd: sums of frames 2, 4... and 1, 3... without weights, whose noise is independent (for denoisers), or None.

    pixel_size, spectrum_pixel_size in A.
    """

    weighted: Float[Tensor, "height width"] | None
    plain: Float[Tensor, "height width"] | None
    spectrum: Float[Tensor, "box box"] | None
    pixel_size: float
    spectrum_pixel_size: float
    even: Float[Tensor, "height width"] | None = None
    odd: Float[Tensor, "height width"] | None = None


def sum_frames(frames: PreparedFrames, motion: Motion, exposure: Exposure, options: SumOptions) -> Sums:
    """Undo the motion in every frame and sum. Frames are let go as they are used."""
    shape = frames.shape
    target = binned_shape(shape, options.binning)
    pixel_size = exposure.pixel_size * shape[1] / target[1]
    weighting = _DoseSum(target, pixel_size, exposure, frames.device) if options.weighted else None
    spectrum = _Spectrum(target, pixel_size, exposure, options, frames.device) if options.spectrum_box else None
    # Sums of the frames of even and of odd index (from 0): together the plain sum.
    parts: list[Tensor | None] = [None, None]
    wants_parts = options.plain or options.halves or weighting is None
    for number in range(frames.n_frames):
        aligned = crop_fourier(corrected_transform(frames, motion, number), shape, target)
        if weighting is not None:
            weighting.add(aligned)
        if spectrum is not None:
            spectrum.add(aligned)
        if wants_parts:
            which = number % 2 if options.halves else 0
            held = parts[which]
            parts[which] = aligned.clone() if held is None else held.add_(aligned)
    scale = target[0] * target[1] / (shape[0] * shape[1])
    first, second = (None if part is None else inverse_real(part, target).cpu() * scale for part in parts)
    wants_plain = options.plain or weighting is None
    return Sums(
        None if weighting is None else inverse_real(weighting.finish(), target).cpu() * scale,
        None if first is None or not wants_plain else (first if second is None else first + second),
        None if spectrum is None else spectrum.finish().cpu(),
        pixel_size,
        0.0 if spectrum is None else spectrum.pixel_size,
        even=second if options.halves else None,
        odd=first if options.halves else None,
    )


def binned_shape(shape: tuple[int, int], binning: float) -> tuple[int, int]:
    """Even (ny, nx) after Fourier binning."""
    if binning < 1.0:
        raise ValueError(f"binning must be at least 1, not {binning}")
    if binning == 1.0:
        return shape
    return 2 * round(shape[0] / binning / 2), 2 * round(shape[1] / binning / 2)


def corrected_transform(frames: PreparedFrames, motion: Motion, number: int) -> Complex[Tensor, "height half"]:
    """rfft2 of a frame with its motion undone; the frame is let go."""
    shape = frames.shape
    transform = frames.transform(number)
    frames.release(number)
    row, column = phases(Band(shape, shape), torch.from_numpy(-motion.global_shifts[number]), frames.device)
    if motion.coefficients is None or number == 0:
        return transform * row * column
    row_filter, column_filter = prefilter(shape, frames.device)
    splines = inverse_real(transform * (row * row_filter) * (column * column_filter), shape)
    return torch.fft.rfft2(warp(splines, _field(motion, number).to(frames.device)))


def _field(motion: Motion, number: int) -> Float[Tensor, "2 6"]:
    """Polynomial of the local displacement over the field at one frame."""
    assert motion.coefficients is not None
    table = motion.coefficients.reshape(2, N_COEFFICIENTS // 3, 3)
    return torch.from_numpy(-(table @ time_basis(number)))


class _DoseSum:
    """sum_i q_i F_i / sqrt(sum_i q_i^2) of frames in order; q of the next frame is that of the last times a filter.

    Exposure before the first frame is common to all and cancels (core.dose.dose_weights).
    """

    def __init__(self, shape: tuple[int, int], pixel_size: float, exposure: Exposure, device: torch.device) -> None:
        k = radius_grid(shape, pixel_size, device=device, dtype=torch.float32)
        self._filter = dose_filter(k, torch.tensor([exposure.dose], device=device), exposure.voltage)[0]
        self._q = torch.ones_like(self._filter)
        self._power = torch.zeros_like(self._filter)
        self._sum = torch.zeros(k.shape, dtype=torch.complex64, device=device)

    def add(self, aligned: Complex[Tensor, "height half"]) -> None:
        torch.view_as_real(self._sum).addcmul_(torch.view_as_real(aligned), self._q[..., None])
        self._power.addcmul_(self._q, self._q)
        self._q *= self._filter

    def finish(self) -> Complex[Tensor, "height half"]:
        return self._sum / self._power.sqrt()


class _Spectrum:
    """Power spectra of sums of a few frames, added up and averaged into the bins of a small box.

    Frames are summed to a few e/A^2 first, as RELION does: enough signal for the low-order rings, too short for
    what motion is left to blur the high ones.
    """

    def __init__(
        self, shape: tuple[int, int], pixel_size: float, exposure: Exposure, options: SumOptions, device: torch.device
    ) -> None:
        self.pixel_size = max(pixel_size, _FINEST_SPECTRUM)
        whole = min(shape) * pixel_size / self.pixel_size
        self.box = min(options.spectrum_box, 2 * int(whole / 2))
        by_dose = max(1, round(options.spectrum_dose / exposure.dose)) if exposure.dose > 0 else 1
        self._every = options.spectrum_frames or by_dose
        extent = self.box * self.pixel_size
        ky = np.rint(np.fft.fftfreq(shape[0], pixel_size) * extent).astype(np.int64)
        kx = np.rint(np.fft.rfftfreq(shape[1], pixel_size) * extent).astype(np.int64)
        self._rows = np.flatnonzero(np.abs(ky) <= self.box // 2)
        self._columns = int((kx <= self.box // 2).sum())
        self._ky, self._kx = ky[self._rows] % self.box, kx[: self._columns]
        self._device = device
        self._power = torch.zeros(len(self._rows), self._columns, device=device)
        self._group: Tensor | None = None
        self._in_group = 0
        self._pixels = shape[0] * shape[1]

    def add(self, aligned: Complex[Tensor, "height half"]) -> None:
        part = aligned[torch.from_numpy(self._rows).to(self._device), : self._columns]
        self._group = part if self._group is None else self._group.add_(part)
        self._in_group += 1
        if self._in_group == self._every:
            self._close()

    def _close(self) -> None:
        assert self._group is not None
        self._power += torch.view_as_real(self._group).square().sum(-1)
        self._group, self._in_group = None, 0

    def finish(self) -> Float[Tensor, "box box"]:
        """Root mean power of each bin over the number of pixels, the whole plane with its centre at box//2."""
        if self._in_group == self._every or (self._in_group and not self._power.any()):
            self._close()
        half = self.box // 2 + 1
        rows = torch.from_numpy(self._ky).to(self._device)
        columns = torch.from_numpy(self._kx).to(self._device)
        by_row = torch.zeros(self.box, self._columns, device=self._device).index_add_(0, rows, self._power)
        total = torch.zeros(self.box, half, device=self._device).index_add_(1, columns, by_row)
        counts = torch.bincount(rows, minlength=self.box)[:, None] * torch.bincount(columns, minlength=half)
        amplitude = (total / counts.clamp(min=1)).sqrt() / self._pixels
        return _whole_plane(amplitude)


def _whole_plane(half: Float[Tensor, "box half"]) -> Float[Tensor, "box box"]:
    """The full plane, zero frequency at box//2, of a quantity that is the same at k and -k."""
    box = half.shape[0]
    mirrored = half.roll(-1, 0).flip(0)[:, 1 : (box + 1) // 2].flip(1)
    full = torch.cat([half, mirrored], dim=1)
    return torch.fft.fftshift(full)
