"""Ours beside `relion_postprocess` and `relion_mask_create` on the same real half-maps."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.io.half_maps import read_half_maps, read_matching_mask
from vitreous.io.mrc import read_map, write_map
from vitreous.io.relion import read_table
from vitreous.job import Context
from vitreous.jobs.mask import Mask, MaskParameters
from vitreous.jobs.postprocess import Postprocess, PostprocessParameters

pytestmark = [
    pytest.mark.relion,
    pytest.mark.data,
    pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="relion is not installed"),
]


def context(project: Path, name: str) -> Context:
    directory = project / name
    directory.mkdir()
    return Context(project, directory, torch.device("cpu"), threads=1, seed=1, memory=1 << 31)


@pytest.fixture
def project(tmp_path: Path, data_dir: Path) -> Path:
    source = data_dir / "more" / "empiar10204" / "derived_halfmaps"
    for name in ("bgal_half1_class001_unfil.mrc", "bgal_half2_class001_unfil.mrc", "bgal_mask.mrc", "bgal_full.mrc"):
        (tmp_path / name).symlink_to(source / name)
    return tmp_path


def test_same_fsc_resolution_and_b_factor_as_relion(project: Path) -> None:
    half1 = "bgal_half1_class001_unfil.mrc"
    (project / "peer").mkdir()
    command = ["relion_postprocess", "--i", half1, "--mask", "bgal_mask.mrc", "--o", "peer/post", "--angpix", "3.54"]
    command += ["--auto_bfac", "--autob_lowres", "15", "--random_seed", "1", "--low_pass", "-1"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)

    params = PostprocessParameters(input=half1, mask="bgal_mask.mrc", pixel_size=3.54, fit_lowres=15.0)
    Postprocess().run(params, context(project, "ours"))

    ours, peer = (read_table(project / star, "general").row(0) for star in ("ours/postprocess.star", "peer/post.star"))
    assert ours["final_resolution"] == pytest.approx(peer["final_resolution"], abs=1e-3)
    assert ours["randomise_from"] == pytest.approx(peer["randomise_from"], abs=1e-3)
    assert ours["b_factor_used"] == pytest.approx(peer["b_factor_used"], rel=0.05)
    a, b = (read_table(project / star, "fsc") for star in ("ours/postprocess.star", "peer/post.star"))
    # RELION counts each coefficient of the half transform once, we count the pairs (kx > 0) twice
    for name in ("fsc_unmasked", "fsc_masked"):
        np.testing.assert_allclose(a[name], b[name], atol=1e-2, err_msg=name)
    # the random phases differ, and with them the correction a little
    np.testing.assert_allclose(a["fsc_corrected"], b["fsc_corrected"], atol=0.05)
    first, second = (read_map(project / name).density.numpy() for name in ("ours/postprocess.mrc", "peer/post.mrc"))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.99


def test_same_mask_as_relion(project: Path) -> None:
    volume = read_map(project / "bgal_full.mrc")
    write_map(project / "map.mrc", volume)
    threshold = 0.4 * float(volume.density.max())
    command = ["relion_mask_create", "--i", "map.mrc", "--o", "peer.mrc", "--ini_threshold", f"{threshold:.6f}"]
    command += ["--extend_inimask", "2", "--width_soft_edge", "4", "--angpix", "3.54"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    params = MaskParameters(
        input="map.mrc", threshold=threshold, lowpass=0, extend=2, edge=4, pixel_size=3.54, keep_islands_above=0
    )
    Mask().run(params, context(project, "ours"))
    ours, peer = (read_map(project / name).density.numpy() for name in ("ours/mask.mrc", "peer.mrc"))
    assert np.abs(ours - peer).mean() < 0.01
    assert ((ours > 0.5) == (peer > 0.5)).mean() > 0.99


def test_half_maps_are_found_by_name(project: Path) -> None:
    first, second = read_half_maps(project / "bgal_half1_class001_unfil.mrc")
    assert first.box == second.box == 64
    assert not torch.equal(first.density, second.density)
    assert read_matching_mask(project / "bgal_mask.mrc", first).density.shape == first.density.shape
