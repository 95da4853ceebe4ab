"""Motion correction of one movie: frames in, micrograph and motion out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.motion import Motion
from vitreous.methods.motion.bad_pixels import places
from vitreous.methods.motion.correction import SumOptions, Sums, sum_frames
from vitreous.methods.motion.exposure import Exposure
from vitreous.methods.motion.frames import FrameSource, PreparedFrames
from vitreous.methods.motion.global_alignment import FIT_SHARPNESS, GlobalOptions, align_frames
from vitreous.methods.motion.local_alignment import LocalFit, LocalOptions, align_patches, automatic_patches
from vitreous.methods.motion.local_basis import TimeModel
from vitreous.methods.motion.spectra import Band, alignment_band, bin_frame, inverse_real
from vitreous.methods.motion.trajectories import Fit
from vitreous.methods.motion.unusable import UnusableMovie
from vitreous.runtime.workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MotionOptions:
    """exposure and sums: see correction. b_factor px^2. patches: (across x, across y), None for automatic.

    group: frames summed before their motion is measured. reference: frame (from 0) at whose place the sum is made; the
    local model keeps to the first frame's. local_model: in time (see local_basis), or best for the one that foretells
    more of a half of the data to which it was not fitted. iterations, tolerance (px): of the fits. find_defects:
    look for hot and dead pixels. keep_frames: hold the movie in memory (else it is read three times).
    """

    exposure: Exposure
    sums: SumOptions = field(default_factory=SumOptions)
    b_factor: float = 150.0
    patches: tuple[int, int] | None = None
    group: int = 1
    reference: int = 0
    local_model: TimeModel | Literal["best"] = "polynomial"
    iterations: int = 10
    tolerance: float = 0.01
    find_defects: bool = True
    keep_frames: bool = True
    seed: int = 1


@dataclass(frozen=True)
class Corrected:
    """sums and motion; uncertainty: rms standard error (px) of the frames' displacements.

    local: what the patches said, or None where there was one patch. blank: frames (from 0) that hold nothing.
    """

    sums: Sums
    motion: Motion
    uncertainty: float
    local: LocalFit | None
    blank: tuple[int, ...] = ()


def memory_needed(shape: tuple[int, int], n_frames: int, b_factor: float, *, keep_frames: bool = True) -> int:
    """Bytes at the peak of `correct_movie`: frames, the place of binned ones and later sums, and what is brief."""
    pixels = shape[0] * shape[1]
    ny, nx = alignment_band(shape, b_factor, FIT_SHARPNESS)[0].cropped
    binned, sums = n_frames * ny * nx * 4, 16 * pixels * 4
    # Transforms of binned frames, and either aligned copies in the search or patches (which overlap); of a few sums.
    besides = max(int(2.6 * binned), 4 * pixels * 4)
    return (n_frames if keep_frames else 12) * pixels * 4 + max(binned, sums) + besides


def correct_movie(
    source: FrameSource,
    options: MotionOptions,
    *,
    gain: Float[Tensor, "height width"] | None = None,
    defects: NDArray[np.bool_] | None = None,
    device: torch.device | None = None,
    workspace: Workspace | None = None,
) -> Corrected:
    """Repair, align (whole frames, then patches), undo the motion, sum. Raises UnusableMovie for what frames hold.

    workspace: large arrays to be used again for the next movie; nothing that is returned lies in it.
    """
    if source.n_frames < 1:
        raise UnusableMovie("there are no frames")
    band, factor = alignment_band(source.shape, options.b_factor, FIT_SHARPNESS)
    frames = PreparedFrames(
        source,
        gain=gain,
        defects=defects,
        find_defects=options.find_defects,
        keep=options.keep_frames,
        binning=(factor, band.cropped) if factor else None,
        device=device,
        seed=options.seed,
        workspace=workspace,
    )
    motion, uncertainty, local = measure_motion(frames, options)
    sums = sum_frames(frames, motion, options.exposure, options.sums)
    return Corrected(sums, motion, uncertainty, local, tuple(frames.blank))


def measure_motion(frames: PreparedFrames, options: MotionOptions) -> tuple[Motion, float, LocalFit | None]:
    """The motion in a movie, the standard error of its frames' displacements (px), and what the patches said."""
    rows, columns = places(frames.bad)
    hot = np.stack([columns, rows], axis=1).astype(np.int64)
    band, factor = alignment_band(frames.shape, options.b_factor, FIT_SHARPNESS)
    groups, groups_ft, times = _groups(frames, band, factor, options.group)
    if len(times) < 2:
        return Motion(frames.shape, np.zeros((frames.n_frames, 2)), hot_pixels=hot), 0.0, None
    whole = align_frames(groups_ft, band, GlobalOptions(options.b_factor, options.iterations, options.tolerance))
    del groups_ft
    moved = whole.parameters.frames
    patches = options.patches or automatic_patches(frames.shape)
    local = None
    if patches[0] * patches[1] > 1:
        settings = LocalOptions(
            frames.shape, frames.n_frames, patches, b_factor=options.b_factor, model=options.local_model
        )
        local = align_patches(groups, band, moved, times, settings)
        if local.reason:
            log.debug("global alignment only: %s", local.reason)
    return _motion(frames, _Tracks(moved, times, local, options.reference), hot), _rms(whole), local


