"""How much memory auto-refine will need at its hungriest: the last iteration, at full size, both halves in hand.

Bytes a Fourier grid point, a point of the padded box and a voxel were measured on the functions that spend them, and
stand beside them here; tests hold the plan against the peak of a whole run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vitreous.core.so3 import angular_step, n_in_plane
from vitreous.core.symmetry import order_of
from vitreous.methods.refinement.accuracy import TRIAL_BYTES
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions

Prior = Literal["classic", "adaptive", "external"]

_SUMS = 12  # a point of an accumulator: complex64 and float32
_REFERENCE = 8  # complex64
_COMPLETING = 36  # copies while symmetry is imposed
_JOINING = 28  # both halves' joined copies and the masks that make them
_DIVIDING = 44  # shells (64 bit), weights, inverses and the quotient of one map
_EXTERNAL = 28  # a point of half the padded box: both halves' sums in FFT order, scaled copies
_GRIDDING = 55  # a point of the padded box, if weights are iterated
_OVERSAMPLING = 12  # a point of the padded box while a reference is transformed
_MAPS_KEPT = 64  # a voxel: references, half-maps, the states before and after, mask, the map asked for
_INTO_REAL = 20  # a voxel: one map coming back from Fourier space
_FSC = 60  # a voxel: two transforms in double precision
_FSC_CORRECTED = 160  # masked and phase-randomised ones as well
_ADAPTIVE = 110  # local SNR of all bands and the transforms of one
_IMAGES_LOOKED_AT = 250  # images at a time when noise is first estimated
_IMAGE = 28
_RUNNING = 400 << 20  # libraries, compiled kernels, tables


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes. kept: all the time; sums, references, batches: while images are compared; maps: while maps are made.

    references: with what it takes to make them; batches: of images with their projections and samples, or, where that
    is more, the copies while symmetry is imposed on the sums.
    """

    box: int
    padding: int
    kept: int
    sums: int
    references: int
    batches: int
    maps: int

    @property
    def comparing(self) -> int:
        """While images are compared with references."""
        return self.sums + self.references + self.batches

    @property
    def peak(self) -> int:
        """The most at any time."""
        return self.kept + max(self.comparing, self.maps)

    @property
    def on_device(self) -> int:
        """What a GPU has to hold: one half's sums, its reference, a batch."""
        return self.sums // 2 + self.references + self.batches

    def sentence(self) -> str:
        """For the log."""
        return (
            f"memory: {_gb(self.peak)} at the final iteration (box {self.box}, padding {self.padding}, to Nyquist): "
            f"comparing images {_gb(self.comparing)} (sums {_gb(self.sums)}, references {_gb(self.references)}, "
            f"batches and projections {_gb(self.batches)}), making maps {_gb(self.maps)}, kept {_gb(self.kept)}"
        )


def plan_auto_refine(
    box: int, pixel_size: float, n_particles: int, options: AutoRefineOptions, prior: Prior, *, corrected_fsc: bool
) -> MemoryPlan:
    """The plan for `n_particles` of `box` pixels; corrected_fsc: the FSC is that in a mask, phase-randomised."""
    reach = options.padding * (box // 2) + 1
    grid = (2 * reach + 1) ** 2 * (reach + 1)
    padded, voxels = (options.padding * box) ** 3, box**3
    making_references = max(_OVERSAMPLING * padded + _REFERENCE * grid, TRIAL_BYTES)
    looking = min(n_particles, _IMAGES_LOOKED_AT) * _IMAGE * box**2
    batches = max(_expectation(box, pixel_size, options), looking, _COMPLETING * grid, making_references)
    dividing = _DIVIDING * grid + _INTO_REAL * voxels + (_GRIDDING * padded if options.gridding_iterations else 0)
    filtering = {"classic": 0, "adaptive": _ADAPTIVE * voxels, "external": _EXTERNAL * padded}[prior]
    regularising = _JOINING * grid + max(dividing, filtering)
    comparing_maps = (_FSC_CORRECTED if corrected_fsc else _FSC) * voxels
    return MemoryPlan(
        box=box,
        padding=options.padding,
        kept=_RUNNING + _MAPS_KEPT * voxels + 400 * n_particles,
        sums=2 * _SUMS * grid,
        references=_REFERENCE * grid,
        batches=batches,
        maps=2 * _SUMS * grid + max(dividing, comparing_maps, regularising),
    )


def _expectation(box: int, pixel_size: float, options: AutoRefineOptions) -> int:
    """A batch and its parts, projections at the fine samples, and those of the finest global grid."""
    order = max(options.first_order, options.local_order - 1)
    n_rotations = 12 * 4**order * n_in_plane(order) / order_of(options.symmetry)
    rim = math.radians(angular_step(order)) * options.diameter / 2 / 1.2
    shell = min(box / 2, box * pixel_size / rim)
    coarse = int(n_rotations * (math.pi * shell**2 / 2) * 16)
    return options.memory + options.memory // 4 + coarse


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
