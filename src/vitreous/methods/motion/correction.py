"""Summing frames that are put right: motion undone, exposure weighted, and the power spectrum for the CTF.

Frames are interpolated (kernels.warp) and added in real space; only sums are transformed. Weights that depend on frame
and frequency are a few fixed curves over frequency, each with one number a frame (`exposure_basis`): as many sums and
transforms are made as there are curves, five or so, however many frames there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.fourier import crop_fourier
from vitreous.data.motion import Motion, local_field
from vitreous.kernels.warp import add_warped, prefilter
from vitreous.methods.motion.exposure import Exposure, combine, exposure_basis
from vitreous.methods.motion.frames import ALIGNMENT, PreparedFrames
from vitreous.methods.motion.spectra import inverse_real
from vitreous.methods.motion.sum_spectrum import SumSpectrum

_AT_ONCE = 12  # frames a pass over the sums: their memory traffic is shared by so many


@dataclass(frozen=True)
class SumOptions:
    """binning: Fourier binning, at least 1. weighted, plain: which sums to make. halves: also sum every other frame.

    spectrum_box: px, 0 for no power spectrum. spectrum_dose: e/A^2 summed before a power spectrum is taken;
    spectrum_frames: the same as a number of frames (0: by dose). movie: also keep every frame, put right.
    """

    binning: float = 1.0
    weighted: bool = True
    plain: bool = False
    spectrum_box: int = 512
    spectrum_dose: float = 4.0
    spectrum_frames: int = 0
    halves: bool = False
    movie: bool = False

    def frames_a_spectrum(self, dose: float) -> int:
        """How many frames are summed before a power spectrum is taken."""
        return self.spectrum_frames or (max(1, round(self.spectrum_dose / dose)) if dose > 0 else 1)


@dataclass(frozen=True)
class Sums:
    """weighted, plain: (y, x) images or None; spectrum: amplitudes (box, box), zero frequency at box//2, or None.

    movie: (n, y, x) frames with their motion undone, without weights, or None.
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
    movie: Float[Tensor, "n height width"] | None = None


def sum_frames(frames: PreparedFrames, motion: Motion, exposure: Exposure, options: SumOptions) -> Sums:
    """Undo the motion in every frame and sum."""
    shape = frames.shape
    target = binned_shape(shape, options.binning)
    pixel_size = exposure.pixel_size * shape[1] / target[1]
    rows, curves = _coefficients(frames.n_frames, pixel_size, exposure, options)
    sharp = prefilter(shape, target, frames.device)
    spectrum = SumSpectrum(target, pixel_size, options.spectrum_box, sharp) if options.spectrum_box else None
    group = options.frames_a_spectrum(exposure.dose)
    stretches = _stretches(frames.n_frames, group)
    n_groups = max(_groups_in(stretch, group, frames.n_frames) for stretch in stretches) if spectrum else 0
    sums = frames.workspace.array(ALIGNMENT, (len(rows) + n_groups, *shape), device=frames.device)
    for stretch in stretches:
        _add_stretch(sums, frames, motion, rows, stretch, group)
        if spectrum is not None:
            for one in sums[len(rows) :][: _groups_in(stretch, group, frames.n_frames)]:
                spectrum.add(_transform(one, target))
    sums = sums[: len(rows)]
    scale = target[0] * target[1] / (shape[0] * shape[1])
    weighted, others = None, sums
    if curves is not None:
        transforms = [_transform(one, target) for one in sums[: len(curves)]]
        weighted = _image(combine(transforms, curves, pixel_size, target[1]), sharp, target, scale)
        others = sums[len(curves) :]
    images = [_image(_transform(one, target), sharp, target, scale) for one in others]
    first, second = [*images, None, None][:2]
    wants_plain = options.plain or not options.weighted
    return Sums(
        weighted,
        None if first is None or not wants_plain else (first if second is None else first + second),
        None if spectrum is None else spectrum.finish().cpu(),
        pixel_size,
        0.0 if spectrum is None else spectrum.pixel_size,
        even=second if options.halves else None,
        odd=first if options.halves else None,
        movie=aligned_frames(frames, motion, target) if options.movie else None,
    )


