"""What the adaptive prior does to poses, maps and FSC, beside the classic one, where the truth is known.

    python benchmarks/regularisation.py [--cases moving noise] [--seeds 1 2] [--draw-only]

A D2 molecule of random blobs: a core and four outer domains. Cases: `rigid`; `moving` (each domain of each particle
is displaced by a Gaussian of 6 A an axis); `occupancy` (each domain is there in half of the particles); `cut` (rigid,
but the signal ends at shell 10: what lies beyond is noise alone, and the FSC has to be zero there); `noise` (no
particle at all). Refined from the truth at 20 A with the classic prior and the adaptive one, each without a mask and in
one drawn from the truth with `--solvent_correct_fsc`, the best mask that there can be. Symmetry and
start fix the frame, so that maps and poses are compared with the truth as they stand.
Writes benchmarks/results/regularisation.json after every run (and goes on after those that are there), and
docs/regularisation.png at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import frequency_grid, lowpass, to_fourier, to_real
from vitreous.core.fsc import fsc, resolution_shell
from vitreous.core.masks import soft_sphere
from vitreous.core.rotations import random_rotations
from vitreous.core.symmetry import symmetric_distance, symmetry_matrices
from vitreous.data.images import ArraySource
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.maps.half_map_fsc import half_map_fsc
from vitreous.methods.refinement.adaptive_prior import AdaptivePrior
from vitreous.methods.refinement.auto_refine import auto_refine
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions, split_halves
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet, Poses

BOX, PIXEL, SYMMETRY = 48, 3.0, "D2"
N, SNR, ITERATIONS = 1200, 0.08, 9
START = 20.0  # A: low-pass of the first reference
SPREAD = 2.0  # pixels, of moving domains
CUT_SHELL = 10
CASES = ("rigid", "moving", "occupancy", "cut", "noise")
PRIORS = ("classic", "adaptive", "classic, mask", "adaptive, mask")
HERE = Path(__file__).parent
SHAPE = (BOX,) * 3


@dataclass(frozen=True)
class Scene:
    """Particles, their true poses, and the map they are of on average (in units of the noise)."""

    particles: ParticleSet
    rotations: torch.Tensor
    truth: torch.Tensor


def blobs(centres: torch.Tensor, width: float = 0.9) -> torch.Tensor:
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    x, y, z = (torch.exp(-((axis - centres[:, i, None]) ** 2) / (2 * width**2)) for i in range(3))
    return torch.einsum("az,ay,ax->zyx", z, y, x)


def random_ball(n: int, centre: tuple[float, float, float], radius: float, generator: torch.Generator) -> torch.Tensor:
    points = (torch.rand(8 * n, 3, generator=generator, dtype=torch.float64) * 2 - 1) * radius
    return points[points.norm(dim=1) < radius][:n] + torch.tensor(centre, dtype=torch.float64)


def simulate(case: str, seed: int) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    operators = symmetry_matrices(SYMMETRY).to(torch.float64)
    core = blobs((random_ball(80, (0, 0, 0), 10.0, generator)[:, None, None] @ operators).reshape(-1, 3))
    one = random_ball(40, (1.0, 7.0, 11.0), 4.5, generator)
    domains = [blobs(one @ operator) for operator in operators]
    rotations = random_rotations(N, generator)
    origins = (torch.rand(N, 2, generator=generator, dtype=torch.float64) - 0.5) * 4
    u = 8000 + 12000 * torch.rand(N, generator=generator, dtype=torch.float64)
    defocus = Defocus(u, u - 300, torch.full_like(u, 20.0), torch.zeros_like(u))
    microscopes = (Microscope(300.0, 2.7, 0.1),)
    blank = ParticleSet(ArraySource(torch.zeros(N, BOX, BOX), PIXEL), np.zeros(N, np.int64), microscopes, defocus)
    coefficients = Coefficients.within(BOX, BOX // 2)
    packed = project(prepare_volume(core.float()), rotations, coefficients.coordinates)
    truth = core
    for domain in domains:
        slices = project(prepare_volume(domain.float()), rotations, coefficients.coordinates)
        if case == "moving":
            away = SPREAD * torch.randn(N, 3, generator=generator, dtype=torch.float64)
            slices = slices * coefficients.shift_phases(torch.einsum("nij,nj->ni", rotations[:, :2], away).flip(-1))
            squares = sum(k.square() for k in frequency_grid(SHAPE))
            blur = torch.exp(-2 * torch.pi**2 * SPREAD**2 * squares)
            domain = to_real(to_fourier(domain, 3) * blur, SHAPE, 3)
        elif case == "occupancy":
            slices = slices * (torch.rand(N, generator=generator) < 0.5)[:, None]
            domain = 0.5 * domain
        packed, truth = packed + slices, truth + domain
    packed = packed * blank.ctf(np.arange(N), coefficients) * coefficients.shift_phases(-origins)
    images = to_real(coefficients.scatter(packed), (BOX, BOX)).float()
    noise = float(images.std()) / SNR**0.5
    if case == "cut":
        packed = packed * (coefficients.shells <= CUT_SHELL)
        images = to_real(coefficients.scatter(packed), (BOX, BOX)).float()
    images = images * (case != "noise") + noise * torch.randn(images.shape, generator=generator)
    return Scene(replace(blank, images=ArraySource(images / noise, PIXEL)), rotations, truth / noise)


def mask_of(truth: torch.Tensor) -> torch.Tensor:
    """Where the truth at 15 A is, and a soft edge around it."""
    smooth = lowpass(SHAPE, PIXEL, 15.0)
    inside = to_real(to_fourier(truth, 3) * smooth, SHAPE, 3)
    inside = (inside > 0.05 * inside.max()).to(torch.float64)
    return to_real(to_fourier(inside, 3) * smooth, SHAPE, 3).clamp(0.0, 1.0).float()


def options(prior: str, mask: torch.Tensor) -> AutoRefineOptions:
    plain = AutoRefineOptions(
        SYMMETRY, 0.85 * BOX * PIXEL, ini_high=START, absolute_grey=True, local_order=3, max_iterations=ITERATIONS
    )
    if prior.startswith("adaptive"):
        plain = replace(plain, regularise=AdaptivePrior())
    if prior.endswith("mask"):
        plain = replace(plain, mask=mask, half_map_fsc=lambda a, b: half_map_fsc(a, b, PIXEL, mask).corrected)
    return plain


def run(case: str, prior: str, seed: int) -> dict[str, Any]:
    scene, started = simulate(case, seed), time.process_time()
    mask = mask_of(scene.truth)
    halves = split_halves(N, seed)
    states = list(auto_refine(scene.particles, Poses.unknown(N), halves, scene.truth.float(), options(prior, mask)))
    last, truth = states[-1], scene.truth.float()
    distance = symmetric_distance(torch.from_numpy(last.poses.rotations), scene.rotations, SYMMETRY)
    one, two = last.half_maps
    first, second = fsc(one, truth), fsc(two, truth)
    sphere = soft_sphere(BOX, 19.0, ndim=3)
    masked = fsc((one + two) * mask, truth * mask)
    return {
        "case": case,
        "prior": prior,
        "seed": seed,
        "cpu_s": round(time.process_time() - started, 1),
        "iterations": last.iteration,
        "pose_median_deg": round(float(distance.median()), 3),
        "poses_within_10_deg": round(float((distance < 10).double().mean()), 4),
        "shell_fsc143": last.shell,
        "shell_truth_fsc50": resolution_shell(masked, 0.5),
        "map_error": round(
            float(((last.density - truth) * sphere).square().sum() / (truth * sphere).square().sum()), 4
        ),
        "half_map_fsc": fsc(one, two).numpy().round(4).tolist(),
        "expected_fsc": (first * second).numpy().round(4).tolist(),
        "truth_fsc_masked": masked.numpy().round(4).tolist(),
        "reference_slice": last.halves[0].density[:, :, BOX // 2 + 1].numpy().round(5).tolist(),
    }


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """FSC with the truth; what the half-maps promise beyond it; the references' middle slices."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    axes = figure.subplots(2, 4)
    colours = dict(zip(PRIORS, ("#888888", "#c2410c", "#1d4ed8", "#15803d"), strict=True))
    frequencies = np.arange(BOX // 2 + 1) / (BOX * PIXEL)
    for axis, case in zip(axes[0], ("rigid", "moving", "occupancy"), strict=False):
        for prior in PRIORS:
            for curve in _curves(results, case, prior, "truth_fsc_masked"):
                axis.plot(frequencies, curve, color=colours[prior], lw=1.3)
            axis.plot([], [], color=colours[prior], label=prior)
        axis.set(title=f"{case}: FSC with the truth", xlabel="1/A", ylabel="FSC", ylim=(-0.05, 1.02))
        axis.axhline(0.5, color="black", lw=0.5)
    axes[0, 0].legend(frameon=False)
    for axis, case in ((axes[0, 3], "cut"), (axes[1, 3], "noise")):
        for prior in PRIORS[:2]:
            for curve in _curves(results, case, prior, "half_map_fsc"):
                axis.plot(frequencies, curve, color=colours[prior], lw=1.3)
        axis.set(title=f"{case}: FSC of the half-maps", xlabel="1/A", ylim=(-0.15, 1.02))
        axis.axvline(CUT_SHELL / (BOX * PIXEL) if case == "cut" else 1 / START, color="black", lw=0.5)
        axis.axhline(0.0, color="black", lw=0.5)
    axis = axes[1, 0]
    for prior in PRIORS[:2]:
        for case in ("rigid", "moving", "occupancy"):
            found, expected = (_curves(results, case, prior, name) for name in ("half_map_fsc", "expected_fsc"))
            for difference in np.subtract(found, expected):
                axis.plot(frequencies, difference, color=colours[prior], lw=0.9)
    axis.set(title="half-map FSC less that due to truth", xlabel="1/A", ylim=(-0.2, 0.2))
    axis.axhline(0.0, color="black", lw=0.5)
    for axis, prior in zip(axes[1, 1:3], PRIORS, strict=False):
        slices = [one["reference_slice"] for one in results if (one["case"], one["prior"]) == ("moving", prior)]
        if slices:
            axis.imshow(slices[0], cmap="gray", vmin=-0.2 * np.max(slices[0]), vmax=0.4 * np.max(slices[0]))
        axis.set(title=f"moving: {prior} reference", xticks=[], yticks=[])
    figure.savefig(path, dpi=80)


def _curves(results: list[dict[str, Any]], case: str, prior: str, name: str) -> list[list[float]]:
    return [one[name] for one in results if (one["case"], one["prior"]) == (case, prior)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=CASES, choices=CASES)
    parser.add_argument("--priors", nargs="*", default=PRIORS, choices=PRIORS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--draw-only", action="store_true")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "regularisation.json")
    parser.add_argument("--figure", type=Path, default=HERE.parent / "docs" / "regularisation.png")
    args = parser.parse_args()
    results = json.loads(args.results.read_text()) if args.results.exists() else []
    args.results.parent.mkdir(parents=True, exist_ok=True)
    wanted = [(case, prior, seed) for seed in args.seeds for case in args.cases for prior in args.priors]
    done = {(one["case"], one["prior"], one["seed"]) for one in results}
    for case, prior, seed in [] if args.draw_only else [one for one in wanted if one not in done]:
        results.append(run(case, prior, seed))
        args.results.write_text(json.dumps(results))
        print({name: value for name, value in results[-1].items() if not isinstance(value, list)}, flush=True)
    draw(results, args.figure)


if __name__ == "__main__":
    main()
