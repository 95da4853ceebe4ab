"""Where a job reads its particles from makes no difference to what it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vitreous.io.mrc import read_image

COMMAND = [sys.executable, "-m", "vitreous"]
CLASSES = ["class2d", "--i", "Simulate/particles.star", "--K", "2", "--psi-step", "30", "--iter", "1", "--j", "1"]


def run(project: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run([*COMMAND, *words], cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reading")
    run(place, "simulate-particles", "--n", "30", "--box", "32", "--pixel-size", "6", "--o", "Simulate")
    run(place, *CLASSES, "--o", "Class2D/plain")
    return place


def classes(project: Path, name: str) -> np.ndarray:
    return np.asarray(read_image(project / f"Class2D/{name}/run_it001_classes.mrcs")[0])


def test_the_same_from_scratch_and_it_is_clean_afterwards(project: Path, tmp_path: Path) -> None:
    words = ["--scratch_dir", str(tmp_path), "--keep_free_scratch", "0"]
    said = run(project, *CLASSES, *words, "--o", "Class2D/scratch")
    assert "copied 30 images" in said
    np.testing.assert_array_equal(classes(project, "scratch"), classes(project, "plain"))
    assert not list((tmp_path / f"vitreous_{os.getuid()}").iterdir())
    metrics = json.loads((project / "Class2D/scratch/metrics.json").read_text())["metrics"]
    assert metrics["scratch_copy_seconds"] > 0


def test_a_kept_copy_is_used_again_until_the_stack_changes(project: Path, tmp_path: Path) -> None:
    words = ["--scratch_dir", str(tmp_path), "--keep_free_scratch", "0", "--keep_scratch"]
    run(project, *CLASSES, *words, "--o", "Class2D/kept")
    assert "copied" not in run(project, *CLASSES, *words, "--reuse_scratch", "--o", "Class2D/again")
    next((project / "Simulate").rglob("*.mrcs")).touch()
    said = run(project, *CLASSES, *words, "--reuse_scratch", "--o", "Class2D/stale", code=2)
    assert "is stale" in said
    assert "was changed on" in said


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["1", "2"])
@pytest.mark.parametrize("option", ["--preread_images", "--no_parallel_disc_io"])
def test_the_same_from_memory(project: Path, option: str, ranks: str) -> None:
    name = f"memory{option}{ranks}"
    run(project, *CLASSES, option, "--ranks", ranks, "--o", f"Class2D/{name}")
    np.testing.assert_allclose(classes(project, name), classes(project, "plain"), atol=2e-5)


def test_memory_and_scratch_exclude_each_other(project: Path, tmp_path: Path) -> None:
    words = ["--scratch_dir", str(tmp_path), "--preread_images"]
    assert "--preread-images" in run(project, *CLASSES, *words, "--o", "Class2D/both", code=2)


@pytest.mark.slow
def test_two_ranks_share_a_copy(project: Path, tmp_path: Path) -> None:
    words = ["--scratch_dir", str(tmp_path), "--keep_free_scratch", "0", "--keep_scratch", "--ranks", "2"]
    run(project, *CLASSES, *words, "--o", "Class2D/shared")
    assert len(list((tmp_path / f"vitreous_{os.getuid()}").iterdir())) == 1
    np.testing.assert_allclose(classes(project, "shared"), classes(project, "plain"), atol=2e-5)
