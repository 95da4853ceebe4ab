"""Local motion: patches of the field fitted together by RELION's polynomial in space and time.

Zheng et al. (2017) Nat. Methods 14, 331; Zivanov, Nakane and Scheres (2019) IUCrJ 6, 5. MotionCor2 and RELION
fit the polynomial to the peak of every patch and frame. At 1 or 2 e/A^2 a frame many of those peaks are noise;
here the polynomial is fitted to the correlations themselves (see trajectories), and peaks are found only
afterwards, to show how well it describes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.motion import space_basis, time_basis
from vitreous.methods.motion.frames import inverse_real
from vitreous.methods.motion.global_alignment import FIT_SHARPNESS
from vitreous.methods.motion.spectra import Band, phases
from vitreous.methods.motion.trajectories import Fit, Parameters, Prior, Problem, fit, likelihood_scale

# Broad to narrow: a heavy low-pass first, whose peaks are wide enough to lead in from several pixels away.
_SHARPNESS = (4.0, 1.5, FIT_SHARPNESS)
_OVERLAP = 1.25  # patches reach this much beyond their cell; the soft edge takes it back
_EDGE = 0.25  # fraction of a patch that is soft edge
N_SPACE, N_TIME = 6, 3


@dataclass(frozen=True)
class LocalOptions:
    """patches: (across x, across y). b_factor px^2, tolerance px.

    significance: the model is kept if it raises the log-likelihood by more than chance, in standard deviations.
    largest_residual: rms (px) of the patches' own displacements about the model beyond which it is not believed,
    over and above what their noise explains.
    """

    patches: tuple[int, int] = (5, 5)
    b_factor: float = 150.0
    iterations: int = 8
    tolerance: float = 0.02
    significance: float = 4.0
    largest_residual: float = 1.5
    prior: Prior = field(default_factory=Prior)


@dataclass(frozen=True)
class LocalFit:
    """frames: (f, 2) displacement beside the global one; coefficients: (2, 18) displacement model or None.

    centres (p, 2) as (x, y) movie pixels; patch_displacements (p, f, 2) beside the global one; residual: rms
    (px) of these about the model; gain: log-likelihood ratio of model against none; reason: why there is no
    model ("" if there is).
    """

    frames: Float[Tensor, "f 2"]
    coefficients: NDArray[np.float64] | None
    centres: NDArray[np.float64]
    patch_displacements: NDArray[np.float64]
    residual: float
    gain: float
    reason: str


def automatic_patches(shape: tuple[int, int], smallest: int = 160) -> tuple[int, int]:
    """(across x, across y): 5 by 5, fewer where patches would be under `smallest` pixels, 1 below three."""
    nx, ny = (min(5, size // smallest) for size in (shape[1], shape[0]))
    return (nx, ny) if min(nx, ny) >= 3 else (1, 1)


def align_patches(
    frames_ft: Complex[Tensor, "f height half"],
    band: Band,
    displacements: Float[Tensor, "f 2"],
    times: Float[Tensor, "f"],
    options: LocalOptions,
) -> LocalFit:
    """Fit the local model to frames (cropped transforms) whose global displacements are known.

    times: frame index (from 0) of each frame or centre of a group.
    """
    patches_ft, patch_band, centres = cut_patches(frames_ft, band, displacements, options.patches)
    basis, units = _basis(centres, times, band.shape)
    n_patches, n_frames = patches_ft.shape[:2]
    none = Problem(patches_ft, Tensor(), patch_band, torch.zeros(n_patches, n_frames, 0, dtype=torch.float64))
    model = Problem(patches_ft, Tensor(), patch_band, basis)
    without = _anneal(none, Parameters.zero(n_frames, 0), options, _SHARPNESS[-1:])
    with_model = _anneal(model, Parameters.zero(n_frames, basis.shape[2]), options, _SHARPNESS)
    return _judge(model, with_model, without, (centres, units, times), options)


def cut_patches(
    frames_ft: Complex[Tensor, "f height half"],
    band: Band,
    displacements: Float[Tensor, "f 2"],
    patches: tuple[int, int],
) -> tuple[Complex[Tensor, "p f height half"], Band, NDArray[np.float64]]:
    """Transforms of soft-edged patches of globally aligned frames, their band, and centres (p, 2) as (x, y)."""
    (ny, nx), device = band.cropped, frames_ft.device
    sizes = [min(full, 2 * math.ceil(_OVERLAP * full / n / 2)) for full, n in ((ny, patches[1]), (nx, patches[0]))]
    starts = [
        np.round(np.linspace(0, full - size, n)).astype(int)
        for full, size, n in ((ny, sizes[0], patches[1]), (nx, sizes[1], patches[0]))
    ]
    window = (_taper(sizes[0])[:, None] * _taper(sizes[1])).to(device)
    corners = [(y, x) for y in starts[0] for x in starts[1]]
    shape = (len(corners), len(frames_ft), sizes[0], sizes[1] // 2 + 1)
    out = torch.empty(shape, dtype=torch.complex64, device=device)
    for f, ft in enumerate(frames_ft):
        row, column = phases(band, displacements[f], device)
        image = inverse_real(ft * row * column, band.cropped)
        cut = torch.stack([image[y : y + sizes[0], x : x + sizes[1]] for y, x in corners])
        cut = (cut - cut.mean(dim=(1, 2), keepdim=True)) * window
        out[:, f] = torch.fft.rfft2(cut)
    scale = [full / c for full, c in zip(band.shape, band.cropped, strict=True)]
    centres = np.array([((x + sizes[1] / 2) * scale[1], (y + sizes[0] / 2) * scale[0]) for y, x in corners])
    extent = (round(sizes[0] * scale[0]), round(sizes[1] * scale[1]))
    return out, Band(extent, (sizes[0], sizes[1])), centres


def _taper(size: int) -> Float[Tensor, "size"]:
    """Raised-cosine edges of a window."""
    distance = (torch.minimum(torch.arange(size), size - 1 - torch.arange(size)) + 0.5) / (_EDGE * size)
    return 0.5 - 0.5 * torch.cos(torch.pi * distance.clamp(max=1.0)).to(torch.float32)


def _basis(
    centres: NDArray[np.float64], times: Float[Tensor, "f"], shape: tuple[int, int]
) -> tuple[Float[Tensor, "p f m"], NDArray[np.float64]]:
    """Orthonormal basis of local motion over patches and frames, and the matrix (18, m) to RELION's coefficients.

    Terms that are the same over the whole field are left to the frames' own shifts. Each vector has unit mean
    square, so that the prior weighs all alike.
    """
    space = space_basis(centres[:, 0], centres[:, 1], shape)
    time = time_basis(times.numpy())
    full = np.einsum("ps,ft->pfst", space, time).reshape(len(space) * len(time), N_SPACE * N_TIME)
    local = full[:, N_TIME:]
    scale = np.sqrt((local**2).mean(0)) + 1e-30
    # Differences over the field: what all patches share is not local motion.
    centred = (local / scale).reshape(len(space), len(time), -1)
    centred = (centred - centred.mean(0)).reshape(local.shape)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    kept = singular > 1e-6 * singular.max()
    to_unit = (right[kept].T / singular[kept]) * math.sqrt(len(local))
    units = np.zeros((N_SPACE * N_TIME, int(kept.sum())))
    units[N_TIME:] = to_unit / scale[:, None]
    basis = (full @ units).reshape(len(space), len(time), -1)
    return torch.from_numpy(basis), units


def _anneal(problem: Problem, start: Parameters, options: LocalOptions, sharpness: tuple[float, ...]) -> Fit:
    parameters = start
    result: Fit | None = None
    for value in sharpness:
        weighted = Problem(
            problem.frames_ft, problem.band.weights(options.b_factor, value), problem.band, problem.basis
        )
        result = fit(weighted, parameters, options.prior, iterations=options.iterations, tolerance=options.tolerance)
        parameters = result.parameters
    assert result is not None
    return result


def _judge(
    problem: Problem,
    with_model: Fit,
    without: Fit,
    geometry: tuple[NDArray[np.float64], NDArray[np.float64], Float[Tensor, "f"]],
    options: LocalOptions,
) -> LocalFit:
    """Keep the model if it says more than chance, and the patches agree with it."""
    centres, units, _ = geometry
    weights = problem.band.weights(options.b_factor, FIT_SHARPNESS)
    final = Problem(problem.frames_ft, weights, problem.band, problem.basis)
    at_model = final.derivatives(with_model.parameters)
    plain = Problem(problem.frames_ft, weights, problem.band, problem.basis[..., :0])
    at_none = plain.derivatives(without.parameters)
    gain = likelihood_scale(at_model) * 0.5 * float(at_model.value.sum() - at_none.value.sum())
    n_parameters = 2 * problem.basis.shape[2]
    chance = 0.5 * (n_parameters + options.significance * math.sqrt(2.0 * n_parameters))
    step, error = _patch_steps(at_model.gradient, at_model.hessian, at_model.noise)
    residual = float(step.square().sum(-1).mean().sqrt())
    excess = math.sqrt(max(residual**2 - float(error.square().mean()), 0.0))
    reason = ""
    if gain < chance:
        reason = f"no significant local motion (log-likelihood gain {gain:.0f}, chance gives up to {chance:.0f})"
    elif excess > options.largest_residual:
        reason = f"patches disagree with the model by {excess:.2f} px rms"
    chosen = with_model if not reason else without
    smooth = final.displacements(with_model.parameters) if not reason else plain.displacements(without.parameters)
    coefficients = (units @ with_model.parameters.model.numpy()).T if not reason else None
    return LocalFit(chosen.parameters.frames, coefficients, centres, (smooth + step).numpy(), residual, gain, reason)


def _patch_steps(gradient: Tensor, hessian: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Newton step of every single patch and frame (p, f, 2) and its standard error (p, f).

    The curvature is averaged over frames of a patch: that of one frame is as noisy as its peak.
    """
    curvature = -hessian.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(curvature)
    values = values.clamp(min=1e-3 * float(values.abs().max()))
    inverse = (vectors / values[..., None, :]) @ vectors.transpose(-1, -2)
    step = (inverse @ gradient[..., None])[..., 0]
    covariance = inverse @ noise @ inverse
    return step, covariance.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=0.0).sqrt()
