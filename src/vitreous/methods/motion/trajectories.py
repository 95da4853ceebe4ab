"""Fitting displacements to leave-one-out correlations: one free shift a frame, and a smooth model over the field.

The sum over patches p and frames f of the leave-one-out correlation (kernels.alignment) is raised by
Gauss-Newton steps on all parameters at once: no peak of a single noisy patch and frame ever has to be
believed. Divided by the gradient's noise it is a (quasi) log-likelihood, so that a weak prior on the frames'
accelerations and the model's size takes over exactly where the images say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.alignment import Derivatives, leave_one_out
from vitreous.methods.motion.spectra import Band

# A step longer than this (pixels, largest over frames) is shortened: the quadratic form holds only nearby.
_LONGEST_STEP = 3.0
_FLOOR = 1e-3  # smallest curvature kept, relative to the largest


@dataclass(frozen=True)
class Prior:
    """acceleration: standard deviation of the change of velocity, pixels per group of frames squared.

    model: standard deviation of the local displacement over field and time, pixels.
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
        return parameters.frames + torch.einsum("pfm,ma->pfa", self.basis, parameters.model)

    def derivatives(self, parameters: Parameters) -> Derivatives:
        """Leave-one-out correlation at these parameters."""
        ky, kx = self.band.ky, self.band.kx
        return leave_one_out(self.frames_ft, self.weights, ky, kx, self.displacements(parameters))


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

    uncertainty: (f,) standard error of a frame's displacement in pixels (x and y together, as rms).
    step: largest change in the last iteration, pixels. iterations: how many were done.
    """

    parameters: Parameters
    log_likelihood: float
    uncertainty: Float[Tensor, "f"]
    step: float
    iterations: int


def likelihood_scale(at: Derivatives) -> float:
    """Factor that makes the correlation a quasi log-likelihood: curvature over the variance of the gradient."""
    curvature = -float(at.hessian.diagonal(dim1=-2, dim2=-1).sum())
    noise = float(at.noise.diagonal(dim1=-2, dim2=-1).sum())
    return max(curvature, 0.0) / noise if noise > 0 else 0.0


def fit(problem: Problem, start: Parameters, prior: Prior, *, iterations: int = 8, tolerance: float = 0.01) -> Fit:
    """Raise the correlation from `start` until no displacement changes by more than tolerance (pixels)."""
    parameters = start
    at = problem.derivatives(parameters)
    longest, done = float("inf"), 0
    for done in range(1, iterations + 1):  # noqa: B007
        scale = likelihood_scale(at)
        step = _newton_step(problem, at, parameters, prior, scale)
        moved = problem.displacements(step)
        longest = float((moved - moved.mean(dim=(0, 1))).abs().max())
        factor = min(1.0, _LONGEST_STEP / max(longest, 1e-12))
        before = _objective(at, parameters, prior, scale)
        for _ in range(4):
            trial = parameters.plus(step, factor)
            there = problem.derivatives(trial)
            if _objective(there, trial, prior, scale) >= before:
                parameters, at = trial, there
                break
            factor *= 0.5
        else:
            longest = 0.0  # no better place along the step: this is the peak to rounding
        longest *= factor
        if longest < tolerance:
            break
    scale = likelihood_scale(at)
    return Fit(parameters, scale * 0.5 * float(at.value.sum()), _uncertainty(at), longest, done)


def _objective(at: Derivatives, parameters: Parameters, prior: Prior, scale: float) -> float:
    # Each pair of frames is counted twice in the leave-one-out values, once in the likelihood.
    acceleration = _second_differences(len(parameters.frames)) @ parameters.frames
    penalty = 0.5 * float(acceleration.square().sum()) / prior.acceleration**2
    penalty += 0.5 * float(parameters.model.square().sum()) / prior.model**2
    return scale * 0.5 * float(at.value.sum()) - penalty


def _second_differences(n: int) -> Float[Tensor, "k n"]:
    rows = torch.zeros(max(n - 2, 0), n, dtype=torch.float64)
    for i in range(n - 2):
        rows[i, i : i + 3] = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    return rows


def _newton_step(problem: Problem, at: Derivatives, parameters: Parameters, prior: Prior, scale: float) -> Parameters:
    """One Gauss-Newton step on the penalised likelihood for frames and model of both axes.

    The reference moves with the frames, so only motion relative to each patch's mean counts: the design is
    centred over frames, which is the full Hessian for frames of equal signal.
    """
    n_patches, n_frames, n_model = problem.basis.shape
    frames = torch.eye(n_frames, dtype=torch.float64).expand(n_patches, -1, -1)
    design = torch.cat([frames, problem.basis], dim=2)
    centred = design - design.mean(1, keepdim=True)
    gradient = torch.einsum("pfa,pfm->am", at.gradient * scale, design)
    curvature = -scale * at.hessian
    normal = torch.einsum("pfab,pfm,pfn->ambn", curvature, centred, centred)
    n = n_frames + n_model
    second = _second_differences(n_frames)
    penalty = torch.zeros(n, n, dtype=torch.float64)
    penalty[:n_frames, :n_frames] = second.T @ second / prior.acceleration**2
    penalty[n_frames:, n_frames:] = torch.eye(n_model, dtype=torch.float64) / prior.model**2
    state = torch.cat([parameters.frames, parameters.model]).T
    gradient = gradient - state @ penalty
    for axis in range(2):
        normal[axis, :, axis, :] += penalty
    matrix = normal.reshape(2 * n, 2 * n)
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    # Far from the peak the curvature can have the wrong sign: go uphill all the same. The floor also takes care
    # of the one direction that is not determined, a common shift of all frames.
    floor = _FLOOR * float(values.abs().max())
    step = vectors @ ((vectors.T @ gradient.reshape(-1)) / values.abs().clamp(min=max(floor, 1e-30)))
    step = step.reshape(2, n).T
    return Parameters(step[:n_frames], step[n_frames:])


def _uncertainty(at: Derivatives) -> Float[Tensor, "f"]:
    """Standard error of each frame's displacement by the sandwich rule, all patches together."""
    curvature = -at.hessian.sum(0)
    noise = at.noise.sum(0)
    inverse = torch.linalg.pinv(curvature, hermitian=True)
    covariance = inverse @ noise @ inverse
    return covariance.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=0.0).sqrt()
