"""Expectation steps that look at less than the posterior over the whole grid.

`FixedPoses` compares classes alone, at the poses that particles have (RELION's skip_align). `BestCorrelation` gives
all of a particle's weight to the one sample that correlates best with it, whatever the grey values of the references
(RELION's firstiter_cc). Both stand where `Expectation` does: `maximise` takes either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.compare import Samples, WhitenedImages, compare_dense, compare_sparse
from vitreous.kernels.posterior import posterior_weights
from vitreous.methods.refinement.expectation import Expectation, Posterior, Prior, Settings, empty_deviance
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import PreparedImages
from vitreous.methods.refinement.references import References
from vitreous.methods.refinement.sampling import Sampling

_IMPOSSIBLE = np.float32(-1e30)


def fixed_sampling(rotations: NDArray[np.float64]) -> Sampling:
    """A grid of the particles' own orientations, (n, 3, 3), and no shift."""
    own, still = torch.from_numpy(rotations), torch.zeros(1, 2, dtype=torch.float64)
    return Sampling(own, own, still, still, 0.0)


class FixedPoses(Expectation):
    """Classes compared at each particle's own pose: origins and orientations stay as they are.

    The prior's log_prior has one column a particle. The part of an origin that is no whole pixel is taken off as a
    phase, so nothing is interpolated. by_correlation: all weight to the class that correlates best.
    """

    def __init__(
        self,
        particles: ParticleSet,
        references: References,
        poses: Poses,
        prior: Prior,
        settings: Settings,
        *,
        by_correlation: bool = False,
    ) -> None:
        super().__init__(particles, references, fixed_sampling(poses.rotations), prior, settings)
        self._by_correlation = by_correlation

    def batches(self, indices: NDArray[np.int64], poses: Poses) -> Iterator[Posterior]:
        """Posteriors over the classes of these particles, which stand at `poses` (of all particles)."""
        m, k = len(self.coefficients), self.references.n_classes
        # images and their parts; a slice for each class, complex and split into parts, and its sum
        size = self.settings.memory // (60 * self.particles.box**2 + 40 * m + 48 * m * k)
        for chosen in _runs(indices, max(1, min(512, size))):
            yield self._weigh_classes(chosen, self._moved(chosen, poses), poses)

    def _moved(self, indices: NDArray[np.int64], poses: Poses) -> PreparedImages:
        """Images with their whole origin applied."""
        images = self._prepare(indices, poses)
        origins = poses.origins[indices]
        phases = self.coefficients.shift_phases(torch.from_numpy(origins - images.centres)).to(
            images.masked.data.device
        )
        masked = replace(images.masked, data=images.masked.data * phases)
        return replace(
            images,
            masked=masked,
            unmasked=replace(images.unmasked, data=images.unmasked.data * phases),
            centres=origins,
        )

    def _weigh_classes(self, indices: NDArray[np.int64], images: PreparedImages, poses: Poses) -> Posterior:
        n, k = len(indices), self.references.n_classes
        own = self.sampling.rotations[torch.from_numpy(indices)]
        slices = [self.references.slices(c, own, self.coefficients.coordinates) for c in range(k)]
        references = torch.cat(slices).to(self.settings.device)
        rows = (np.arange(n)[:, None] + n * np.arange(k)).reshape(-1)
        samples = Samples(np.repeat(np.arange(n), k), rows, np.arange(n * k + 1), np.zeros(n * k, np.int64))
        compared = images.masked.first(self._n_compared)
        there = (references[:, : self._n_compared], self.fine.phases[:, : self._n_compared], samples)
        logits = compare_sparse(compared, *there).cpu().numpy()
        if self._by_correlation:
            score = correlation(compared, *there).reshape(n, k)
            logits = _only(logits.reshape(n, k), score.argmax(1)).reshape(n * k, 1, 1)
        else:
            believed = self.prior.log_prior.numpy()[:, indices].T
            logits = logits + believed.reshape(n * k, 1, 1).astype(np.float32)
        row_classes, row_rotations = np.repeat(np.arange(k), n), np.tile(indices, k)
        return _posterior(self, indices, images, poses, (references, samples, logits), (row_classes, row_rotations))