def _rms(fit: Fit) -> float:
    return float(fit.uncertainty.square().mean().sqrt())


def _groups(
    frames: PreparedFrames, band: Band, factor: int, group: int
) -> tuple[Float[Tensor, "f h w"], Complex[Tensor, "f h half"], Float[Tensor, "f"]]:
    """Reduced sums of consecutive frames, their transforms, and the frame index at each group's middle.

    A last group that is less than half full joins the one before it.
    """
    n = frames.n_frames
    n_groups = max(1, int(n / group + 0.5))
    member = np.minimum(np.arange(n) // group, n_groups - 1)
    binned = frames.take_binned()
    if binned is not None and n_groups == n:
        groups = binned.to(frames.device)
        # At once: torch makes room for a transform and copies it where `out` is given.
        return groups, torch.fft.rfft2(groups), torch.arange(n, dtype=torch.float64)
    times = torch.from_numpy(np.bincount(member, np.arange(n)) / np.bincount(member))
    if not factor:
        groups_ft = _cropped(frames, band, member)
        # One by one: what lies between the two passes stays in the cache.
        return torch.stack([inverse_real(one, band.cropped) for one in groups_ft]), groups_ft, times
    groups = torch.zeros(n_groups, *band.cropped, device=frames.device)
    for number in range(n):
        frame = bin_frame(frames.stack(number, number + 1)[0], band, factor) if binned is None else binned[number]
        groups[member[number]] += frame.to(frames.device)
    return groups, torch.fft.rfft2(groups), times


def _cropped(frames: PreparedFrames, band: Band, member: NDArray[np.int64]) -> Complex[Tensor, "f h half"]:
    """The band's part of the transforms of groups of frames."""
    shape = (int(member[-1]) + 1, band.cropped[0], band.cropped[1] // 2 + 1)
    out = torch.zeros(shape, dtype=torch.complex64, device=frames.device)
    for number in range(frames.n_frames):
        frame = frames.stack(number, number + 1)[0].to(frames.device)
        out[member[number]] += band.transform(frame)
    return out


@dataclass(frozen=True)
class _Tracks:
    """What was measured: moved (f, 2) px of each group of frames, times (f,) of the groups' middles, the patches' fit.

    reference: frame (from 0) whose whole-field shift is zero.
    """

    moved: Float[Tensor, "f 2"]
    times: Float[Tensor, "f"]
    local: LocalFit | None
    reference: int


def _motion(frames: PreparedFrames, tracks: _Tracks, hot: NDArray[np.int64]) -> Motion:
    """RELION's form: shifts are what is applied, and nothing has moved in the reference frame."""
    local, times = tracks.local, tracks.times.numpy()
    numbers = np.arange(frames.n_frames, dtype=np.float64)
    moved = _at_frames(tracks.moved.numpy(), times, numbers)
    if local is not None:
        moved = moved + _at_frames(local.frames.numpy(), local.times, numbers)
    shifts = -(moved - moved[tracks.reference])
    if local is None:
        return Motion(frames.shape, shifts, hot_pixels=hot)
    # In each patch what was measured includes the frames' own change of displacement, which `moved` has taken up.
    beside = local.patch_displacements - local.frames.numpy()
    patch_shifts = -np.stack([_at_frames(track, local.times, numbers) for track in beside])
    coefficients, by_frame = (None if one is None else -one for one in (local.coefficients, local.by_frame))
    return Motion(frames.shape, shifts, coefficients, local.centres, patch_shifts, hot, by_frame)


def _at_frames(
    track: NDArray[np.float64], times: NDArray[np.float64], numbers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A track (f, 2) of groups at every frame: straight lines between the groups' middles and beyond the outer ones."""
    out = np.stack([np.interp(numbers, times, track[:, axis]) for axis in range(2)], axis=1)
    for end, inner in ((0, 1), (-1, -2)):
        slope = (track[end] - track[inner]) / (times[end] - times[inner])
        beyond = numbers < times[0] if end == 0 else numbers > times[-1]
        out[beyond] = track[end] + (numbers[beyond, None] - times[end]) * slope
    return out
