"""Deposited models down the whole road, no reference given: real apoferritin (O) and the 30S subunit (C1)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.data]


def demo(project: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "vitreous", "--quiet", "demo", str(project), *options]
    subprocess.run(command, check=True, timeout=3600)
    return dict(json.loads((project / "summary.json").read_text()))


def test_apoferritin(tmp_path: Path, data_dir: Path) -> None:
    model = data_dir / "models" / "6z6u_apoferritin.pdb.gz"
    summary = demo(tmp_path / "apo", "--model", str(model), "--sym", "O", "--n-movies", "6")
    assert summary["pick_recall"] >= 0.9
    assert summary["pick_precision"] >= 0.9
    assert summary["motion_rms_error_px"] <= 0.5
    assert summary["defocus_rms_error_A"] <= 100
    assert summary["truth_fsc05_resolution_A"] < 5
    assert summary["fsc143_resolution_A"] == pytest.approx(summary["truth_fsc05_resolution_A"], rel=0.15)


def test_an_asymmetric_particle_from_nothing(tmp_path: Path, data_dir: Path) -> None:
    model = data_dir / "models" / "1xnr_30S_subunit.cif.gz"
    # Without symmetry it is the number of particles that limits: 380 of them stopped at 17 A.
    options = ["--model", str(model), "--sym", "C1", "--n-movies", "14", "--size", "2048", "--particles", "170"]
    summary = demo(tmp_path / "30S", *options, "--pixel-size", "2.4", "--pixel-size-3d", "4.8")
    assert summary["pick_recall"] >= 0.9
    assert summary["truth_fsc05_resolution_A"] < 12
