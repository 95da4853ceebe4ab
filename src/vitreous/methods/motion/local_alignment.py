"""Local motion: patches of the field fitted together by a smooth model, RELION's polynomial or a spline in time.

Zheng et al. (2017) Nat. Methods 14, 331; Zivanov, Nakane and Scheres (2019) IUCrJ 6, 5. MotionCor2 and RELION
fit the polynomial to the peak of every patch and frame. At 1 or 2 e/A^2 a frame many of those peaks are noise;
here the polynomial is fitted to the correlations themselves (see trajectories), and peaks are found only
afterwards, to show how well it describes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.motion import nearest_polynomial
from vitreous.kernels.alignment import Derivatives
from vitreous.methods.motion.global_alignment import FIT_SHARPNESS
from vitreous.methods.motion.local_basis import LocalBasis, TimeModel, in_time, local_basis
from vitreous.methods.motion.outlying_patches import outlying_patches
from vitreous.methods.motion.patches import cut_patches
from vitreous.methods.motion.spectra import Band
from vitreous.methods.motion.trajectories import Fit, Parameters, Prior, Problem, fit, likelihood_scale

# Broad to narrow: a heavy low-pass first, whose peaks are wide enough to lead in from several pixels away.
_SHARPNESS = (4.0, 1.5, FIT_SHARPNESS)
_VALIDATED = 2  # how many of these are gone through in each half of the coefficients, to see whether the model holds
_NEAR_ENOUGH = 0.2  # px: where a fit with broad peaks stops, as a sharper one follows
_LONGEST_PATCH_STEP = 5.0  # px
_TIMES = 12  # frames are summed to about so many before patches are fitted: local motion is smooth in time
_TRIED: dict[str, tuple[TimeModel, ...]] = {
    "polynomial": ("polynomial",), "spline": ("spline",), "best": ("polynomial", "spline"),
}  # fmt: skip
_SUSPICIOUS = 0.75  # px beyond its noise: when a patch is that far from the model, outliers are looked for


@dataclass(frozen=True)
class LocalOptions:
    """shape: (ny, nx) of the movie. patches: (across x, across y). b_factor px^2, tolerance px.

    significance: the model is kept if, fitted to one half of the coefficients, it raises the log-likelihood of the
    other half by at least this.
    largest_residual: rms (px) of the patches' own displacements about the model beyond which it is not believed,
    over and above what their noise explains.
    model: in time (see local_basis); best: the one that does so more. n_frames: of the movie.
    """

    shape: tuple[int, int]
    n_frames: int
    patches: tuple[int, int] = (5, 5)
    b_factor: float = 150.0
    iterations: int = 8
    tolerance: float = 0.02
    significance: float = 10.0
    largest_residual: float = 1.5
    model: TimeModel | Literal["best"] = "polynomial"
    prior: Prior = field(default_factory=Prior)


@dataclass(frozen=True)
class Spectra:
    """Transforms of the patches' frames (p, f, height, half) and the band they cover."""

    frames_ft: Complex[Tensor, "p f height half"]
    band: Band


@dataclass(frozen=True)
class LocalFit:
    """times: (f,) frame index of the middle of what was fitted together.

    frames: (f, 2) displacement beside the global one; coefficients: (2, 18) displacement model or None; by_frame:
    (n_frames, 2, 6) the displacement over the field in each frame of the movie where the model is a spline, to which
    the coefficients' polynomial is then the nearest, else None.

    centres (p, 2) as (x, y) movie pixels; patch_displacements (p, f, 2) beside the global one; residual: rms
    (px) of these about the model; gain: log-likelihood ratio of model against none on coefficients that neither
    was fitted to; reason: why there is no model ("" if there is). all_centres (n, 2), patch_residuals (n,) px, their
    standard errors patch_errors (n,) and rejected (n,) are of every patch, those included that were left out for
    disagreeing with the others.
    """

    times: NDArray[np.float64]
    frames: Float[Tensor, "f 2"]
    coefficients: NDArray[np.float64] | None
    centres: NDArray[np.float64]
    patch_displacements: NDArray[np.float64]
    residual: float
    gain: float
    reason: str
    all_centres: NDArray[np.float64]
    patch_residuals: NDArray[np.float64]
    patch_errors: NDArray[np.float64]
    rejected: NDArray[np.bool_]
    by_frame: NDArray[np.float64] | None = None


