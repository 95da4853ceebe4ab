"""Fitting displacements to leave-one-out correlations: one free shift a frame, and a smooth model over the field.

The sum over patches p and frames f of the leave-one-out correlation (kernels.alignment) is raised by
Gauss-Newton steps on all parameters at once: no peak of a single noisy patch and frame ever has to be
believed. Divided by the gradient's noise it is a (quasi) log-likelihood, so that a weak prior on the frames'
accelerations and the model's size takes over exactly where the images say nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.alignment import Derivatives, leave_one_out
from vitreous.methods.motion.spectra import Band

# A step longer than this (pixels, largest over frames) is shortened: the quadratic form holds only nearby.
_LONGEST_STEP = 3.0
_FLOOR = 1e-3  # smallest curvature kept, relative to the largest
_SMALLEST_MODEL = 0.02  # px: local motion below this is none
_SETTLED = 0.1  # relative: when the model's size changes by less, it is found


@dataclass(frozen=True)
class Prior:
    """acceleration: standard deviation of the change of velocity, pixels per group of frames squared.

    model: standard deviation of each coefficient of the local model, pixels (see `fit`).
    """

    acceleration: float = 2.0
    model: float = 4.0


@dataclass(frozen=True)
class Problem:
    """Spectra of patches, their weights, and the model's basis.

    frames_ft: (p, f, height, half). basis: (p, f, m) displacement in one axis per unit of each coefficient (the
    same for x and y); m = 0 for whole-frame alignment.
    """

    frames_ft: Complex[Tensor, "p f height half"]
    weights: Float[Tensor, "height half"]
    band: Band
    basis: Float[Tensor, "p f m"]

    def displacements(self, parameters: Parameters) -> Float[Tensor, "p f 2"]:
        """Displacement (x, y) of every patch and frame."""
        return parameters.frames + self.basis @ parameters.model

    def derivatives(self, parameters: Parameters) -> Derivatives:
        """Leave-one-out correlation at these parameters."""
        ky, kx = self.band.ky, self.band.kx
        return leave_one_out(self.frames_ft, self.weights, ky, kx, self.displacements(parameters))

    @cached_property
    def design(self) -> Float[Tensor, "p f n"]:
        """Displacement in one axis per unit of each parameter: n = f + m, frames first."""
        n_patches, n_frames, _ = self.basis.shape
        frames = torch.eye(n_frames, dtype=torch.float64).expand(n_patches, -1, -1)
        return torch.cat([frames, self.basis], dim=2)

    @cached_property
    def centred(self) -> Float[Tensor, "rows n"]:
        """The design less each patch's mean over frames, patches and frames in one row of rows."""
        return (self.design - self.design.mean(1, keepdim=True)).flatten(0, 1)


@dataclass(frozen=True)
class Parameters:
    """frames: (f, 2) displacement of each frame as (x, y); model: (m, 2) coefficients for x and y."""

    frames: Float[Tensor, "f 2"]
    model: Float[Tensor, "m 2"]

    def plus(self, step: Parameters, factor: float = 1.0) -> Parameters:
        """These parameters moved along a step."""
        return Parameters(self.frames + factor * step.frames, self.model + factor * step.model)

    @staticmethod
    def zero(n_frames: int, n_model: int) -> Parameters:
        """No motion."""
        return Parameters(torch.zeros(n_frames, 2, dtype=torch.float64), torch.zeros(n_model, 2, dtype=torch.float64))


@dataclass(frozen=True)
class Fit:
    """What was fitted. log_likelihood: quasi log-likelihood, differences of which mean something.

    displacements (p, f, 2) px where the correlation was last looked at, a small step before the parameters. step:
    largest change in the last iteration, pixels. iterations: how many were done.
    """

    parameters: Parameters
    displacements: Float[Tensor, "p f 2"]
    at: Derivatives
    log_likelihood: float
    step: float
    iterations: int

    @property
    def uncertainty(self) -> Float[Tensor, "f"]:
        """Standard error (px, rms of x and y) of each frame's displacement, by the sandwich rule over all patches."""
        inverse = torch.linalg.pinv(-self.at.hessian.sum(0), hermitian=True)
        covariance = inverse @ self.at.noise.sum(0) @ inverse
        return covariance.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=0.0).sqrt()


