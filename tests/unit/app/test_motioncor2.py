"""The program that stands in for MotionCor2: its files, serial mode, and movies that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import fourier_shift

from vitreous.app.motioncor2 import main, run
from vitreous.io.motion import read_motion
from vitreous.io.motioncor2_options import parse_options
from vitreous.io.mrc import read_image, write_image

N, N_FRAMES = 128, 5


def movie(seed: int) -> np.ndarray:
    """A specimen that moves by (1.5, -1) pixels (x, y) a frame."""
    rng = np.random.default_rng(seed)
    k2 = np.fft.fftfreq(N)[:, None] ** 2 + np.fft.rfftfreq(N) ** 2
    specimen_ft = np.fft.rfft2(rng.standard_normal((N, N))) * np.exp(-20 * k2) * (k2 > 1e-3)
    specimen_ft *= 1.0 / np.fft.irfft2(specimen_ft).std()
    frames = [np.fft.irfft2(fourier_shift(specimen_ft, (-1.0 * f, 1.5 * f), N)) for f in range(N_FRAMES)]
    return (10 + np.array(frames) + rng.standard_normal((N_FRAMES, N, N))).astype(np.float32)


def call(words: str) -> int:
    return run(parse_options(words.split()))


def test_one_movie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = movie(1)
    write_image(tmp_path / "a.mrcs", frames, 1.1)
    out, log = tmp_path / "out/a.mrc", tmp_path / "log"
    words = f"-InMrc {tmp_path / 'a.mrcs'} -OutMrc {out} -LogDir {log} -PixSize 1.1 -FmDose 2 -SplitSum 1 -OutStar 1"
    assert call(f"{words} -FmRef 1") == 0
    assert capsys.readouterr().out.count("...... Frame (") == N_FRAMES
    table = np.loadtxt(log / "a-Full.log")
    assert np.allclose(table[:, 1:], np.arange(N_FRAMES)[:, None] * [-1.5, 1.0], atol=0.15)
    plain, pixel_size = read_image(out)
    weighted, _ = read_image(out.with_name("a_DW.mrc"))
    even, _ = read_image(out.with_name("a_EVN.mrc"))
    odd, _ = read_image(out.with_name("a_ODD.mrc"))
    assert pixel_size == pytest.approx(1.1)
    assert np.allclose(even + odd, plain, atol=1e-3)
    assert odd.mean() / even.mean() == pytest.approx(3 / 2, rel=1e-3)  # frames 1, 3, 5 are odd
    assert weighted.shape == plain.shape
    # The sum lies where the first frame does.
    assert np.corrcoef(plain[8:-8, 8:-8].ravel(), frames[0, 8:-8, 8:-8].ravel())[0, 1] > 0.6
    record = read_motion(out.with_suffix(".star"))
    assert record.dose_per_frame == 2.0


def test_the_middle_frame_is_the_reference_by_default(tmp_path: Path) -> None:
    frames = movie(1)
    write_image(tmp_path / "a.mrcs", frames, 1.1)
    assert call(f"-InMrc {tmp_path / 'a.mrcs'} -OutMrc {tmp_path / 'a.mrc'} -LogFile {tmp_path / 'a'}") == 0
    table = np.loadtxt(tmp_path / "a0-Full.log")
    assert table[N_FRAMES // 2, 1:] == pytest.approx([0.0, 0.0])
    plain, _ = read_image(tmp_path / "a.mrc")
    inside = (slice(8, -8), slice(8, -8))
    here = [np.corrcoef(plain[inside].ravel(), frame[inside].ravel())[0, 1] for frame in frames]
    assert int(np.argmax(here)) == N_FRAMES // 2
    assert not (tmp_path / "a_DW.mrc").exists()  # no dose was given


def test_serial_mode_goes_on_past_bad_movies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Movies"
    folder.mkdir()
    for number, name in enumerate(("a", "b", "d")):
        write_image(folder / f"{name}_movie.mrcs", movie(number), 1.1)
    whole = (folder / "a_movie.mrcs").read_bytes()
    (folder / "c_movie.mrcs").write_bytes(whole[: len(whole) // 2])
    write_image(folder / "other.mrcs", movie(5), 1.1)
    write_image(folder / "gain_movie.mrcs", np.ones((N, N), np.float32), 1.1)
    words = f"-InMrc {folder}/ -InSuffix _movie.mrcs -InSkips gain -OutMrc {tmp_path}/out/ -Serial 1 -FtBin 2"
    assert call(words) == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_movie.mrc", "b_movie.mrc", "d_movie.mrc"]
    assert read_image(tmp_path / "out/a_movie.mrc")[0].shape == (N // 2, N // 2)
    said = capsys.readouterr()
    assert "c_movie.mrcs" in said.err
    assert "3 of 4 movies corrected, 1 left out" in said.out


def test_gain_dark_and_throw(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    gain, dark = rng.uniform(0.5, 1.5, (N, N)).astype(np.float32), rng.uniform(0, 5, (N, N)).astype(np.float32)
    clean = movie(1)
    clean[0] += 1000.0
    write_image(tmp_path / "raw.mrcs", clean / gain + dark, 1.1)
    write_image(tmp_path / "clean.mrcs", clean, 1.1)
    write_image(tmp_path / "gain.mrc", gain, 1.1)
    write_image(tmp_path / "dark.mrc", dark, 1.1)
    same = "-Throw 1 -Trunc 1 -FmRef 2"
    references = f"-Gain {tmp_path / 'gain.mrc'} -Dark {tmp_path / 'dark.mrc'}"
    assert call(f"-InMrc {tmp_path / 'raw.mrcs'} -OutMrc {tmp_path / 'raw.mrc'} {references} {same}") == 0
    assert call(f"-InMrc {tmp_path / 'clean.mrcs'} -OutMrc {tmp_path / 'clean.mrc'} {same}") == 0
    ours, wanted = read_image(tmp_path / "raw.mrc")[0], read_image(tmp_path / "clean.mrc")[0]
    assert np.allclose(ours, wanted, atol=0.02)
    assert wanted.mean() == pytest.approx(30.0, rel=0.05)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("-InMrc {folder}/a.mrcs -OutMrc {folder}/a.mrc -Throw 9", "frames 10 to 5"),
        ("-InMrc {folder}/missing.mrcs -OutMrc {folder}/a.mrc", "cannot be read"),
        ("-InMrc {folder}/a.mrcs -OutMrc {folder}/a.mrc -Gain {folder}/small.mrc", "has 64 x 64 pixels"),
        ("-InTiff {folder}/a.mrcs -OutMrc {folder}/a.mrc", "movie of kind tiff"),
        ("-InMrc {folder}/a.mrcs -OutMrc {folder}/a.mrc -StackZ 2", "the movie has 5 frames"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.mrcs", movie(1), 1.1)
    write_image(tmp_path / "small.mrc", np.ones((64, 64), np.float32), 1.1)
    monkeypatch.setattr("sys.argv", ["vitreous-motioncor2", *words.format(folder=tmp_path).split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert what in lines[0]
    assert not (tmp_path / "a.mrc").exists()
