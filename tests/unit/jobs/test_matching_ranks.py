"""match-template over ranks: the maxima of one process to the last bit, its moments to 1e-5, whoever is killed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from vitreous.core.errors import LEFT_OUT, InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.leopard import read_results
from vitreous.io.mrc import read_image, write_image, write_map
from vitreous.io.relion import write_dataset

EXACT = ("mip", "orientation_phi", "orientation_theta", "orientation_psi", "relative_defocus")
CLOSE = ("correlation_average", "correlation_variance", "scaled_mip")
SMALL = ("--psi-step=30", "--theta-step=24", "--defocus-range=200", "--stretch=600")  # a block is 516 correlations
LONGER = ("--psi-step=10", "--theta-step=12", "--defocus-range=200", "--stretch=600")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, molecule: Any, lens: Any) -> Path:
    """Two micrographs and, between them, one that cannot be searched; a list of one alone."""
    place = tmp_path_factory.mktemp("ranks")
    write_map(place / "template.mrc", Volume(molecule.volume().float(), lens.pixel_size))
    for name, at in (("a", (60, 84)), ("b", (40, 60))):
        image = molecule.micrograph((110, 121), lens, [(*at, (40.0, 72.0, 90.0), 200.0)], snr=0.1)
        write_image(place / f"{name}.mrc", image, lens.pixel_size)
    write_image(place / "flat.mrc", np.zeros((110, 121), np.float32), lens.pixel_size)
    optics = {"optics_group": [1], "optics_group_name": ["o"], "voltage": [300.0], "cs": [2.7]}
    optics |= {"amplitude_contrast": [0.07], "micrograph_pixel_size": [lens.pixel_size]}
    for star, names in (("all", ["a.mrc", "flat.mrc", "b.mrc"]), ("one", ["a.mrc"])):
        n = len(names)
        rows = {"micrograph_name": names, "optics_group": np.ones(n, np.int64), "defocus_angle": [25.0] * n}
        rows |= {"defocus_u": [6000.0] * n, "defocus_v": [5800.0] * n}
        write_dataset(place / f"{star}.star", Dataset("micrographs", Table(optics), Table(rows)))
    return place


def command(star: str, name: str, *words: str) -> list[str]:
    job = [sys.executable, "-m", "vitreous", "match-template", f"--micrographs={star}.star", "--template=template.mrc"]
    return [*job, "--cpu", "--threads=1", "--o", f"Match/{name}", *words]


def environment() -> dict[str, str]:
    source = str(Path(__file__).resolve().parents[3] / "src")
    return {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": source}


def run(project: Path, *words: str) -> str:
    done = subprocess.run(command(*words), cwd=project, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == (LEFT_OUT if words[0] == "all" else 0), done.stderr
    return done.stderr


def begin(project: Path, name: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("one", name, *words), cwd=project, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_until(seen: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.002)


def same_maps(project: Path, micrograph: str, one: str, other: str) -> None:
    for name in (*EXACT, *CLOSE):
        first, second = (read_image(project / f"Match/{job}/{micrograph}_{name}.mrc")[0] for job in (one, other))
        if name in EXACT:
            np.testing.assert_array_equal(first, second, err_msg=name)
        else:
            np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5, err_msg=name)


def test_an_input_error_can_be_sent_by_a_rank() -> None:
    error = InputError("a.mrc", "is flat", "Look at it.")
    sent = pickle.loads(pickle.dumps(error))
    assert isinstance(sent, InputError) and str(sent) == str(error) and sent.remedy == error.remedy


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--robust",)], ids=["classic", "robust"])
def test_ranks_find_what_one_process_finds(project: Path, options: tuple[str, ...]) -> None:
    name = "".join(options)
    run(project, "all", f"alone{name}", *SMALL, *options)
    hits = read_results(project / f"Match/alone{name}/results.csv")
    for ranks in (2, 3):
        run(project, "all", f"{ranks}{name}", *SMALL, *options, "--ranks", str(ranks))
        for micrograph in ("a", "b"):
            same_maps(project, micrograph, f"alone{name}", f"{ranks}{name}")
        found = read_results(project / f"Match/{ranks}{name}/results.csv")
        np.testing.assert_array_equal(found["pos_x"], hits["pos_x"])
        assert not (project / f"Match/{ranks}{name}/stretches").exists()
        failed = (project / f"Match/{ranks}{name}/failed.star").read_text()
        assert "flat.mrc" in failed and "a.mrc" not in failed


@pytest.mark.slow
def test_ranks_share_the_micrographs_of_hierarchical_searches(project: Path) -> None:
    for name, ranks in (("coarse", "1"), ("coarse_2", "2")):
        run(project, "all", name, *SMALL, "--strategy=hierarchical", "--ranks", ranks)
    for micrograph in ("a", "b"):
        same_maps(project, micrograph, "coarse", "coarse_2")


@pytest.mark.slow
def test_a_killed_rank_changes_nothing(project: Path) -> None:
    run(project, "one", "whole", *LONGER)
    process = begin(project, "bereft", *LONGER, "--ranks", "3")
    answers: list[Path] = []
    folder = project / "Match/bereft/stretches"
    wait_until(lambda: answers.extend(folder.glob("*_rank[12].npz")) or answers, process)
    number = answers[0].stem[-1]  # has answered, and takes its next stretch
    ranks = psutil.Process(process.pid).children()
    next(one for one in ranks if one.environ().get("RANK") == number).send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "has died" in said and "in hand are taken up again" in said
    same_maps(project, "a", "whole", "bereft")


@pytest.mark.slow
def test_all_killed_and_resumed_by_any_number_changes_nothing(project: Path) -> None:
    if not (project / "Match/whole/a_mip.mrc").exists():
        run(project, "one", "whole", *LONGER)
    options = (*LONGER, "--checkpoint-interval=0", "--restarts=0")
    process = begin(project, "stopped", *options, "--ranks", "2")
    checkpoint = project / "Match/stopped/a_checkpoint.npz"
    wait_until(checkpoint.exists, process)
    for one in (*psutil.Process(process.pid).children(), process):
        one.send_signal(signal.SIGKILL)
    process.communicate()
    with np.load(checkpoint) as saved:
        assert int(saved["next_block"]) > 0
    kept = checkpoint.read_bytes()
    for name, ranks in (("stopped", "3"), ("stopped_too", "1")):
        again = project / f"Match/{name}"
        again.mkdir(exist_ok=True)
        (again / checkpoint.name).write_bytes(kept)
        run(project, "one", name, *options, "--ranks", ranks, "--continue")
        assert not (again / checkpoint.name).exists()
        same_maps(project, "a", "whole", name)