def aligned_frames(frames: PreparedFrames, motion: Motion, target: tuple[int, int]) -> Float[Tensor, "n height width"]:
    """Every frame with its motion undone, cropped in Fourier space to `target` pixels (on the CPU)."""
    shape = frames.shape
    out, one = torch.empty(frames.n_frames, *target), torch.empty(1, *shape, device=frames.device)
    sharp, scale = prefilter(shape, target, frames.device), target[0] * target[1] / (shape[0] * shape[1])
    for number, image in enumerate(out):
        field = motion_field(motion, number)[None]
        add_warped(one, frames.stack(number, number + 1), field, torch.ones(1, 1), n_kept=0)
        image.copy_(_image(_transform(one[0], target), sharp, target, scale))
    return out


def _coefficients(
    n_frames: int, pixel_size: float, exposure: Exposure, options: SumOptions
) -> tuple[Float[Tensor, "r n"], Float[Tensor, "c m"] | None]:
    """One row a sum, first those of the dose-weighted sum's curves, then plain or odd and even; and the curves."""
    rows, curves = [], None
    if options.weighted:
        basis, curves = exposure_basis(n_frames, pixel_size, exposure)
        rows.append(basis)
    if options.halves:
        odd = (torch.arange(n_frames) % 2 == 0).to(torch.float32)
        rows.append(torch.stack([odd, 1.0 - odd]))
    elif options.plain or not options.weighted:
        rows.append(torch.ones(1, n_frames))
    return torch.cat(rows), curves


def _stretches(n_frames: int, group: int) -> list[tuple[int, int]]:
    """(first, last + 1) of stretches of whole groups, as many as go through the sums together."""
    length = group * max(1, _AT_ONCE // group)
    return [(start, min(start + length, n_frames)) for start in range(0, n_frames, length)]


def _groups_in(stretch: tuple[int, int], group: int, n_frames: int) -> int:
    """How many groups of a stretch a spectrum is taken of: a last one that is not full only if there is no other."""
    return (stretch[1] - stretch[0]) // group or int(stretch == (0, n_frames))


def _add_stretch(
    sums: Float[Tensor, "r height width"],
    frames: PreparedFrames,
    motion: Motion,
    rows: Float[Tensor, "s n"],
    stretch: tuple[int, int],
    group: int,
) -> None:
    """Add some frames to the first s sums, and make the sums of the groups among them anew in those that follow.

    The first stretch makes them all anew.
    """
    start, stop = stretch
    n_groups = len(sums) - len(rows)
    member = torch.arange(stop - start) // group
    fields = torch.stack([motion_field(motion, number) for number in range(start, stop)])
    own = (member == torch.arange(n_groups)[:, None]).to(torch.float32)
    add_warped(
        sums, frames.stack(start, stop), fields, torch.cat([rows[:, start:stop], own]), n_kept=len(rows) if start else 0
    )


def _transform(image: Float[Tensor, "height width"], target: tuple[int, int]) -> Tensor:
    """rfft2, cropped."""
    shape = (image.shape[0], image.shape[1])
    transform = torch.fft.rfft2(image)
    return transform if shape == target else crop_fourier(transform, shape, target)


def _image(
    transform: Complex[Tensor, "height half"], factors: tuple[Tensor, Tensor], target: tuple[int, int], scale: float
) -> Float[Tensor, "height width"]:
    """The image of a transform (which is used up), without the spline's blur."""
    transform *= factors[1] * scale
    transform *= factors[0]
    return inverse_real(transform, target).cpu()


def binned_shape(shape: tuple[int, int], binning: float) -> tuple[int, int]:
    """Even (ny, nx) after Fourier binning."""
    if binning < 1.0:
        raise ValueError(f"binning must be at least 1, not {binning}")
    if binning == 1.0:
        return shape
    return 2 * round(shape[0] / binning / 2), 2 * round(shape[1] / binning / 2)


def motion_field(motion: Motion, number: int) -> Float[Tensor, "2 6"]:
    """Polynomial over the field of the displacement at one frame (see `kernels.warp`)."""
    field = local_field(motion, number)
    field[:, 0] += motion.global_shifts[number]
    return torch.from_numpy(-field)
