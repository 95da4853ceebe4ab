from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.data.images import ArraySource
from vitreous.runtime import scratch, scratch_images
from vitreous.runtime.fingerprint import Fingerprint, difference, take_fingerprint
from vitreous.runtime.scratch import Scratch, on_scratch

N, BOX = 40, 16


class Counted(ArraySource):
    """Images in memory that count how many of them were read."""

    read = 0

    def __getitem__(self, indices: np.ndarray) -> torch.Tensor:
        self.read += len(indices)
        return super().__getitem__(indices)


@pytest.fixture
def origin() -> Counted:
    return Counted(torch.rand(N, BOX, BOX, generator=torch.Generator().manual_seed(1)), 1.5)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "particles.mrcs"
    path.write_bytes(b"images")
    return path


def wanted(stack: Path, names: list[str] | None = None) -> Fingerprint:
    names = [f"{n + 1:06d}@{stack.name}" for n in range(N)] if names is None else names
    return take_fingerprint(stack.with_name("particles.star"), names, [stack], "as it is", BOX)


def home(directory: Path) -> Path:
    return directory / f"vitreous_{os.getuid()}"


def copies(directory: Path) -> list[Path]:
    return sorted(home(directory).iterdir())


def images_of(source: object, indices: list[int]) -> torch.Tensor:
    return source[np.array(indices)]  # type: ignore[index]


def test_images_come_from_the_copy_in_any_order(tmp_path: Path, origin: Counted, stack: Path) -> None:
    order = [7, 3, 39, 3, 0]
    with on_scratch(origin, wanted(stack), Scratch(tmp_path)) as images:
        assert origin.read == N
        torch.testing.assert_close(images_of(images, order), images_of(origin, order), rtol=0, atol=0)
        assert origin.read == N + len(order)
        assert (len(images), images.box, images.pixel_size) == (N, BOX, 1.5)
        assert len(copies(tmp_path)) == 1
    assert not copies(tmp_path)


def test_two_jobs_share_one_copy_and_the_last_removes_it(tmp_path: Path, origin: Counted, stack: Path) -> None:
    with on_scratch(origin, wanted(stack), Scratch(tmp_path)):
        with on_scratch(origin, wanted(stack), Scratch(tmp_path)) as images:
            assert origin.read == N
            images_of(images, [1, 2])
        assert len(copies(tmp_path)) == 1
    assert not copies(tmp_path)


def test_a_kept_copy_is_used_again_and_then_goes(tmp_path: Path, origin: Counted, stack: Path) -> None:
    with on_scratch(origin, wanted(stack), Scratch(tmp_path, keep=True)):
        pass
    assert len(copies(tmp_path)) == 1
    with on_scratch(origin, wanted(stack), Scratch(tmp_path, reuse=True)):
        assert origin.read == N
    assert not copies(tmp_path)


def test_who_asks_to_keep_is_heard_though_others_read(tmp_path: Path, origin: Counted, stack: Path) -> None:
    with on_scratch(origin, wanted(stack), Scratch(tmp_path, keep=True)):
        with on_scratch(origin, wanted(stack), Scratch(tmp_path)):
            pass
        assert len(copies(tmp_path)) == 1
    assert len(copies(tmp_path)) == 1


def test_a_stale_copy_is_refused_with_the_reason(tmp_path: Path, origin: Counted, stack: Path) -> None:
    with on_scratch(origin, wanted(stack), Scratch(tmp_path, keep=True)):
        pass
    stack.write_bytes(b"other images")
    with pytest.raises(InputError, match="had 6 bytes when it was copied, now it has 12"):
        on_scratch(origin, wanted(stack), Scratch(tmp_path, reuse=True)).__enter__()
    with on_scratch(origin, wanted(stack), Scratch(tmp_path)):  # copied anew where reuse was not asked for
        assert origin.read == 2 * N


