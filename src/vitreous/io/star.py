"""STAR files: blocks of loops or single values, read and written by column.

The dialect is RELION's: a row of a loop is one line, an empty line ends a loop, values with spaces are
quoted. Reading streams through the file, so that a million particles need little more memory than their
columns; numbers round-trip exactly. Format: Hall (1991) J. Chem. Inf. Comput. Sci. 31, 326.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.columns import Kind
from vitreous.data.table import Table
from vitreous.io.star_text import convert_column, format_rows, format_value
from vitreous.runtime.atomic import atomic_path

KindOf = Callable[[str], Kind | None]
_TOKEN = re.compile(r"""'((?:[^']|'(?!\s|$))*)'(?=\s|$)|"((?:[^"]|"(?!\s|$))*)"(?=\s|$)|(\#.*)|(\S+)""")
# A loop is read in growing pieces: small ones cost little to look ahead in, large ones are quick.
_FIRST_CHUNK, _LARGEST_CHUNK, _GROWTH = 64, 20_000, 4


@dataclass(frozen=True)
class StarBlock:
    """One data block. columns: label without the underscore -> values; a block of single values has one row.

    comments: the '#' lines above the block (RELION keeps its format version there).
    """

    columns: Table
    is_loop: bool = True
    comments: tuple[str, ...] = field(default=())

    def __getitem__(self, label: str) -> NDArray[Any]:
        return self.columns[label]

    def __contains__(self, label: object) -> bool:
        return label in self.columns

    def value(self, label: str) -> Any:
        """The value of a label in a block of single values (or the first row of a loop)."""
        return self.columns[label][0]

    @staticmethod
    def of_values(values: Mapping[str, object], comments: tuple[str, ...] = ()) -> StarBlock:
        """A block of single values."""
        columns = {
            label: np.array([value], dtype=object) if isinstance(value, str) else np.asarray([value])
            for label, value in values.items()
        }
        return StarBlock(Table(columns), is_loop=False, comments=comments)


def read_star(
    path: str | Path, only: Collection[str] | None = None, kind_of: KindOf | None = None
) -> dict[str, StarBlock]:
    """Read a STAR file: block name (without "data_") -> block.

    only: names of the blocks wanted; the others are skipped quickly. kind_of: label -> kind of its column, or
    None to take it from the text (int, float or str). Raises InputError for what is no STAR file.
    """
    file = Path(path)
    as_text: set[str] = set()
    while True:
        try:
            with file.open(encoding="utf-8", errors="surrogateescape", newline="\n") as handle:
                return _Reader(file, handle, only, lambda label: _kind(label, as_text, kind_of)).read()
        except _MixedColumn as mixed:
            as_text.add(mixed.label)
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
            raise InputError(file, what, "Check the name and the permissions.") from error


def _kind(label: str, as_text: Collection[str], kind_of: KindOf | None) -> Kind | None:
    if label in as_text:
        return "str"
    return None if kind_of is None else kind_of(label)


def write_star(path: str | Path, blocks: Mapping[str, StarBlock]) -> None:
    """Write blocks in order, atomically. Raises ValueError for text that STAR cannot hold (line breaks)."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as handle,
    ):
        for name, block in blocks.items():
            handle.write("\n")
            for comment in block.comments:
                handle.write(f"# {comment}\n")
            handle.write(f"{'' if not block.comments else chr(10)}data_{name}\n\n")
            labels = list(block.columns)
            if block.is_loop:
                handle.write("loop_ \n")
                handle.writelines(f"_{label} #{index} \n" for index, label in enumerate(labels, 1))
                handle.writelines(format_rows([block.columns[label] for label in labels]))
            else:
                width = max((len(label) for label in labels), default=0) + 12
                for label in labels:
                    handle.write(f"_{label:<{width}} {format_value(block.columns[label][0])}\n")
            handle.write(" \n")


class _Reader:
    """One pass over the lines of a file, with one line of look-ahead."""

    def __init__(self, path: Path, lines: Iterator[str], only: Collection[str] | None, kind_of: KindOf) -> None:
        self.path = path
        self.lines = lines
        self.held: deque[str] = deque()  # lines that were read too far
        self.only = only
        self.kind_of = kind_of
        self.line_number = 0

    def read(self) -> dict[str, StarBlock]:
        blocks: dict[str, StarBlock] = {}
        comments: list[str] = []
        while (line := self._next()) is not None:
            text = line.strip()
            if text.startswith("#"):
                comments.append(text.lstrip("# "))
            elif text[:5].lower() == "data_":
                name = text[5:].split()[0] if text[5:].split() else ""
                if name in blocks:
                    raise self._error(f"has two blocks called data_{name}")
                wanted = self.only is None or name in self.only
                block, following = self._block(tuple(comments), wanted)
                comments = following
                if wanted:
                    blocks[name] = block
            elif text:
                raise self._error(f"has text before any data_ block: {text[:40]!r}")
        if not blocks and self.only is None:
            raise InputError(self.path, "is not a STAR file: there is no data_ block", "Give a STAR file.")
        return blocks

    def _next(self) -> str | None:
        line = self.held.popleft() if self.held else next(self.lines, None)
        if line is None:
            return None
        self.line_number += 1
        if "\0" in line:
            raise InputError(self.path, "is not a STAR file: it holds binary data", "Give a STAR (text) file.")
        return line

    def _take(self, count: int) -> list[str]:
        """The next lines, up to count; fewer at the end."""
        lines = [self.held.popleft() for _ in range(min(count, len(self.held)))]
        lines.extend(islice(self.lines, count - len(lines)))
        self.line_number += len(lines)
        return lines

    def _give_back(self, lines: list[str]) -> None:
        self.held.extendleft(reversed(lines))
        self.line_number -= len(lines)

    def _error(self, what: str) -> InputError:
        return InputError(self.path, f"line {self.line_number} {what}", "Mend the line or write the file anew.")

    def _block(self, comments: tuple[str, ...], wanted: bool) -> tuple[StarBlock, list[str]]:
        """Read up to the next block. Returns it and the comments that belong to the next one."""
        values: dict[str, str] = {}
        loop: StarBlock | None = None
        following: list[str] = []
        while (line := self._next()) is not None:
            text = line.strip()
            if not text:
                continue
            if text.startswith("#"):
                following.append(text.lstrip("# "))
                continue
            if text[:5].lower() == "data_":
                self._give_back([line])
                break
            following = []
            if text.split()[0].lower() == "loop_":
                if values or loop is not None:
                    raise self._error("starts a second table within one data block")
                loop = self._loop(comments, wanted)
            elif text.startswith("_"):
                if loop is not None:
                    raise self._error("has a single value within a loop's block")
                self._single_value(text, values)
            else:
                raise self._error(f"belongs to no loop: {text[:40]!r}")
        if loop is not None:
            return loop, following
        columns = {label: self._convert(label, (text,))[0] for label, text in values.items()} if wanted else {}
        return StarBlock(Table(columns), is_loop=False, comments=comments), following

    def _single_value(self, text: str, values: dict[str, str]) -> None:
        tokens = _tokens(text)
        label = tokens[0][1:]
        if len(tokens) < 2:
            raise self._error(f"gives no value for _{label}")
        if label in values:
            raise self._error(f"gives _{label} twice")
        values[label] = " ".join(tokens[1:])

    def _loop(self, comments: tuple[str, ...], wanted: bool) -> StarBlock:
        labels: list[str] = []
        while (line := self._next()) is not None:
            text = line.strip()
            if text.startswith("_"):
                labels.append(text.split()[0][1:])
            elif text and not text.startswith("#"):
                self._give_back([line])
                break
        if not labels:
            raise self._error("starts a loop without labels")
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise self._error(f"ends a loop that names _{twice} twice")
        return StarBlock(self._rows(labels, wanted), comments=comments)

    def _rows(self, labels: list[str], wanted: bool) -> Table:
        pieces: dict[str, list[NDArray[Any]]] = {label: [] for label in labels}
        kinds: dict[str, Kind] = {}
        size = _FIRST_CHUNK
        while rows := self._chunk(len(labels), size):
            size = min(size * _GROWTH, _LARGEST_CHUNK)
            if not wanted:
                continue
            for label, texts in zip(labels, zip(*rows, strict=True), strict=True):
                array, kind = self._convert(label, texts)
                if (kind == "str") != (kinds.setdefault(label, kind) == "str"):
                    raise _MixedColumn(label)
                pieces[label].append(array)
        return Table({label: _join(parts, self.kind_of(label)) for label, parts in pieces.items()})

    def _chunk(self, n_columns: int, size: int) -> list[list[str]]:
        """The tokens of up to `size` rows; an empty list where the loop has ended."""
        lines = self._take(size)
        joined = "".join(lines)
        if "\0" in joined:
            raise InputError(self.path, "is not a STAR file: it holds binary data", "Give a STAR (text) file.")
        plain = not any(mark in joined for mark in "\"'#")
        rows = list(map(str.split, lines)) if plain else list(map(_tokens, lines))
        end = next((i for i, row in enumerate(rows) if len(row) != n_columns), None)
        if end is None:
            return rows
        self._give_back(lines[end:])
        text = lines[end].strip()
        if text and not text.startswith("#") and not _starts_block(rows[end]):
            self.line_number += 1
            raise self._error(f"has {len(rows[end])} values, the loop has {n_columns} columns")
        return rows[:end]

    def _convert(self, label: str, texts: tuple[str, ...]) -> tuple[NDArray[Any], Kind]:
        try:
            return convert_column(texts, self.kind_of(label))
        except ValueError as error:
            raise InputError(
                self.path, f"column _{label} holds {error} where a number must stand", "Mend the value."
            ) from error


class _MixedColumn(Exception):
    """A column of numbers turned out to hold names further down: the file is read again with it as text."""

    def __init__(self, label: str) -> None:
        self.label = label
        super().__init__(label)


def _join(parts: list[NDArray[Any]], kind: Kind | None) -> NDArray[Any]:
    if not parts:
        empty = {"float": np.float64, "int": np.int64, "bool": np.bool_}.get(kind or "str", np.object_)
        return np.empty(0, dtype=empty)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _starts_block(tokens: list[str]) -> bool:
    return len(tokens) >= 1 and (tokens[0][:5].lower() in ("data_", "loop_") or tokens[0].startswith("_"))


def _tokens(line: str) -> list[str]:
    """Values of a line with quotes taken off and a trailing comment left out."""
    if '"' not in line and "'" not in line and "#" not in line:
        return line.split()
    tokens = []
    for match in _TOKEN.finditer(line):
        single, double, comment, word = match.groups()
        if comment is not None:
            break
        tokens.append(word if word is not None else single if single is not None else double)
    return tokens
