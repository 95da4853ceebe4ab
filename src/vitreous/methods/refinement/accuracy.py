"""How accurately angles and offsets can be told apart, and how large the reference's grey values should be."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.rotations import axis_angle_to_matrix, random_rotations
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel, prepare
from vitreous.methods.refinement.references import References
from vitreous.methods.refinement.sampling import Sampling

# ln(100): two poses are told apart when one is a hundred times likelier than the other (Scheres 2012, section 2.6).
_EVIDENCE = math.log(100.0)
_ANGLES = torch.tensor([30.0 * 0.75**i for i in range(24)], dtype=torch.float64)  # 30 to 0.04 degrees
_OFFSETS = torch.tensor([10.0 * 0.75**i for i in range(20)], dtype=torch.float64)  # 10 to 0.04 pixels
# Memory for the trials at a time; what one takes for each coefficient: slices and their changes, or phases in float64.
TRIAL_BYTES = 1 << 28
_BYTES_A_TRIAL = 24 * (len(_ANGLES) + 1) + 40 * len(_OFFSETS)


def accuracies(
    particles: ParticleSet,
    indices: NDArray[np.int64],
    poses: Poses,
    references: References,
    noise: NoiseModel,
    max_shell: int,
    generator: torch.Generator,
    *,
    n_trials: int = 100,
) -> tuple[float, float]:
    """Mean angle (degrees) and offset (pixels) that change the expected log-likelihood by ln(100).

    Tried on random particles of `indices`, about random axes; a particle that no change of 30 degrees (10 pixels)
    tells apart counts as that.
    """
    chosen = indices[torch.randperm(len(indices), generator=generator)[:n_trials].numpy()]
    coefficients = Coefficients.within(particles.box, max_shell)
    weight = particles.ctf(chosen, coefficients).square()
    sigma2 = coefficients.spread(noise.sigma2[torch.from_numpy(particles.optics_group[chosen])]).to(torch.float32)
    weight = (weight / sigma2) * (coefficients.shells > 0)
    n, poses_now = len(chosen), torch.from_numpy(poses.rotations[chosen])
    axes = random_rotations(n, generator)[:, 0]
    turns = axis_angle_to_matrix(axes[:, None].expand(n, len(_ANGLES), 3), _ANGLES.expand(n, -1))
    tried = torch.cat([poses_now[:, None], turns @ poses_now[:, None]], 1)  # (n, 1 + angles, 3, 3)
    heading = 2.0 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    shifts = _OFFSETS[:, None] * torch.stack([heading.sin(), heading.cos()], -1)[:, None]  # (n, offsets, 2)
    angle_evidence, offset_evidence = [], []
    for some in torch.arange(n).split(max(1, TRIAL_BYTES // (_BYTES_A_TRIAL * len(coefficients)))):
        slices = references.slices(0, tried[some].reshape(-1, 3, 3), coefficients.coordinates).cpu()
        slices = slices.reshape(len(some), -1, len(coefficients))
        changed = _power(slices[:, 1:] - slices[:, :1])
        angle_evidence.append(0.5 * torch.einsum("nam,nm->na", changed, weight[some]))
        moved = _power(coefficients.shift_phases(shifts[some]) - 1.0)
        offset_evidence.append(0.5 * torch.einsum("nam,nm->na", moved, _power(slices[:, 0]) * weight[some]))
    angles = [_crossing(_ANGLES, evidence) for evidence in torch.cat(angle_evidence).to(torch.float64)]
    offsets = [_crossing(_OFFSETS, evidence) for evidence in torch.cat(offset_evidence).to(torch.float64)]
    return float(np.mean(angles)), float(np.mean(offsets))


def _power(values: Tensor) -> Tensor:
    return torch.view_as_real(values).square().sum(-1)


def _crossing(sizes: Tensor, evidence: Tensor) -> float:
    """Smallest change whose evidence reaches the threshold: interpolated along the falling sizes, where ~ size^2."""
    enough = evidence >= _EVIDENCE
    if not bool(enough[0]):
        return float(sizes[0])
    last = int((~enough).to(torch.int8).argmax()) - 1 if bool((~enough).any()) else len(sizes) - 1
    if last == len(sizes) - 1:
        return float(sizes[-1])
    low, high = math.sqrt(float(evidence[last + 1])), math.sqrt(float(evidence[last]))
    share = (math.sqrt(_EVIDENCE) - low) / max(high - low, 1e-12)
    return float(sizes[last + 1] + share * (sizes[last] - sizes[last + 1]))


def grey_scale(
    particles: ParticleSet,
    indices: NDArray[np.int64],
    poses: Poses,
    references: References,
    noise: NoiseModel,
    sampling: Sampling,
    max_shell: int,
    mask_radius: float,
    generator: torch.Generator,
    *,
    n_images: int = 200,
) -> float:
    """Factor that brings a reference of unknown grey values to those of the images.

    Each of a few particles is laid on the reference where the two correlate best, on the coarse grid, and its best
    factor taken there by least squares; the median over the particles. It stands in for a first iteration by
    cross-correlation.
    """
    chosen = np.sort(indices[torch.randperm(len(indices), generator=generator)[:n_images].numpy()])
    coefficients = Coefficients.within(particles.box, max_shell)
    phases = coefficients.shift_phases(sampling.shifts)
    slices = references.slices(0, sampling.rotations, coefficients.coordinates).cpu()
    rows = torch.view_as_real(slices).flatten(1).T.contiguous()
    power = slices.abs().square().T.contiguous()
    factors = []
    for part in np.array_split(chosen, max(1, len(chosen) // 10)):
        images = prepare(particles, part, poses, noise, coefficients, mask_radius, torch.device("cpu")).masked
        shifted = images.data[:, None] * phases
        cross = torch.view_as_real(shifted.contiguous()).flatten(2) @ rows  # (n, shifts, rotations)
        norm = 2.0 * images.half_power @ power  # (n, rotations)
        score = cross.clamp(min=0.0).square() / norm[:, None].clamp(min=1e-30)
        best = score.flatten(1).argmax(1)
        top = cross.flatten(1).gather(1, best[:, None])[:, 0]
        factors.append(top / norm.gather(1, (best % norm.shape[1])[:, None])[:, 0].clamp(min=1e-30))
    factor = float(torch.cat(factors).median())
    return factor if math.isfinite(factor) and factor > 0 else 1.0


def pose_changes(old: Poses, new: Poses, distance: Float[Tensor, "n"]) -> tuple[float, float]:
    """Mean angle (degrees) and rms offset along an axis (pixels) by which poses moved."""
    moved = np.square(new.origins - old.origins).sum(1)
    return float(distance.mean()), float(np.sqrt(moved.mean() / 2.0))