def likelihood_scale(at: Derivatives) -> float:
    """Factor that makes the correlation a quasi log-likelihood: curvature over the variance of the gradient."""
    curvature = -float(at.hessian.diagonal(dim1=-2, dim2=-1).sum())
    noise = float(at.noise.diagonal(dim1=-2, dim2=-1).sum())
    return max(curvature, 0.0) / noise if noise > 0 else 0.0


def fit(
    problem: Problem,
    start: Parameters,
    prior: Prior,
    *,
    iterations: int = 8,
    tolerance: float = 0.01,
    size_model: bool = False,
) -> Fit:
    """Raise the correlation from `start` until no displacement would change by more than tolerance (pixels).

    That is foretold: steps are taken to go on shrinking by the factor of the last two. The one that is then left is
    made, but not looked at.
    size_model: take the size of the local motion (prior.model) from the movie itself. Empirical Bayes (MacKay (1992)
    Neural Comput. 4, 415): after each step the coefficients' variance is set to their mean square plus their
    posterior variance. Noise then shrinks the model instead of bending it.
    """
    parameters = start
    at = problem.derivatives(parameters)
    done, longest, foretold, settled = 0, 0.0, 0.0, True
    for done in range(1, iterations + 1):  # noqa: B007
        scale = likelihood_scale(at)
        step = _newton_step(problem, at, parameters, prior, scale)
        before, (parameters, at, longest) = longest, _climb(problem, at, parameters, step, prior)
        foretold = longest * min(1.0, longest / before) if before > 0 else longest
        if size_model and problem.basis.shape[2]:
            size = _model_size(problem, at, parameters, prior)
            settled = abs(math.log(size / prior.model)) < _SETTLED or size == _SMALLEST_MODEL
            prior = replace(prior, model=size)
        if foretold < tolerance and settled:
            break
    scale, found = likelihood_scale(at), parameters
    if 0.0 < foretold < tolerance and settled:
        found = parameters.plus(_newton_step(problem, at, parameters, prior, scale))
    likelihood = scale * 0.5 * float(at.value.sum())
    return Fit(found, problem.displacements(parameters), at, likelihood, longest, done)


def _climb(
    problem: Problem, at: Derivatives, parameters: Parameters, step: Parameters, prior: Prior
) -> tuple[Parameters, Derivatives, float]:
    """Go along a step, or the part of it that leads up; where that led, and the longest way of a frame (px)."""
    scale = likelihood_scale(at)
    moved = problem.displacements(step)
    longest = float((moved - moved.mean(dim=(0, 1))).abs().max())
    factor = min(1.0, _LONGEST_STEP / max(longest, 1e-12))
    before = _objective(at, parameters, prior, scale)
    for _ in range(4):
        trial = parameters.plus(step, factor)
        there = problem.derivatives(trial)
        if _objective(there, trial, prior, scale) >= before:
            return trial, there, longest * factor
        factor *= 0.5
    return parameters, at, 0.0  # no better place along the step: this is the peak to rounding


def _model_size(problem: Problem, at: Derivatives, parameters: Parameters, prior: Prior) -> float:
    variance = _model_variance(problem, at, prior, likelihood_scale(at))
    return max(math.sqrt(float(parameters.model.square().mean()) + variance), _SMALLEST_MODEL)


def _objective(at: Derivatives, parameters: Parameters, prior: Prior, scale: float) -> float:
    # Each pair of frames is counted twice in the leave-one-out values, once in the likelihood.
    acceleration = _second_differences(len(parameters.frames)) @ parameters.frames
    penalty = 0.5 * float(acceleration.square().sum()) / prior.acceleration**2
    penalty += 0.5 * float(parameters.model.square().sum()) / prior.model**2
    return scale * 0.5 * float(at.value.sum()) - penalty


