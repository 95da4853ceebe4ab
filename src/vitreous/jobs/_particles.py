"""What the jobs that align particles share: reading particles, and telling what is wrong with them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vitreous.core.ctf import CtfTreatment
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.images import ImageSource
from vitreous.io.particle_paths import locate_stacks
from vitreous.io.refinement_files import ScaleGroups
from vitreous.io.relion import read_dataset
from vitreous.io.stacks import ParticleStack, open_stacks, stacks_of
from vitreous.job import Context, parameter
from vitreous.jobs._reading import ReadingParameters, placed
from vitreous.methods.refinement.common_grid import CommonGrid, Grid, GroupImages, choose_grid
from vitreous.methods.refinement.dataset import (
    distortions_of,
    microscopes_of,
    particle_set,
    scale_groups_of,
)
from vitreous.methods.refinement.particles import ParticleSet
from vitreous.runtime.phases import Phases
from vitreous.runtime.ranks import ALONE

log = logging.getLogger(__name__)


class CtfParameters(ReadingParameters):
    """How the CTF is treated: what every job that compares particles takes."""

    ctf_phase_flipped: bool = parameter(False, help="the images have been phase-flipped", advanced=True)
    only_flip_phases: bool = parameter(False, help="correct the CTF's phases, not its amplitudes", advanced=True)
    ctf_intact_first_peak: bool = parameter(False, help="take the CTF to be one up to its first peak", advanced=True)

    def treatment(self) -> CtfTreatment:
        """These options as the methods take them."""
        return CtfTreatment(self.ctf_phase_flipped, self.only_flip_phases, self.ctf_intact_first_peak)


class ComparisonParameters(CtfParameters):
    """How images are compared: what 2D and 3D refinement take."""

    zero_mask: bool = parameter(
        True, help="nothing outside the particle's mask (false: noise)", aliases=("zero_mask",), advanced=True
    )
    maximum_significants: int = parameter(
        0, help="most samples kept for a particle (0: no limit)", aliases=("maxsig",), ge=0, advanced=True
    )
    strict_highres_exp: float = parameter(
        0.0, help="finest detail that is compared, whatever the maps hold (0: no limit)", unit="A", ge=0, advanced=True
    )

    pool: int = parameter(
        0, help="most particles in a batch (0: as many as fit in memory)", ge=0, le=10_000, advanced=True
    )

    dont_combine_weights_via_disc: bool = parameter(
        True, help="ranks add up their sums over the network (false: through files in the job's folder)", advanced=True
    )

    def comparison(self, context: Context) -> dict[str, Any]:
        """These options as the methods' options name them, who shares the work, and where seconds are noted."""
        ranks = context.ranks or ALONE
        if not self.dont_combine_weights_via_disc:
            ranks = context.closing.enter_context(ranks.adding_through(context.directory / "sums"))
        return {
            "ranks": ranks,
            "phases": Phases(context.seconds),
            "zero_mask": self.zero_mask,
            "pool": self.pool or 512,
            "max_significant": self.maximum_significants or 2**62,
            "strict_highres": self.strict_highres_exp,
        }


def read_particles(
    input_star: str,
    context: Context,
    *,
    ctf: bool,
    diameter: float,
    like: Grid | None = None,
    treatment: CtfTreatment | None = None,
    reading: ReadingParameters | None = None,
) -> tuple[Dataset, ParticleSet]:
    """The table and the images of a particle STAR file.

    diameter of the mask in A, 0 where not given; like: the grid of a reference, which decides where groups differ;
    reading: where the images are to be read from (None: from where they lie).
    """
    path = context.project / input_star
    started = time.monotonic()
    dataset = read_dataset(path)
    if dataset.kind != "particles":
        raise InputError(path, f"lists {dataset.kind}, not particles", "Give the STAR file of extracted particles.")
    dataset = locate_stacks(dataset, context.project, path)
    images = open_images(dataset, context.project, ctf=ctf, like=like)
    if reading is not None:
        images = placed(images, dataset, path, stacks_of(dataset, context.project), reading, context)
    particles = particle_set(dataset, images, apply_ctf=ctf, treatment=treatment)
    context.seconds["reading_seconds"] = round(time.monotonic() - started, 3)
    if diameter > images.box * images.pixel_size:
        raise InputError(
            "--particle-diameter",
            f"{diameter:g} A is more than the box of {images.box * images.pixel_size:.0f} A",
            "Give the diameter of the particle, or extract in a larger box.",
        )
    return dataset, particles


def open_images(dataset: Dataset, project: Path, *, ctf: bool, like: Grid | None = None) -> ImageSource:
    """The images on one grid: as they are where all groups share it, else brought to a common one.

    Odd aberrations are taken off where the CTF is corrected for, anisotropic magnification always.
    """
    stacks = open_stacks(dataset, project)
    microscopes, distortions = microscopes_of(dataset), distortions_of(dataset, aberrations=ctf)
    place = {int(group): row for row, group in enumerate(dataset.optics["optics_group"])}
    groups = []
    for members, stack in stacks:
        row = place[int(dataset.rows["optics_group"][members[0]])]
        groups.append(GroupImages(stack, members, microscopes[row], distortions[row]))
    if all(group.grid.is_same(groups[0].grid) and group.distortion.is_none for group in groups):
        return ParticleStack(dataset, project)
    grid = choose_grid([group.grid for group in groups], like)
    log.info("optics groups are brought to a box of %d pixels of %.4g A", grid.box, grid.pixel_size)
    return CommonGrid(groups, grid)


class _Corrections(Protocol):
    """Options of a method that say how images are corrected and compared."""

    @property
    def norm_correction(self) -> bool: ...
    @property
    def scale_correction(self) -> bool: ...
    @property
    def zero_mask(self) -> bool: ...
    @property
    def strict_highres(self) -> float: ...
    @property
    def incr_size(self) -> int: ...


def optimiser_labels(particles: ParticleSet, options: _Corrections) -> dict[str, Any]:
    """How images are corrected and compared, under the labels of RELION's optimiser file."""
    return {
        "rlnDoCorrectCtf": int(particles.apply_ctf),
        "rlnCtfDataArePhaseFlipped": int(particles.treatment.phase_flipped),
        "rlnDoOnlyFlipCtfPhases": int(particles.treatment.only_flip_phases),
        "rlnDoIgnoreCtfUntilFirstPeak": int(particles.treatment.intact_first_peak),
        "rlnDoCorrectNorm": int(options.norm_correction),
        "rlnDoCorrectScale": int(options.scale_correction),
        "rlnDoZeroMask": int(options.zero_mask),
        "rlnHighresLimitExpectation": options.strict_highres or -1.0,
        "rlnIncrementImageSize": options.incr_size,
    }


def scale_groups(dataset: Dataset, scale: NDArray[np.float64]) -> ScaleGroups | None:
    """The groups' scales as a model file holds them; None where they were not estimated (scale empty)."""
    if not len(scale):
        return None
    groups, names = scale_groups_of(dataset)
    return ScaleGroups(names, np.bincount(groups, minlength=len(names)).tolist(), scale)


def mask_diameter(given: float, particles: ParticleSet) -> float:
    """Diameter of the particle mask in A: as given, or 90% of the box."""
    return given or 0.9 * particles.box * particles.pixel_size