def test_touched_files_and_other_particles_are_stale(tmp_path: Path, origin: Counted, stack: Path) -> None:
    before = wanted(stack)
    os.utime(stack, ns=(0, 0))
    assert "was changed on" in difference(before, wanted(stack))
    fewer = wanted(stack, ["000001@particles.mrcs"])
    assert "it holds 40 images of 16 pixels, 1 of 16 are wanted" in difference(before, fewer)
    with on_scratch(origin, wanted(stack), Scratch(tmp_path, keep=True)):
        pass
    with pytest.raises(InputError, match="40 images of 16 pixels, 1 of 16"):
        on_scratch(ArraySource(torch.zeros(1, BOX, BOX), 1.5), fewer, Scratch(tmp_path, reuse=True)).__enter__()


def test_what_does_not_fit_is_read_from_the_origin(
    tmp_path: Path, origin: Counted, stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = 4 * BOX * BOX
    monkeypatch.setattr("vitreous.runtime.scratch.shutil.disk_usage", lambda _: type("D", (), {"free": 25 * each + 9}))
    with on_scratch(origin, wanted(stack), Scratch(tmp_path, keep_free=5 * each)) as images:
        assert origin.read == 20
        order = [39, 0, 20, 19]
        torch.testing.assert_close(images_of(images, order), images_of(origin, order), rtol=0, atol=0)
        assert origin.read == 20 + 2 + len(order)  # two of the four were on scratch
    with on_scratch(origin, wanted(stack), Scratch(tmp_path, keep_free=30 * each)) as images:
        assert images is origin  # not one fits
    assert not copies(tmp_path)


def test_a_disk_that_fills_while_copying(
    tmp_path: Path, origin: Counted, stack: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, written = os.write, 0

    def write(handle: int, data: memoryview) -> int:
        nonlocal written
        if written > 30 * 4 * BOX * BOX:
            raise OSError(errno.ENOSPC, "No space left on device")
        written += len(data)
        return real(handle, data)

    monkeypatch.setattr(scratch_images, "_BATCH_BYTES", 8 * 4 * BOX * BOX)
    monkeypatch.setattr(scratch_images, "_ROOM", 0)
    monkeypatch.setattr(scratch_images.os, "write", write)
    with on_scratch(origin, wanted(stack), Scratch(tmp_path)) as images:
        assert "32 of 40 images" in caplog.text
        torch.testing.assert_close(images_of(images, [31, 32]), images_of(origin, [31, 32]), rtol=0, atol=0)


def test_a_copy_that_is_cut_short_while_it_is_read(tmp_path: Path, origin: Counted, stack: Path) -> None:
    with on_scratch(origin, wanted(stack), Scratch(tmp_path)) as images:
        os.truncate(copies(tmp_path)[0] / "images.f32", 100)
        torch.testing.assert_close(images_of(images, [0, 30]), images_of(origin, [0, 30]), rtol=0, atol=0)


def test_a_damaged_copy_is_not_used(tmp_path: Path, origin: Counted, stack: Path) -> None:
    with on_scratch(origin, wanted(stack), Scratch(tmp_path, keep=True)):
        pass
    os.truncate(copies(tmp_path)[0] / "images.f32", 100)
    with on_scratch(origin, wanted(stack), Scratch(tmp_path)):
        assert origin.read == 2 * N


def test_users_do_not_touch_each_others_copies(
    tmp_path: Path, origin: Counted, stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_scratch(origin, wanted(stack), Scratch(tmp_path, keep=True)):
        pass
    mine = home(tmp_path)
    assert mine.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, "getuid", lambda number=os.getuid(): number + 1)
    (tmp_path / f"vitreous_{os.getuid()}").mkdir()  # made by someone else under our name
    with pytest.raises(InputError, match="belongs to another user"):
        on_scratch(origin, wanted(stack), Scratch(tmp_path)).__enter__()
    assert len(list(mine.iterdir())) == 1


def test_a_place_that_is_not_there_is_one_line(tmp_path: Path, origin: Counted, stack: Path) -> None:
    with pytest.raises(InputError, match="--scratch-dir"):
        on_scratch(origin, wanted(stack), Scratch(tmp_path / "no")).__enter__()


_SLOW_COPY = """
import sys, time
from pathlib import Path
import numpy as np, torch
from vitreous.data.images import ArraySource
from vitreous.runtime import scratch, scratch_images
from vitreous.runtime.fingerprint import take_fingerprint
from vitreous.runtime.scratch import Scratch, on_scratch
directory, stack, pause, keep = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "keep"
class Slow(ArraySource):
    def __getitem__(self, indices):
        time.sleep(pause)
        Path(directory, f"reading{sys.argv[5]}").touch()
        return super().__getitem__(indices)
scratch_images._BATCH_BYTES = 4 * 16 * 16
names = [f"{n + 1:06d}@{stack.name}" for n in range(40)]
wanted = take_fingerprint(stack.with_name("particles.star"), names, [stack], "as it is", 16)
images = torch.rand(40, 16, 16, generator=torch.Generator().manual_seed(1))
with on_scratch(Slow(images, 1.5), wanted, Scratch(directory, keep=keep)) as there:
    assert torch.equal(there[np.arange(40)], images)
    Path(directory, f"ready{sys.argv[5]}").touch()
    time.sleep(float(sys.argv[6]))
"""


def start_copying(directory: Path, stack: Path, pause: float, name: str, hold: float = 0.0) -> subprocess.Popen[bytes]:
    words = [str(directory), str(stack), str(pause), "drop", name, str(hold)]
    return subprocess.Popen([sys.executable, "-c", _SLOW_COPY, *words])


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_killed_in_the_middle_of_a_copy(tmp_path: Path, origin: Counted, stack: Path) -> None:
    copying = start_copying(tmp_path, stack, 0.2, "A")
    wait_for(tmp_path / "readingA")
    copying.send_signal(signal.SIGKILL)
    copying.wait()
    (half,) = copies(tmp_path)
    assert not (half / "description.json").exists()
    with on_scratch(origin, wanted(stack), Scratch(tmp_path)) as images:  # the half copy is made anew
        assert origin.read == N
        torch.testing.assert_close(images_of(images, [39]), images_of(origin, [39]), rtol=0, atol=0)
    assert not copies(tmp_path)


def test_what_a_killed_job_left_goes_at_the_next_start(
    tmp_path: Path, origin: Counted, stack: Path, caplog: pytest.LogCaptureFixture
) -> None:
    using = start_copying(tmp_path, stack, 0.0, "A", hold=60)
    wait_for(tmp_path / "readyA")
    using.send_signal(signal.SIGKILL)
    using.wait()
    assert len(copies(tmp_path)) == 1
    other = wanted(stack, [f"{n + 1:06d}@others.mrcs" for n in range(N)])
    with caplog.at_level(logging.INFO), on_scratch(origin, other, Scratch(tmp_path)):
        assert [place.name for place in copies(tmp_path)] == [other.key]
    assert "a killed job left" in caplog.text


def test_processes_of_a_node_copy_once(tmp_path: Path, stack: Path) -> None:
    both = [start_copying(tmp_path, stack, 0.02, name, hold=1.0) for name in ("A", "B")]
    assert [one.wait(60) for one in both] == [0, 0]
    assert len(list(tmp_path.glob("reading?"))) == 1  # only one of them read the origin
    assert not copies(tmp_path)


def test_a_description_survives_json(stack: Path) -> None:
    one = wanted(stack)
    assert Fingerprint.from_record(json.loads(json.dumps(one.record()))) == one


def test_images_make_room_for_their_description(
    tmp_path: Path, origin: Counted, stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = scratch.write_text, []

    def write_text(path: Path, text: str) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, text)

    monkeypatch.setattr(scratch, "write_text", write_text)
    with on_scratch(origin, wanted(stack), Scratch(tmp_path)) as images:
        (place,) = copies(tmp_path)
        copied = json.loads((place / "description.json").read_text())["copied"]
        assert 0 < copied < N
        assert (place / "images.f32").stat().st_size == copied * 4 * BOX * BOX
        torch.testing.assert_close(images_of(images, [0, 39]), images_of(origin, [0, 39]), rtol=0, atol=0)