@lru_cache(maxsize=16)
def _second_differences(n: int) -> Float[Tensor, "k n"]:
    unit = torch.eye(n, dtype=torch.float64)
    return unit[:-2] - 2.0 * unit[1:-1] + unit[2:] if n > 2 else unit[:0]


@lru_cache(maxsize=64)
def _penalty(n_frames: int, n_model: int, prior: Prior) -> Float[Tensor, "n n"]:
    """Inverse covariance of the prior over frames and model of one axis. Kept: not to be written to."""
    second = _second_differences(n_frames)
    frames = second.T @ second / prior.acceleration**2
    return torch.block_diag(frames, torch.eye(n_model, dtype=torch.float64) / prior.model**2)


def _normal_matrix(problem: Problem, at: Derivatives, prior: Prior, scale: float) -> Float[Tensor, "m m"]:
    """Curvature of the penalised likelihood in all parameters, x before y.

    The reference moves with the frames, so only motion relative to each patch's mean counts: the design is
    centred over frames, which gives the full Hessian for frames of equal signal. A common shift of all frames changes
    nothing; it is given the mean curvature, so that the matrix has an inverse.
    """
    n, (_, n_frames, n_model) = problem.centred.shape[1], problem.basis.shape
    curvature = (-scale * at.hessian).reshape(-1, 4, 1)
    weighted = (curvature * problem.centred[:, None]).flatten(1)
    normal = (problem.centred.T @ weighted).reshape(n, 2, 2, n)
    both = normal.diagonal(dim1=1, dim2=2)  # axes x and y, each with itself: (n, n, 2)
    both[:n_frames, :n_frames] += both[:n_frames, :n_frames].diagonal().abs().mean() / n_frames
    both += _penalty(n_frames, n_model, prior)[..., None]
    return normal.movedim(1, 0).reshape(2 * n, 2 * n)


def _newton_step(problem: Problem, at: Derivatives, parameters: Parameters, prior: Prior, scale: float) -> Parameters:
    """One Gauss-Newton step on the penalised likelihood for frames and model of both axes."""
    n_frames, n_model = len(parameters.frames), len(parameters.model)
    state = torch.cat([parameters.frames, parameters.model])
    gradient = problem.design.flatten(0, 1).T @ at.gradient.flatten(0, 1) * scale
    gradient -= _penalty(n_frames, n_model, prior) @ state
    step = (_inverse(_normal_matrix(problem, at, prior, scale), _FLOOR) @ gradient.T.reshape(-1)).reshape(2, -1).T
    return Parameters(step[:n_frames], step[n_frames:])


def _inverse(matrix: Float[Tensor, "m m"], floor: float) -> Float[Tensor, "m m"]:
    """Of a positive definite matrix its inverse, else that of the nearest with eigenvalues of a size.

    Far from the peak the curvature can have the wrong sign: a step must go uphill all the same.
    """
    lower, failed = torch.linalg.cholesky_ex(matrix)
    if not failed:
        return torch.cholesky_inverse(lower)
    values, vectors = torch.linalg.eigh(matrix)
    least = max(floor * float(values.abs().max()), 1e-30)
    return (vectors / values.abs().clamp(min=least)) @ vectors.T


def _model_variance(problem: Problem, at: Derivatives, prior: Prior, scale: float) -> float:
    """Mean posterior variance of the model's coefficients."""
    n_frames, n_model = problem.basis.shape[1:]
    if not n_model:
        return 0.0
    inverse = _inverse(_normal_matrix(problem, at, prior, scale), 1e-9)
    variance = inverse.diagonal().reshape(2, -1)[:, n_frames:]
    return min(float(variance.mean()), prior.model**2)
