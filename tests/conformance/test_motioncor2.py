"""RELION's `relion_run_motioncorr --use_motioncor2` drives vitreous-motioncor2 as it drives MotionCor2."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import fourier_shift

from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.motion import read_motion
from vitreous.io.mrc import read_header, read_image, write_image
from vitreous.io.relion import read_dataset, write_dataset

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_run_motioncorr") is None, reason="relion_run_motioncorr is not installed"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for the stand-in of a CUDA device count"),
]

N, N_FRAMES = 512, 8
# RELION without CUDA (Debian's) divides by its number of GPUs, 0, when it writes MotionCor2's -Gpu: the handler of the
# signal steps over that one instruction and leaves a remainder of 0, as one GPU would.
STEP_OVER = """
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>
static void step_over(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    registers[REG_RDX] = 0;
    registers[REG_RIP] += 6;
}
__attribute__((constructor)) static void start(void) {
    struct sigaction action = {0};
    action.sa_sigaction = step_over;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGFPE, &action, 0);
    unsetenv("LD_PRELOAD");
}
"""


def true_shift(frame: int) -> tuple[float, float]:
    """What is to be applied (x, y) to a frame to bring it onto the first."""
    return -1.3 * frame, 0.8 * frame


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two movies of a drifting specimen, a gain reference that is not flat, and a dead pixel."""
    optics = Table({"optics_group_name": ["one"], "optics_group": [1], "movie_pixel_size": [1.2]})
    optics = optics.with_columns(voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    gain = np.random.default_rng(9).uniform(0.8, 1.2, (N, N)).astype(np.float32)
    write_image(tmp_path / "gain.mrc", gain, 1.2)
    for name, seed in (("a", 1), ("b", 2)):
        rng = np.random.default_rng(seed)
        k2 = np.fft.fftfreq(N)[:, None] ** 2 + np.fft.rfftfreq(N) ** 2
        specimen_ft = np.fft.rfft2(rng.standard_normal((N, N))) * np.exp(-30 * k2) * (k2 > 1e-4)
        specimen_ft *= 0.25 / np.fft.irfft2(specimen_ft).std()
        frames = []
        for f in range(N_FRAMES):
            x, y = true_shift(f)
            moved = np.fft.irfft2(fourier_shift(specimen_ft, (-y, -x), N))
            frames.append(rng.poisson(np.clip(3 * (1 + moved) / gain, 0, None)))
        write_image(tmp_path / f"{name}.mrcs", np.array(frames, np.float32), 1.2)
    rows = Table({"movie_name": ["a.mrcs", "b.mrcs"], "optics_group": [1, 1]})
    write_dataset(tmp_path / "movies.star", Dataset("movies", optics, rows))
    return tmp_path


@pytest.fixture
def run_wrapper(
    project: Path, program: Callable[[str], Path], shell_environment: dict[str, str]
) -> Callable[[str], Dataset]:
    """Runs relion_run_motioncorr with more options and reads its table of micrographs."""
    (project / "step.c").write_text(STEP_OVER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "step.so", "step.c"], cwd=project, check=True)
    environment = {**shell_environment, "LD_PRELOAD": str(project / "step.so")}

    def run(options: str) -> Dataset:
        words = f"relion_run_motioncorr --i movies.star --o MotionCorr/job002/ --use_motioncor2 {options}".split()
        words += ["--motioncor2_exe", str(program("vitreous.app.motioncor2")), "--gainref", "gain.mrc"]
        done = subprocess.run(
            words, cwd=project, env=environment, check=False, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        return read_dataset(project / "MotionCorr/job002/corrected_micrographs.star")

    return run


def coherence(a: np.ndarray, b: np.ndarray, low: float, high: float) -> float:
    """Correlation of two images between two frequencies (1/px)."""
    k = np.hypot(np.fft.fftfreq(a.shape[0])[:, None], np.fft.fftfreq(a.shape[1]))
    inside = (k > low) & (k < high)
    a_ft, b_ft = np.fft.fft2(a)[inside], np.fft.fft2(b)[inside]
    return float((a_ft * b_ft.conj()).real.sum() / np.linalg.norm(a_ft) / np.linalg.norm(b_ft))


def check_shifts(path: Path, first_frame: int, n_frames: int) -> None:
    record = read_motion(path)
    assert record.start_frame == first_frame
    # RELION counts frames from the movie's first; those that are not used have no shift.
    shifts = record.motion.global_shifts[first_frame - 1 : first_frame - 1 + n_frames]
    true = np.array([true_shift(f) for f in range(n_frames)])
    assert np.abs((shifts - shifts[0]) - true).max() < 0.2


def test_global_alignment_with_dose_weighting(run_wrapper: Callable[[str], Dataset], project: Path) -> None:
    table = run_wrapper("--dose_weighting --dose_per_frame 1.5 --preexposure 1 --bin_factor 2 --save_noDW")
    assert [str(name) for name in table.rows["micrograph_name"]] == [f"MotionCorr/job002/{n}.mrc" for n in "ab"]
    for name in "ab":
        check_shifts(project / f"MotionCorr/job002/{name}.star", 1, N_FRAMES)
        weighted, pixel_size = read_image(project / f"MotionCorr/job002/{name}.mrc")
        plain, _ = read_image(project / f"MotionCorr/job002/{name}_noDW.mrc")
        assert weighted.shape == plain.shape == (N // 2, N // 2)
        assert pixel_size == pytest.approx(2.4)
        # Where damage is quick, the weighted sum is another one.
        assert coherence(weighted, plain, 0.02, 0.06) > 0.998 > 0.995 > coherence(weighted, plain, 0.35, 0.45)
        error = (project / f"MotionCorr/job002/{name}.err").read_text()
        assert "no CUDA GPU: the CPU does the work" in error
    # RELION lists the motion of the whole field, in pixels.
    length = np.hypot(*true_shift(1)) * (N_FRAMES - 1)
    assert table.rows["motion_total"].astype(float) == pytest.approx([length, length], rel=0.1)


@pytest.mark.slow
def test_patches_and_frame_ranges(run_wrapper: Callable[[str], Dataset], project: Path) -> None:
    table = run_wrapper("--patch_x 3 --patch_y 3 --first_frame_sum 2 --last_frame_sum 7 --group_frames 2")
    assert len(table) == 2
    check_shifts(project / "MotionCorr/job002/a.star", 2, 6)
    local = (project / "MotionCorr/job002/a0-Patch-Patch.log").read_text()
    assert len([line for line in local.splitlines() if line and line[0] != "#"]) == 9 * 6
    # RELION has taken the patches' shifts up into its own file.
    assert "data_local_shift" in (project / "MotionCorr/job002/a.star").read_text()
    assert read_header(project / "MotionCorr/job002/a.mrc").shape == (1, N, N)