def automatic_patches(shape: tuple[int, int], smallest: int = 100) -> tuple[int, int]:
    """(across x, across y): 5 by 5, fewer where patches would be under `smallest` pixels, 1 below three."""
    nx, ny = (min(5, size // smallest) for size in (shape[1], shape[0]))
    return (nx, ny) if min(nx, ny) >= 3 else (1, 1)


def align_patches(
    frames: Float[Tensor, "f height width"],
    band: Band,
    displacements: Float[Tensor, "f 2"],
    times: Float[Tensor, "f"],
    options: LocalOptions,
) -> LocalFit:
    """Fit the local model to binned frames whose global displacements (movie pixels) are known.

    times: frame index (from 0) of each frame or centre of a group. Raises ValueError for a single patch.
    """
    if options.patches[0] * options.patches[1] < 2:
        raise ValueError("local motion needs more than one patch")
    member = np.arange(len(frames)) // max(1, len(frames) // _TIMES)
    times = torch.from_numpy(np.bincount(member, times.numpy()) / np.bincount(member))
    patches_ft, patch_band, centres = cut_patches(frames, band, displacements, member, options.patches)
    spectra = Spectra(patches_ft, patch_band)
    tried = [_fit_model(model, spectra, centres, times.numpy(), options) for model in _TRIED[options.model]]
    return _judge(max(tried, key=lambda one: one.fits.gain), centres, times.numpy(), options)


@dataclass(frozen=True)
class _Fitted:
    """A model, its fit, and of every patch the residual (px) about a fit to all, its error, whether it was left out."""

    basis: LocalBasis
    fits: _Fits
    residuals: NDArray[np.float64]
    errors: NDArray[np.float64]
    rejected: NDArray[np.bool_]


def _fit_model(
    model: TimeModel, spectra: Spectra, centres: NDArray[np.float64], times: NDArray[np.float64], options: LocalOptions
) -> _Fitted:
    """Fit to all patches; where some disagree, again without those that are outlying."""
    basis = local_basis(centres, times, options.shape, in_time(model, options.n_frames, len(times)))
    fits = _fits(spectra, basis.columns, options)
    residuals, errors, suspicious = _disagreement(fits)
    rejected = np.zeros(len(centres), dtype=np.bool_)
    if suspicious:
        rejected = outlying_patches(_free_tracks(spectra, options), centres, options.shape)
    if rejected.any():
        good = torch.from_numpy(np.flatnonzero(~rejected))
        kept = Spectra(spectra.frames_ft[good.to(spectra.frames_ft.device)], spectra.band)
        fits = _fits(kept, basis.columns[good], options)
    return _Fitted(basis, fits, residuals, errors, rejected)


def _disagreement(fits: _Fits) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """How far each patch's own displacements are from the model (rms, px), how far by noise; whether one is more."""
    step, error = _patch_steps(fits.solution.at)
    square, noise = step.square().sum(-1).mean(1), error.square().mean(1)
    return square.sqrt().numpy(), noise.sqrt().numpy(), float((square - noise).max()) > _SUSPICIOUS**2


def _free_tracks(spectra: Spectra, options: LocalOptions) -> NDArray[np.float64]:
    """Each patch's displacements (p, f, 2) by itself, broad correlation peaks first."""
    tracks = []
    height = spectra.band.cropped[0]
    for patch in spectra.frames_ft:
        alone = Spectra(patch[None], spectra.band)
        n_frames = patch.shape[0]
        none = torch.zeros(1, n_frames, 0, dtype=torch.float64)
        parameters = Parameters.zero(n_frames, 0)
        for sharpness in _SHARPNESS:
            problem = _problem(alone, none, torch.ones(height), options, sharpness)
            parameters = fit(
                problem, parameters, options.prior, iterations=options.iterations, tolerance=options.tolerance
            ).parameters
        frames = parameters.frames.numpy()
        tracks.append(frames - frames.mean(0))
    return np.stack(tracks)


@dataclass(frozen=True)
class _Fits:
    """The fit to all coefficients, the held-out gain, and the problem at its final weights without a model."""

    solution: Fit
    gain: float
    without: Problem


def _fits(spectra: Spectra, basis: Float[Tensor, "p f m"], options: LocalOptions) -> _Fits:
    """For validation fit to either half of the coefficients, scored on the other; from midway between, fit to all."""
    gain, halfway = _held_out_gain(spectra, basis, options)
    everything = torch.ones(spectra.band.cropped[0])
    solution = _anneal(spectra, basis, everything, options, _SHARPNESS[_VALIDATED - 1 :], halfway)
    without = _problem(spectra, basis[..., :0], everything, options, FIT_SHARPNESS)
    return _Fits(solution, gain, without)


def _held_out_gain(spectra: Spectra, basis: Float[Tensor, "p f m"], options: LocalOptions) -> tuple[float, Parameters]:
    """Log-likelihood ratio of the model against none, both fitted to one half of the coefficients, in the other.

    At the low frequencies where correlation peaks are broad: what shows there is not bent by noise. And the mean of
    what was found in either half with the model.
    """
    gain, steps = 0.0, _SHARPNESS[:_VALIDATED]
    mean = Parameters.zero(basis.shape[1], basis.shape[2])
    options = replace(options, tolerance=_NEAR_ENOUGH)
    halves = _halves(spectra.band.cropped[0])
    for here, there in (halves, halves[::-1]):
        scores = []
        for model in (basis[..., :0], basis):
            found = _anneal(spectra, model, here, options, steps).parameters
            scores.append(_problem(spectra, model, there, options, steps[-1]).derivatives(found))
        mean = mean.plus(found, 0.5)
        without, with_model = scores
        gain += likelihood_scale(with_model) * 0.5 * float((with_model.value - without.value).sum())
    return gain, mean


def _halves(height: int) -> tuple[Float[Tensor, "height"], Float[Tensor, "height"]]:
    """Two sets of rows in turn, three rows each, with one left out between: windows mix neighbouring coefficients."""
    phase = torch.arange(height) % 8
    return (phase < 3).float(), ((phase >= 4) & (phase < 7)).float()


def _problem(
    spectra: Spectra, basis: Tensor, rows: Float[Tensor, "height"], options: LocalOptions, sharpness: float
) -> Problem:
    weights = spectra.band.weights(options.b_factor, sharpness) * rows[:, None]
    return Problem(spectra.frames_ft, weights, spectra.band, basis)


def _anneal(
    spectra: Spectra,
    basis: Tensor,
    rows: Float[Tensor, "height"],
    options: LocalOptions,
    steps: tuple[float, ...],
    start: Parameters | None = None,
) -> Fit:
    """Fit from start or no motion, broad correlation peaks first (only the last where there is no model to lead)."""
    parameters = start or Parameters.zero(basis.shape[1], basis.shape[2])
    most, tolerance = options.iterations, options.tolerance
    for sharpness in steps[:-1] if basis.shape[2] else ():
        problem = _problem(spectra, basis, rows, options, sharpness)
        parameters = fit(problem, parameters, options.prior, iterations=most, tolerance=_NEAR_ENOUGH).parameters
    final = _problem(spectra, basis, rows, options, steps[-1])
    return fit(final, parameters, options.prior, iterations=most, tolerance=tolerance, size_model=True)


def _judge(
    fitted: _Fitted, centres: NDArray[np.float64], times: NDArray[np.float64], options: LocalOptions
) -> LocalFit:
    """Keep the model if it holds for coefficients it has not seen, and the patches agree with it."""
    fits, basis = fitted.fits, fitted.basis
    of_all = (centres, fitted.residuals, fitted.errors, fitted.rejected)
    centres = centres[~fitted.rejected]
    step, error = _patch_steps(fits.solution.at)
    residual = float(step.square().sum(-1).mean().sqrt())
    excess = math.sqrt(max(residual**2 - float(error.square().mean()), 0.0))
    reason = ""
    if fits.gain < options.significance:
        reason = f"no significant local motion (held-out log-likelihood gain {fits.gain:.1f})"
    elif excess > options.largest_residual:
        reason = f"patches disagree with the model by {excess:.2f} px rms"
    if not reason:
        tracks, model = fits.solution.displacements + step, fits.solution.parameters.model
        by_frame = None if basis.is_polynomial else basis.by_frame(model, options.n_frames)
        coefficients = basis.coefficients(model) if by_frame is None else nearest_polynomial(by_frame)
        patches = (centres, tracks.numpy(), residual, fits.gain, "")
        return LocalFit(times, fits.solution.parameters.frames, coefficients, *patches, *of_all, by_frame)
    still = Parameters.zero(step.shape[1], 0)
    step, _ = _patch_steps(fits.without.derivatives(still))
    patches = (centres, step.numpy(), residual, fits.gain, reason)
    return LocalFit(times, still.frames, None, *patches, *of_all)


def _patch_steps(at: Derivatives) -> tuple[Float[Tensor, "p f 2"], Float[Tensor, "p f"]]:
    """Newton step of every single patch and frame (p, f, 2) and its standard error (p, f).

    The curvature is averaged over frames of a patch: that of one frame is as noisy as its peak. Where a patch
    says nothing the step is cut.
    """
    curvature = -at.hessian.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(curvature)
    values = values.clamp(min=1e-3 * float(values.abs().max()))
    inverse = (vectors / values[..., None, :]) @ vectors.transpose(-1, -2)
    step = (inverse @ at.gradient[..., None])[..., 0]
    covariance = inverse @ at.noise @ inverse
    step = step * (_LONGEST_PATCH_STEP / step.norm(dim=-1, keepdim=True).clamp(min=_LONGEST_PATCH_STEP))
    return step, covariance.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=0.0).sqrt()
