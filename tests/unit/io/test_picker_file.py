from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.io.picker_file import PickerRecord, read_picker, write_picker

RECORD = PickerRecord(9.0, 130.0, 2.0, True, False, 1.5, -0.25, "vitreous test", 120, 0.9)
WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4)}


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('ran')",))


def test_a_picker_comes_back(tmp_path: Path) -> None:
    write_picker(tmp_path / "p.pt", WEIGHTS, RECORD)
    weights, record = read_picker(tmp_path / "p.pt")
    assert record == RECORD
    assert all(torch.equal(weights[name], value) for name, value in WEIGHTS.items())


def test_what_is_no_picker_is_one_line_and_runs_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_picker(tmp_path / "none.pt")
    (tmp_path / "a.pt").write_text("hello")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"format": "vitreous picker 1", "record": Evil()}, tmp_path / "c.pt")
    torch.save({"weights": {}}, tmp_path / "d.pt")
    for name in "abcd":
        with pytest.raises(InputError, match="is no picker"):
            read_picker(tmp_path / f"{name}.pt")
    torch.save({"format": "vitreous picker 9"}, tmp_path / "e.pt")
    with pytest.raises(InputError, match="vitreous picker 9"):
        read_picker(tmp_path / "e.pt")


def test_changed_weights_or_record_do_not_pass(tmp_path: Path) -> None:
    write_picker(tmp_path / "p.pt", WEIGHTS, RECORD)
    content = torch.load(tmp_path / "p.pt", weights_only=True)
    content["weights"]["b"][1] = 1e-7
    torch.save(content, tmp_path / "q.pt")
    with pytest.raises(InputError, match="checksum"):
        read_picker(tmp_path / "q.pt")
    write_picker(tmp_path / "p.pt", WEIGHTS, RECORD)
    content = torch.load(tmp_path / "p.pt", weights_only=True)
    content["record"]["pixel_size"] = replace(RECORD, pixel_size=9.5).pixel_size
    torch.save(content, tmp_path / "q.pt")
    with pytest.raises(InputError, match="checksum"):
        read_picker(tmp_path / "q.pt")
