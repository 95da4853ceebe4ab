"""The program that answers CTFFIND's dialogue: what it asks, what it writes, what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.app.ctffind import Command, count_sections, parse_command, run
from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.core.errors import InputError
from vitreous.core.fourier import radius_grid
from vitreous.io.ctffind_dialogue import Answers, CtffindRequest, MovieAnswers, ask
from vitreous.io.mrc import read_image, write_image

PIXEL, SIZE, LENS = 1.4, 512, Microscope(300.0, 2.7, 0.1)
HEAD = "{name}\n{out}\n1.4\n300\n2.7\n0.1\n512\n30\n4\n5000\n40000\n500\n"


def noise(u: float, v: float, angle: float, phase: float = 0.0) -> np.ndarray:
    one = [torch.tensor([value], dtype=torch.float64) for value in (u, v, angle, phase)]
    contrast = ctf((SIZE, SIZE), PIXEL, LENS, Defocus(*one), dtype=torch.float64)[0]
    k = radius_grid((SIZE, SIZE), PIXEL)
    power = 1.0 + 2.0 * contrast**2 * torch.exp(-40.0 * k**2) + 5.0 * torch.exp(-60.0 * k)
    white = torch.fft.rfft2(torch.from_numpy(np.random.default_rng(3).standard_normal((SIZE, SIZE))))
    return np.asarray(torch.fft.irfft2(white * power.sqrt(), s=(SIZE, SIZE)), dtype=np.float32)


def answer(tmp_path: Path, rest: str, name: str = "m.mrc", command: Command | None = None) -> np.ndarray:
    """Run the program; the numbers of its .txt file."""
    text = HEAD.format(name=tmp_path / name, out=tmp_path / "m.ctf") + rest
    run(command or Command(), iter(text.splitlines()))
    return np.loadtxt(tmp_path / "m.txt", ndmin=2)


def request(text: str, sections: int = 1) -> CtffindRequest:
    return ask(Answers(iter(text.splitlines()), lambda line: None), lambda name: sections)


def test_the_order_of_questions() -> None:
    plain = request(HEAD.format(name="a.mrc", out="a.ctf") + "no\nyes\nyes\n100\nno\nno\n")
    assert plain == CtffindRequest("a.mrc", "a.ctf", 1.4, LENS, 512, 30, 4, 5000, 40000, 500, tolerance=100.0)
    movie = request("a.mrcs\nyes\n4\n" + HEAD.format(name="a.ctf", out="1.4").replace("1.4\n1.4", "1.4") +
                    "no\nno\nno\nyes\n0\n3.14159\n0.174533\nno\n", sections=20)  # fmt: skip
    assert movie.movie == MovieAnswers(4)
    assert movie.output == "a.ctf"
    assert movie.tolerance is None
    assert movie.phases == (0.0, 3.14159, 0.174533)


def test_expert_options() -> None:
    text = HEAD.format(name="a.mrc", out="a.ctf") + "yes\nno\n200\n30\nno\nyes\nno\nyes\n10000\n9000\n0.5\n4\n"
    expert = request(text)
    assert expert.astigmatism_known == (200.0, 30.0)
    assert not expert.resample
    assert expert.defocus_known == (10000.0, 9000.0, 0.5)
    assert expert.threads == 4


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a.mrc\n", "ends before"),
        ("a.mrc\na.ctf\nnone\n", "is no number"),
        ("a.mrc\na.ctf\n1\n300\n2.7\n7\n", "is 7"),
        (HEAD.format(name="a", out="b").replace("30\n4\n", "4\n30\n"), "no finer"),
        (HEAD.format(name="a", out="b") + "maybe\n", "neither yes nor no"),
        (HEAD.format(name="a", out="b").replace("5000\n", "50000\n"), "no more than"),
    ],
)
def test_answers_that_make_no_sense(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        request(text)


def test_empty_answers_take_the_default() -> None:
    assert request("a.mrc\n" + "\n" * 17).box == 512


def test_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "m.mrc", noise(15300.0, 14700.0, 40.0), PIXEL)
    (row,) = answer(tmp_path, "no\nyes\nyes\n0\nno\nno\n")
    assert row[0] == 1
    assert row[1:3] == pytest.approx([15300.0, 14700.0], abs=80.0)
    assert abs(row[3] - 40.0) < 10.0
    assert row[4] == 0.0
    assert row[6] < 5.0
    log = capsys.readouterr().out
    first = float(log.partition("Estimated defocus values        :")[2].split(",")[0])
    assert first == pytest.approx(row[1], abs=0.01)
    assert f"Summary of results                          : {tmp_path / 'm.txt'}" in log
    picture, size = read_image(tmp_path / "m.ctf")
    assert picture.shape == (512, 512)
    assert size == pytest.approx(1.4)
    frequency, radial, equiphase, model, agreement, _ = np.loadtxt(tmp_path / "m_avrot.txt")
    assert frequency[-1] == pytest.approx(0.5 / 1.4, rel=1e-3)
    band = (frequency > 0.06) & (frequency < 0.2)
    assert np.corrcoef(equiphase[band], model[band])[0, 1] > 0.8
    assert np.corrcoef(radial[band], model[band])[0, 1] < np.corrcoef(equiphase[band], model[band])[0, 1]
    assert agreement[band].mean() > 0.8


def test_known_astigmatism_is_kept(tmp_path: Path) -> None:
    write_image(tmp_path / "m.mrc", noise(15300.0, 14700.0, 40.0), PIXEL)
    (row,) = answer(tmp_path, "yes\nno\n600\n40\nno\nno\n")
    assert row[1] - row[2] == pytest.approx(600.0, abs=1e-3)
    assert row[3] == pytest.approx(40.0, abs=1e-3)
    assert row[1] == pytest.approx(15300.0, abs=50.0)


def test_known_defocus_is_only_scored(tmp_path: Path) -> None:
    write_image(tmp_path / "m.mrc", noise(15000.0, 15000.0, 0.0), PIXEL)
    (right,) = answer(tmp_path, "no\nno\nno\nno\nyes\nyes\nyes\n15000\n15000\n0\n1\n")
    assert right[1:3] == pytest.approx([15000.0, 15000.0])
    (wrong,) = answer(tmp_path, "no\nno\nno\nno\nyes\nyes\nyes\n12000\n12000\n0\n1\n")
    assert wrong[5] < 0.3 * right[5]
    assert wrong[6] > 2.0 * right[6]


def test_a_stack_of_micrographs_gives_a_row_each(tmp_path: Path) -> None:
    write_image(tmp_path / "m.mrcs", np.stack([noise(9000.0, 9000.0, 0.0), noise(20000.0, 20000.0, 0.0)]), PIXEL)
    text = HEAD.format(name=tmp_path / "m.mrcs\nno", out=tmp_path / "m.ctf") + "no\nno\nno\nno\nno\n"
    run(Command(), iter(text.splitlines()))
    rows = np.loadtxt(tmp_path / "m.txt")
    assert rows[:, 0].tolist() == [1, 2]
    assert rows[:, 1] == pytest.approx([9000.0, 20000.0], abs=100.0)
    assert np.loadtxt(tmp_path / "m_avrot.txt").shape[0] == 12
    assert count_sections(str(tmp_path / "m.ctf")) == 2


def test_spectra_with_and_without_background_say_the_same(tmp_path: Path) -> None:
    amplitude = np.abs(np.fft.fftshift(np.fft.fft2(noise(15300.0, 14700.0, 40.0)))).astype(np.float32)
    write_image(tmp_path / "m.mrc", amplitude, PIXEL)
    (raw,) = answer(tmp_path, "no\nno\nno\nno\nno\n", command=Command(spectra=True))
    y, x = np.indices(amplitude.shape) - SIZE // 2
    shell = np.hypot(x, y).astype(int)
    trend = np.exp(-0.5 * (np.arange(shell.max() + 1) / 150.0) ** 2) * amplitude[shell == 30].mean()
    write_image(tmp_path / "m.mrc", amplitude / amplitude.mean() - trend[shell] / amplitude.mean(), PIXEL)
    (filtered,) = answer(tmp_path, "no\nno\nno\nno\nno\n", command=Command(spectra=True, filtered=True))
    assert raw[1:3] == pytest.approx([15300.0, 14700.0], abs=100.0)
    assert filtered[1:3] == pytest.approx(raw[1:3], abs=100.0)


def test_pure_noise_is_said_to_fit_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.random.default_rng(1).standard_normal((SIZE, SIZE)).astype(np.float32)
    write_image(tmp_path / "m.mrc", image, PIXEL)
    (row,) = answer(tmp_path, "no\nno\nno\nno\nno\n")
    assert row[6] == 30.0
    assert "no Thon rings" in capsys.readouterr().err


def test_command_line() -> None:
    assert parse_command(["--amplitude-spectrum-input"]) == Command(spectra=True)
    assert parse_command(["-filtered-amplitude-spectrum-input", "--omp-num-threads", "4"]) == Command(True, True)
    with pytest.raises(InputError, match="is no option"):
        parse_command(["--nonsense"])


def test_what_the_user_can_mend_is_one_line_and_torch_is_not_needed(tmp_path: Path) -> None:
    code = "import sys; import vitreous.app.ctffind as c; assert 'torch' not in sys.modules; c.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], input="missing.mrc\n", cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[3] / "src")},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: missing.mrc: cannot be read (No such file or directory). "
                                        "Check the name and the permissions."]  # fmt: skip
