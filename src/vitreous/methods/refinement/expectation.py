"""Expectation: the posterior of class, orientation and shift of each particle, for 2D and 3D references alike.

Coarse pass over all (class, orientation, shift) as one matrix product, or over each particle's own candidates;
the samples that hold `adaptive_fraction` of the weight are looked at again at their oversampled children, all
coefficients, full precision. A particle whose coarse posterior is broad (more than `oversample_below` samples)
gains nothing from finer sampling and is weighed at the coarse samples: it is these that would cost the time.
Scheres (2012) J. Mol. Biol. 415, 406; J. Struct. Biol. 180, 519.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.compare import (
    Samples,
    WhitenedImages,
    compare_all_shifts,
    compare_dense,
    compare_sparse,
)
from vitreous.kernels.posterior import Selection, posterior_weights, significant_dense, significant_sparse
from vitreous.kernels.weighted_sums import WeightedSamples
from vitreous.methods.refinement.candidates import Candidates
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel, PreparedImages, prepare
from vitreous.methods.refinement.reference_rows import ReferenceRows
from vitreous.methods.refinement.references import References
from vitreous.methods.refinement.sampling import Sampling
from vitreous.runtime.phases import Phases
from vitreous.runtime.ranks import ALONE, Ranks

_ROW_BLOCK = 1 << 23  # coefficients of the projections that local searches hold at a time


@dataclass(frozen=True)
class Settings:
    """How far and how finely to compare.

    max_shell: highest Fourier shell compared and summed (half the current size). mask_radius: particle radius in
    pixels. coarse_shell: highest shell of the coarse pass (0: max_shell). zero_mask, compared_shell: see
    preprocess.prepare. memory: bytes for one batch, of at most `pool` images. ranks: who shares the work.
    phases: where its seconds are noted.
    """

    max_shell: int
    mask_radius: float
    coarse_shell: int = 0
    adaptive_fraction: float = 0.999
    max_significant: int = 2**62
    pool: int = 512
    oversample_below: int = 1000
    low_precision: bool = True
    zero_mask: bool = True
    compared_shell: int = 0
    memory: int = 1 << 30
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ranks: Ranks = ALONE
    phases: Phases = field(default_factory=Phases)


@dataclass(frozen=True)
class Prior:
    """What is believed before a particle is seen.

    noise; sigma_offset: spread of origins, pixels; log_prior: (n_classes, R) of class and coarse orientation;
    origins: (n, 2) expected origins in pixels (None: zero); candidates: for local searches.
    """

    noise: NoiseModel
    sigma_offset: float
    log_prior: Float[Tensor, "classes r"]
    origins: NDArray[np.float64] | None = None
    candidates: Candidates | None = None


@dataclass(frozen=True)
class Level:
    """One fineness of sampling: children of the coarse grid (or the coarse grid itself, with one child each)."""

    rotations: Float[Tensor, "r_a 3 3"]
    shifts: Float[Tensor, "t_b 2"]
    phases: Complex[Tensor, "t_b m"]
    orientation_children: int
    shift_children: int


@dataclass(frozen=True)
class Posterior:
    """The outcome for one batch of particles.

    indices: (n,) which; poses: theirs, at the best sample; samples: weights by row of `references`, whose class is
    row_classes and whose rotation row_rotations (index into level.rotations); shifts are those of the level.
    """

    indices: NDArray[np.int64]
    poses: Poses
    images: PreparedImages
    samples: WeightedSamples
    references: Complex[Tensor, "rows m"]
    row_classes: NDArray[np.int64]
    row_rotations: NDArray[np.int64]
    level: Level


class Expectation:
    """The expectation step of one iteration: grid, references and priors fixed, particles passed through in batches."""

    def __init__(
        self, particles: ParticleSet, references: References, sampling: Sampling, prior: Prior, settings: Settings
    ) -> None:
        self.particles = particles
        self.references = references
        self.sampling = sampling
        self.prior = prior
        self.settings = settings
        self.coefficients = Coefficients.within(particles.box, settings.max_shell)
        self._n_compared = self.coefficients.count(settings.compared_shell or settings.max_shell)
        coarse = settings.coarse_shell or settings.max_shell
        self._n_coarse = min(self._n_compared, self.coefficients.count(coarse))
        coarse_phases = self.coefficients.shift_phases(sampling.shifts).to(settings.device)
        fine_phases = self.coefficients.shift_phases(sampling.fine_shifts).to(settings.device)
        self.coarse = Level(sampling.rotations, sampling.shifts, coarse_phases, 1, 1)
        self.fine = Level(
            sampling.fine_rotations,
            sampling.fine_shifts,
            fine_phases,
            sampling.orientation_children,
            sampling.shift_children,
        )
        self._row_prior = prior.log_prior.reshape(-1).to(torch.float32)
        self._rows = ReferenceRows(
            references, self.coefficients, len(sampling.rotations), settings.memory // 4, settings.device
        )

    def batches(self, indices: NDArray[np.int64], poses: Poses) -> Iterator[Posterior]:
        """Posteriors of these particles, which stand at `poses` (of all particles) now."""
        size = self._batch_size()
        start = 0
        while start < len(indices):
            chosen = indices[start : start + size]
            try:
                images = self._prepare(chosen, poses)
                selection = self._coarse(chosen, images)
            except (MemoryError, torch.OutOfMemoryError):
                if size == 1:
                    raise
                size = max(1, size // 2)
                continue
            start += size
            yield from self._weigh_all(chosen, images, selection, poses)

    def _batch_size(self) -> int:
        box, m = self.particles.box, len(self.coefficients)
        shifts = self.sampling.shifts.shape[0]
        each = 60 * box * box + 40 * m + 16 * self._n_coarse * shifts
        if self.prior.candidates is None:
            # a product each shift; prior and norm, how many are kept, and where they are listed
            each += (4 * shifts + 24) * self.references.n_classes * len(self.sampling.rotations)
        else:
            # each candidate's shifts and logits, and what selects them
            each += int(self.prior.candidates.mean_count * 32 * shifts)
        return max(1, min(self.settings.pool, self.settings.memory // 2 // each))

    def _prepare(self, indices: NDArray[np.int64], poses: Poses) -> PreparedImages:
        s = self.settings
        return prepare(
            self.particles,
            indices,
            poses,
            self.prior.noise,
            self.coefficients,
            s.mask_radius,
            s.device,
            zero_mask=s.zero_mask,
            compared_shell=s.compared_shell,
        )

    def _weigh_all(
        self, indices: NDArray[np.int64], images: PreparedImages, selection: Selection, poses: Poses
    ) -> Iterator[Posterior]:
        """Broad posteriors at the coarse samples, sharp ones at their children, in parts that fit in memory."""
        broad = selection.counts > self.settings.oversample_below
        for level, members in ((self.coarse, np.flatnonzero(broad)), (self.fine, np.flatnonzero(~broad))):
            for first, last in self._parts(level, selection.counts[members], selection.pair_counts[members]):
                chosen = members[first:last]
                yield self._weigh(level, indices[chosen], images.take(chosen), selection.of(chosen), poses)

    def _shift_prior(self, indices: NDArray[np.int64], centres: NDArray[np.float64], shifts: Tensor) -> Tensor:
        """Gaussian log-prior (n, T) of the origin that each shift would give a particle."""
        expected = self.prior.origins[indices] if self.prior.origins is not None else 0.0
        away = torch.from_numpy(centres - expected)[:, None] + shifts.to(torch.float64)
        return (-away.square().sum(-1) / (2 * self.prior.sigma_offset**2)).to(torch.float32)

    def _coarse(self, indices: NDArray[np.int64], images: PreparedImages) -> Selection:
        """Samples of the coarse grid that matter (image indices within the batch)."""
        low = images.masked.first(self._n_coarse)
        shift_prior = self._shift_prior(indices, images.centres, self.sampling.shifts)
        s = self.settings
        if self.prior.candidates is not None:
            return self._coarse_local(indices, low, shift_prior.numpy())
        rows = self._rows.prepared(self.sampling.rotations, self._n_coarse)
        gains = compare_dense(low, rows, self.coarse.phases[:, : self._n_coarse], low_precision=s.low_precision)
        row_terms = self._row_prior.to(gains.norms.device) - gains.norms
        terms = (gains.cross.cpu().numpy(), row_terms.cpu().numpy(), shift_prior.numpy())
        return significant_dense(*terms, s.adaptive_fraction, s.max_significant)

    def _coarse_local(
        self, indices: NDArray[np.int64], low: WhitenedImages, shift_prior: NDArray[np.float32]
    ) -> Selection:
        candidates = self.prior.candidates
        assert candidates is not None
        images, where = candidates.of(indices)
        rows, log_prior = candidates.rows[where], candidates.log_prior[where]
        n_shifts = shift_prior.shape[1]
        samples = Samples.at_all_shifts(images, rows, n_shifts)
        logits = self._all_shifts(low, images, rows) + shift_prior[images]
        logits += (log_prior + self._row_prior.numpy()[rows])[:, None]
        s = self.settings
        return significant_sparse(samples, logits.reshape(-1), len(indices), s.adaptive_fraction, s.max_significant)

    def _all_shifts(
        self, low: WhitenedImages, images: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Gains (pairs, shifts) of pairs of an image with a coarse row.

        Each row is projected once for all batches, or for each of them where all rows do not fit in memory.
        """
        phases, precision = self.coarse.phases[:, : self._n_coarse], self.settings.low_precision
        everything = self._rows.everything(self.sampling.rotations, 1, self._n_coarse)
        if everything is not None:
            pairs = images, rows
            return compare_all_shifts(low, everything, phases, *pairs, low_precision=precision).cpu().numpy()
        gains = np.empty((len(rows), len(phases)), np.float32)
        unique, compact = np.unique(rows, return_inverse=True)
        order = np.argsort(compact, kind="stable")
        bounds = np.searchsorted(compact[order], np.arange(len(unique) + 1))
        step = max(1, _ROW_BLOCK // self._n_coarse)
        for first in range(0, len(unique), step):
            block = unique[first : first + step]
            chosen = order[bounds[first] : bounds[first + len(block)]]
            references = self._rows.slices(block, self.sampling.rotations, 1, self._n_coarse)
            pairs = images[chosen], compact[chosen] - first
            found = compare_all_shifts(low, references, phases, *pairs, low_precision=precision)
            gains[chosen] = found.cpu().numpy()
        return gains

    def _parts(self, level: Level, counts: NDArray[np.int64], pairs: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Runs of images whose samples at this level fit in memory together."""
        n, m = len(counts), len(self.coefficients)
        # a sample: 16 in its list, then each child's logit and what is kept of it; a row: projection, sum and weight,
        # and the copies with which they are inserted
        size = (16 + 24 * level.orientation_children * level.shift_children) * np.cumsum(counts)
        size = size + 32 * m * level.orientation_children * np.minimum(np.cumsum(pairs), self._rows.count)
        before = np.concatenate([[0], size])
        first = 0
        while first < n:
            last = int(np.searchsorted(before, before[first] + self.settings.memory // 2, side="right")) - 1
            last = min(n, max(last, first + 1))
            yield first, last
            first = last

    def _weigh(
        self, level: Level, indices: NDArray[np.int64], images: PreparedImages, samples: Samples, poses: Poses
    ) -> Posterior:
        """Weights at the children, on this level, of the samples that the coarse pass kept."""
        a, b = level.orientation_children, level.shift_children
        references, rows, compact = self._references_at(level, samples.rows)
        local = Samples(samples.images, compact, samples.starts, samples.shifts, a, b)
        m = self._n_compared
        logits = compare_sparse(images.masked.first(m), references[:, :m], level.phases[:, :m], local).cpu().numpy()
        pairs = samples.entry_pairs()
        entry_images = samples.images[pairs]
        shift_prior = self._shift_prior(indices, images.centres, level.shifts).numpy()
        logits += shift_prior.reshape(len(indices), -1, b)[entry_images, samples.shifts][:, None, :]
        logits += self._pair_prior(indices, samples)[pairs][:, None, None]
        weighted, best = posterior_weights(local, logits, len(indices), self.settings.adaptive_fraction)
        n_fine = len(level.rotations)
        level_rows = (rows[:, None] * a + np.arange(a)).reshape(-1)
        best_row = samples.rows[best.pairs] * a + best.orientation_children
        new = Poses(
            classes=best_row // n_fine,
            rotations=level.rotations.numpy()[best_row % n_fine],
            origins=images.centres + level.shifts.numpy()[best.shifts],
            norm=poses.norm[indices],
            log_likelihood=best.log_evidence - empty_deviance(images, self.coefficients),
            max_probability=best.weights,
            n_significant=np.bincount(entry_images, minlength=len(indices)),
        )
        row_classes, row_rotations = level_rows // n_fine, level_rows % n_fine
        return Posterior(indices, new, images, weighted, references, row_classes, row_rotations, level)

    def _references_at(
        self, level: Level, rows: NDArray[np.int64]
    ) -> tuple[Tensor, NDArray[np.int64], NDArray[np.int64]]:
        """References at the children of coarse rows; the coarse row of each; where each of `rows` stands."""
        a, m = level.orientation_children, len(self.coefficients)
        everything = self._rows.everything(level.rotations, a, m) if self.prior.candidates is None else None
        if everything is not None:
            return everything, np.arange(self._rows.count), rows
        unique, compact = np.unique(rows, return_inverse=True)
        return self._rows.slices(unique, level.rotations, a, m), unique, compact.astype(np.int64)

    def _pair_prior(self, indices: NDArray[np.int64], samples: Samples) -> NDArray[np.float32]:
        prior = self._row_prior.numpy()[samples.rows]
        if self.prior.candidates is not None:
            prior = prior + self.prior.candidates.log_prior_of(indices, samples)
        return prior.astype(np.float32)


def empty_deviance(images: PreparedImages, coefficients: Coefficients) -> NDArray[np.float64]:
    """Minus the log-likelihood of the images under an empty reference, over the shells compared."""
    shells = slice(1, coefficients.max_shell + 1)
    sigma2 = images.sigma2[:, shells].to(torch.float64)
    counts = coefficients.shell_counts()[shells].to(sigma2.device)
    deviance = images.shell_power[:, shells] / (2 * sigma2) + counts * torch.log(2 * torch.pi * sigma2)
    return deviance.sum(1).cpu().numpy()
