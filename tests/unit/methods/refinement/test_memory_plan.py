"""The plan is no less than what a whole run takes, and not so much more that it would refuse what fits."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions
from vitreous.methods.refinement.memory_plan import plan_auto_refine

_RUN = """
import json, sys
import numpy as np, psutil, torch
from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.masks import soft_sphere
from vitreous.data.images import ArraySource
from vitreous.methods.maps.half_map_fsc import half_map_fsc
from vitreous.methods.refinement.adaptive_prior import AdaptivePrior
from vitreous.methods.refinement.auto_refine import auto_refine
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions, split_halves
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.regularise import classic
from vitreous.runtime.memory import peak_rss, reset_peak_rss

def refine(box, padding, prior, corrected, n=16):
    g = torch.Generator().manual_seed(1)
    angles = torch.full((n,), 1e4)
    defocus = Defocus(angles, angles, 0 * angles, 0 * angles)
    images = ArraySource(torch.randn(n, box, box, generator=g), 3.0)
    particles = ParticleSet(images, np.zeros(n, np.int64), (Microscope(300.0, 2.7, 0.1),), defocus)
    mask = soft_sphere(box, box / 3, ndim=3)
    options = AutoRefineOptions("O", 2.7 * box, healpix_order=1, offset_range=1.0, offset_step=1.0, padding=padding,
        max_iterations=2, memory=1 << 26, regularise=AdaptivePrior() if prior == "adaptive" else classic,
        **({"half_map_fsc": lambda a, b: half_map_fsc(a, b, 3.0, mask).corrected} if corrected else {}))
    for state in auto_refine(particles, Poses.unknown(n), split_halves(n, 1), mask, options):
        pass

box, padding, prior, corrected = json.loads(sys.argv[1])
before = psutil.Process().memory_info().rss
reset_peak_rss()
refine(box, padding, prior, corrected)
print(peak_rss() - before)
"""


def measured(box, padding, prior, corrected):
    """Growth of a fresh process over a refinement of two iterations, the second the final one."""
    command = [sys.executable, "-c", _RUN, json.dumps([box, padding, prior, corrected])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak can be reset on Linux alone")
@pytest.mark.parametrize(
    ("box", "padding", "prior", "corrected"),
    [(96, 2, "classic", False), (96, 2, "adaptive", False), (128, 1, "adaptive", True)],
)
def test_plan_bounds_the_peak_of_a_run(box, padding, prior, corrected):
    options = AutoRefineOptions("O", 2.7 * box, healpix_order=1, local_order=2, padding=padding, memory=1 << 26)
    plan = plan_auto_refine(box, 3.0, 16, options, prior, corrected_fsc=corrected)
    peak = measured(box, padding, prior, corrected)
    assert peak <= plan.peak <= 2.0 * peak + (400 << 20)


def test_plan_grows_as_the_box_cubed_and_with_padding():
    options = AutoRefineOptions("C1", 200.0)

    def peak(box, padding=2, prior="classic"):
        how = AutoRefineOptions("C1", 200.0, padding=padding)
        return plan_auto_refine(box, 1.0, 1000, how, prior, corrected_fsc=False).peak

    assert peak(1024) / peak(512) == pytest.approx(8.0, rel=0.05)
    assert peak(512, 1) < 0.4 * peak(512, 2)
    assert peak(256, 1, "adaptive") > peak(256, 1)
    assert plan_auto_refine(256, 1.0, 1000, options, "classic", corrected_fsc=False).on_device < peak(256)


def test_sentence_names_the_parts():
    plan = plan_auto_refine(64, 1.0, 10, AutoRefineOptions("D2", 50.0), "classic", corrected_fsc=False)
    for word in ("final iteration", "box 64", "padding 2", "sums", "references", "batches", "maps"):
        assert word in plan.sentence()
    assert "\n" not in plan.sentence()
