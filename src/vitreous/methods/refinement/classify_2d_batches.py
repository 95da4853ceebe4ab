"""2D classification from mini-batches: a few hundred particles at a time teach the averages, all of them at the end.

Each class forgets as fast as it learns: the share of its running sums that a batch replaces is the plan's step, but no
more than what the batch holds for it is worth. So all averages rest on about as many particles, few or many as they are
in a batch: with fewer, those of large classes are finer, and draw the particles of all others to them. The last
iteration is one of expectation maximisation over all particles, which also gives each its class and pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vitreous.methods.refinement.classify_2d import (
    Classification,
    Options2D,
    first_shell,
    iterate,
    iteration_generator,
    pass_over,
    renew,
    start,
)
from vitreous.methods.refinement.mini_batches import BatchPlan, blend_noise, draw
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.running_sums import merge
from vitreous.methods.refinement.statistics import class_distribution

_ENOUGH = 100.0  # particles that the running sums of an average hold
_PER_CLASS = 5  # particles for each class in a batch, on average, at least


def batch_plan(n_classes: int, initial_batch: int = 0, final_batch: int = 0) -> BatchPlan:
    """RELION's plan for 2D classes: 0.5% (200 to 10,000) growing to 5% (1,000 to 100,000), step 0.9 to 0.3."""
    return BatchPlan(
        initial_batch=initial_batch,
        final_batch=final_batch,
        final_step=0.3,
        final_share=0.05,
        initial_limits=(200, 10_000),
        final_limits=(1_000, 100_000),
        least=_PER_CLASS * n_classes,
    )


def classify_2d_batches(
    particles: ParticleSet, poses: Poses, options: Options2D, plan: BatchPlan, resume: Classification | None = None
) -> Iterator[Classification]:
    """Yield the state after each mini-batch, and after the last iteration over all particles."""
    state = resume or start(particles, poses, options)
    for iteration in range(state.iteration + 1, options.iterations + 1):
        state = replace(state, iteration=iteration)
        if iteration < options.iterations:
            state = _step(particles, state, options, plan)
        else:
            state = replace(iterate(particles, state, options), sums=())
        yield state


def _step(particles: ParticleSet, before: Classification, options: Options2D, plan: BatchPlan) -> Classification:
    done = before.iteration / options.iterations
    generator = iteration_generator(options.seed, -1_000_000 - before.iteration)
    indices = draw(len(particles), plan.size(done, len(particles)), generator)
    state, sums, statistics = pass_over(particles, before, indices, options)
    step, slow = plan.step(done), 0.2 * plan.step(done)
    sums.classes = merge(
        before.sums, sums.classes, [1.0 - min(step, count / _ENOUGH) for count in statistics.class_weights.tolist()]
    )
    state = replace(
        state,
        poses=replace(state.poses, norm=before.poses.norm),  # too few particles at a time to estimate contrast
        distribution=(1 - slow) * before.distribution + slow * class_distribution(statistics),
    )
    state = renew(state, sums, statistics, particles, options, keep_sums=True)
    return replace(
        state,
        shell=max(state.shell, first_shell(particles, options)),
        noise=blend_noise(before.noise, state.noise, slow),
        sigma_offset=(1 - slow) * before.sigma_offset + slow * state.sigma_offset,
    )
