"""Whatever a table holds, a STAR file gives it back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.data.table import Table
from vitreous.io.relion import read_tables, write_tables
from vitreous.io.star import StarBlock, read_star, write_star

# Printable text of any script; a STAR value is one line, and the other line ends of Unicode are Python's alone.
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12).filter(
    lambda text: not any(mark in text for mark in ("\x85", "\u2028", "\u2029"))
)
LABELS = st.lists(st.from_regex(r"rln[A-Z][a-z]{1,6}", fullmatch=True), min_size=1, max_size=5, unique=True)


def writable(text: str) -> bool:
    """STAR has no way to write a value with both kinds of quotes before spaces."""
    padded = text + " "
    return not any('"' + c in padded for c in SPACES) or not any("'" + c in padded for c in SPACES)


SPACES = [chr(c) for c in range(0x3001) if chr(c).isspace()]
VALUES = TEXT.filter(writable)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    n = draw(st.integers(1, 6))
    columns = {}
    for label in draw(LABELS):
        kind = draw(st.sampled_from(["float", "int", "str"]))
        if kind == "float":
            values = np.array(draw(st.lists(st.floats(), min_size=n, max_size=n)))
        elif kind == "int":
            values = np.array(draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n)), np.int64)
        else:
            values = np.array(draw(st.lists(VALUES, min_size=n, max_size=n)), dtype=object)
        columns[label] = values
    return Table(columns)


def same(before: np.ndarray, after: np.ndarray) -> bool:
    if before.dtype == object:
        # Names that look like numbers come back as numbers of the same text; nothing else may change.
        return all(a == b or str(a) == b or float(a) == float(b) for a, b in zip(after, before, strict=True))
    return bool(np.array_equal(before.astype(float), after.astype(float), equal_nan=True))


@settings(max_examples=200, deadline=None)
@given(table=tables(), name=st.from_regex(r"[a-z_]{0,8}", fullmatch=True))
def test_loops_round_trip(table: Table, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.star"
        write_star(path, {name: StarBlock(table)})
        back = read_star(path)
    assert list(back) == [name]
    assert list(back[name].columns) == list(table)
    for label in table:
        assert same(table[label], back[name][label])


@settings(max_examples=100, deadline=None)
@given(table=tables())
def test_single_values_round_trip(table: Table) -> None:
    values = table.row(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.star"
        write_star(path, {"general": StarBlock.of_values(values)})
        back = read_star(path)["general"]
    assert not back.is_loop
    for label in table:
        assert same(table[label][:1], back[label])


@settings(max_examples=50, deadline=None)
@given(
    names=st.lists(VALUES, min_size=1, max_size=5),
    angles=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=5),
)
def test_text_columns_of_ours_stay_text(names: list[str], angles: list[float]) -> None:
    table = Table({"micrograph_name": np.array(names, dtype=object), "rot": np.array(angles[: len(names)])})
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder) / "a.star", {"micrographs": table})
        back = read_tables(Path(folder) / "a.star")["micrographs"]
    assert back["micrograph_name"].tolist() == names
    assert back["rot"].tolist() == angles[: len(names)]
