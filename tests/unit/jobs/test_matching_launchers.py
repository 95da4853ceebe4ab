"""match-template over one to four ranks, started in three ways, with a rank killed on the way: always the same maps."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.leopard import MAP_NAMES
from vitreous.io.mrc import read_image, write_image, write_map
from vitreous.io.relion import write_dataset

EXACT = ("mip", "orientation_phi", "orientation_theta", "orientation_psi", "relative_defocus")
SEARCH = ("--psi-step=8", "--theta-step=12", "--defocus-range=200", "--stretch=600", "--micrographs=mics.star")
PLACES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, molecule: Any, lens: Any) -> Path:
    """One micrograph, as a STAR file and as Leopard-EM's YAML with a magnification matrix; and both searched alone."""
    place = tmp_path_factory.mktemp("launched")
    write_map(place / "template.mrc", Volume(molecule.volume().float(), lens.pixel_size))
    image = molecule.micrograph((100, 111), lens, [(50, 60, (40.0, 72.0, 90.0), 200.0)], snr=0.1)
    write_image(place / "a.mrc", image, lens.pixel_size)
    optics = {"optics_group": [1], "optics_group_name": ["o"], "voltage": [300.0], "cs": [2.7]}
    optics |= {"amplitude_contrast": [0.07], "micrograph_pixel_size": [lens.pixel_size]}
    rows = {"micrograph_name": ["a.mrc"], "optics_group": [1], "defocus_u": [6000.0], "defocus_v": [5800.0]}
    write_dataset(place / "mics.star", Dataset("micrographs", Table(optics), Table({**rows, "defocus_angle": [25.0]})))
    config = {
        "template_volume_path": "template.mrc", "micrograph_path": "a.mrc",
        "match_template_result": {"allow_file_overwrite": True},
        "optics_group": {
            "voltage": 300.0, "pixel_size": 2.0, "defocus_u": 6000.0, "defocus_v": 5800.0, "astigmatism_angle": 25.0,
            "mag_matrix": [1.05, 0.0, 0.0, 0.95],
        },
        "defocus_search_config": {"enabled": True, "defocus_min": -200.0, "defocus_max": 200.0, "defocus_step": 200.0},
        "orientation_search_config": {"psi_step": 30.0, "theta_step": 30.0},
    }  # fmt: skip
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    for name, words in (("alone", SEARCH), ("stretched", ("--leopard-yaml=config.yaml",))):
        assert start(place, name, *words).wait(timeout=300) == 0
    return place


def start(
    project: Path, name: str, *words: str, by: tuple[str, ...] = (), variables: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """The program; by: what stands between the interpreter and its module's name."""
    kept = {key: value for key, value in os.environ.items() if key not in PLACES and not key.startswith("SLURM_")}
    source = str(Path(__file__).resolve().parents[3] / "src")
    environment = {**kept, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": source, **(variables or {})}
    command = [sys.executable, *by, "-m", "vitreous", "match-template", "--cpu", "--threads=1", "--o", f"Match/{name}"]
    if not any(word.startswith("--leopard-yaml") for word in words):
        words = (*words, "--template=template.mrc")
    log = (project / f"{name}_{(variables or {}).get('SLURM_PROCID', '')}.log").open("w")
    return subprocess.Popen([*command, *words], cwd=project, env=environment, stdout=log, stderr=log, text=True)


def same_maps(project: Path, name: str, alone: str = "alone") -> None:
    for which in MAP_NAMES.values():
        one, other = (read_image(project / f"Match/{job}/a_{which}.mrc")[0] for job in (alone, name))
        if which in EXACT:
            np.testing.assert_array_equal(other, one, err_msg=which)
        else:
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5, err_msg=which)


def wait_until(seen: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not seen():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_rank_is_killed_and_nothing_changes(project: Path, ranks: int) -> None:
    """Maxima bit for bit, statistics within 1e-5; one rank is the search that all are compared with."""
    process = start(project, f"by_{ranks}", *SEARCH, "--ranks", str(ranks))
    answers = project / f"Match/by_{ranks}/stretches"
    found: list[Path] = []
    wait_until(lambda: found.extend(answers.glob("*_rank[123].npz")) or found, process)
    number = found[0].stem[-1]
    children = psutil.Process(process.pid).children()
    next(one for one in children if one.environ().get("RANK") == number).send_signal(signal.SIGKILL)
    assert process.wait(timeout=300) == 0
    assert "has died" in (project / f"by_{ranks}_.log").read_text()
    same_maps(project, f"by_{ranks}")


@pytest.mark.slow
def test_torchrun_starts_it(project: Path) -> None:
    """And the magnification matrix reaches every rank: Leopard-EM 1.3.0 drops it in its distributed path."""
    by = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    for name, words, alone in (
        ("torchrun", SEARCH, "alone"),
        ("torchrun_yaml", ("--leopard-yaml=config.yaml", "--stretch=600"), "stretched"),
    ):
        assert start(project, name, *words, by=by).wait(timeout=300) == 0, (project / f"{name}_.log").read_text()
        same_maps(project, name, alone)
    plain, stretched = (read_image(project / f"Match/{job}/a_mip.mrc")[0] for job in ("alone", "stretched"))
    assert float(np.abs(plain - stretched).max()) > 0.1


@pytest.mark.slow
def test_srun_starts_it(project: Path) -> None:
    """The variables that `srun -n 3` sets on two nodes; the port follows from the job's number."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    step = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3"}
    step |= {"SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(port)}
    places = [("0", "0", "0"), ("1", "1", "0"), ("2", "0", "1")]
    ranks = [
        start(project, "srun", *SEARCH, variables={
            **step, "SLURM_PROCID": number, "SLURM_LOCALID": local, "SLURM_NODEID": node,
        })
        for number, local, node in places
    ]  # fmt: skip
    assert [one.wait(timeout=300) for one in ranks] == [0, 0, 0], (project / "srun_0.log").read_text()
    same_maps(project, "srun")