class BestCorrelation(Expectation):
    """Each particle at the one sample of the whole grid that correlates best with it."""

    def batches(self, indices: NDArray[np.int64], poses: Poses) -> Iterator[Posterior]:
        """Posteriors of weight one at one sample; log-likelihoods are those of that sample."""
        for chosen in _runs(indices, self._batch_size()):
            images = self._prepare(chosen, poses)
            yield self._refine(chosen, images, self._best_coarse(images), poses)

    def _best_coarse(self, images: PreparedImages) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row (class * R + rotation) and shift of the coarse grid where each image correlates best."""
        low, phases = images.masked.first(self._n_coarse), self.coarse.phases[:, : self._n_coarse]
        rows, fast = self._rows.prepared(self.sampling.rotations, self._n_coarse), self.settings.low_precision
        gains = compare_dense(low, rows, phases, low_precision=fast)
        score = gains.cross.div_(gains.norms.clamp(min=1e-30).sqrt()[:, None])
        best = score.flatten(1).argmax(1).cpu().numpy()  # over (shifts, rows)
        return best % score.shape[2], best // score.shape[2]

    def _refine(
        self,
        indices: NDArray[np.int64],
        images: PreparedImages,
        coarse: tuple[NDArray[np.int64], NDArray[np.int64]],
        poses: Poses,
    ) -> Posterior:
        """The best of the oversampled children of each image's coarse sample."""
        n, a, b = len(indices), self.fine.orientation_children, self.fine.shift_children
        n_rotations = len(self.sampling.rotations)
        unique, compact = np.unique(coarse[0], return_inverse=True)
        fine = ((unique % n_rotations)[:, None] * a + np.arange(a)).reshape(-1)
        classes = np.repeat(unique // n_rotations, a)
        references = torch.cat(
            [
                self.references.slices(
                    int(k), self.fine.rotations[torch.from_numpy(fine[classes == k])], self.coefficients.coordinates
                )
                for k in np.unique(classes)
            ]
        ).to(self.settings.device)
        samples = Samples(np.arange(n), compact.astype(np.int64), np.arange(n + 1), coarse[1], a, b)
        m = self._n_compared
        compared = images.masked.first(m)
        there = (references[:, :m], self.fine.phases[:, :m], samples)
        best = correlation(compared, *there).reshape(n, -1).argmax(1)
        logits = compare_sparse(compared, *there).cpu().numpy()
        logits = _only(logits.reshape(n, -1), best).reshape(n, a, b)
        return _posterior(self, indices, images, poses, (references, samples, logits), (classes, fine))


def correlation(
    images: WhitenedImages,
    references: Complex[Tensor, "rows m"],
    phases: Complex[Tensor, "shifts m"],
    samples: Samples,
) -> NDArray[np.float32]:
    """Correlation (times the image's own norm) of samples and their children: sum X P* / sqrt(sum |P|^2), whitened.

    Of two references that differ in scale alone both have the same. Shape (entries, a, b).
    """
    cross = compare_sparse(_bare(images), references, phases, samples)
    norm = -compare_sparse(_silent(images), references, phases, samples)
    return (cross / norm.clamp(min=1e-30).sqrt()).cpu().numpy()


def _bare(images: WhitenedImages) -> WhitenedImages:
    """Without the power of the reference: comparing gives the cross term alone."""
    return replace(images, half_power=torch.zeros_like(images.half_power))


def _silent(images: WhitenedImages) -> WhitenedImages:
    """Without the image: comparing gives minus half the power of the reference seen through the CTF."""
    return replace(images, data=torch.zeros_like(images.data))


def _only(logits: Float[np.ndarray, "n s"], best: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits of which each row's best one alone is possible."""
    out = np.full_like(logits, _IMPOSSIBLE)
    every = np.arange(len(logits))
    out[every, best] = logits[every, best]
    return out


def _runs(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _posterior(
    e: Expectation,
    indices: NDArray[np.int64],
    images: PreparedImages,
    poses: Poses,
    compared: tuple[Complex[Tensor, "rows m"], Samples, NDArray[np.float32]],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Posterior:
    """Weights and best samples of compared samples. compared: references, samples, logits; rows: class, rotation."""
    references, samples, logits = compared
    row_classes, row_rotations = rows
    weighted, best = posterior_weights(samples, logits, len(indices), e.settings.adaptive_fraction)
    best_row = samples.rows[best.pairs] * samples.orientation_children + best.orientation_children
    pairs = np.repeat(weighted.images, np.diff(weighted.starts))
    new = Poses(
        classes=row_classes[best_row],
        rotations=e.fine.rotations.numpy()[row_rotations[best_row]],
        origins=images.centres + e.fine.shifts.numpy()[best.shifts],
        norm=poses.norm[indices],
        log_likelihood=best.log_evidence - empty_deviance(images, e.coefficients),
        max_probability=best.weights,
        n_significant=np.bincount(pairs, minlength=len(indices)),
    )
    return Posterior(indices, new, images, weighted, references, row_classes, row_rotations, e.fine)
