"""Text to columns and back, as STAR files need it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.columns import Kind

_WIDTH = 12  # RELION's column width
_CHUNK_ROWS = 20_000
_DECIMALS = 6
_STARTS = ('"', "'", "#")  # of a value: quotes and comments
_FIRST_STARTS = ("_", ";")  # of a line: labels and text fields
_BLOCK_WORD = re.compile(r"\0(?:data_|loop_)", re.IGNORECASE)
_PRINTED_INTEGER = 1e9  # larger ones are written in the shortest form


def convert_column(texts: Sequence[str], kind: Kind | None) -> tuple[NDArray[Any], Kind]:
    """Text values to an array and its kind; kind None: int, float or str, whichever keeps all of the text's meaning.

    Raises ValueError naming the first value that is no number where one must stand.
    """
    if kind == "str":
        return _strings(texts), "str"
    if kind is None:
        return _guess(texts)
    if kind == "float":
        return _floats(texts), "float"
    try:
        array = np.fromiter(map(int, texts), np.int64, len(texts))
    except (ValueError, OverflowError):
        values = _floats(texts)
        # RELION sometimes writes counts with decimals (1.000000): only whole ones may pass as integers.
        if not np.all(values == np.round(values)):
            bad = next(text for text, value in zip(texts, values, strict=True) if value != round(value))
            raise ValueError(repr(bad)) from None
        array = values.astype(np.int64)
    return (array.astype(np.bool_), "bool") if kind == "bool" else (array, "int")


def _strings(texts: Sequence[str]) -> NDArray[Any]:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def _floats(texts: Sequence[str]) -> NDArray[Any]:
    try:
        return np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        raise ValueError(repr(next(text for text in texts if not _is_float(text)))) from None


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _guess(texts: Sequence[str]) -> tuple[NDArray[Any], Kind]:
    first = texts[0]
    if not _is_float(first) or any("_" in text for text in texts):
        return _strings(texts), "str"  # Python reads 1_000 as a number; in a STAR file it is a name
    try:
        integers = list(map(int, texts))
        if list(map(str, integers)) != list(texts):  # 007 and +5 are names or lose their form: keep the text
            return _strings(texts), "str"
        return np.fromiter(integers, np.int64, len(texts)), "int"
    except (ValueError, OverflowError):
        pass
    try:
        return np.fromiter(map(float, texts), np.float64, len(texts)), "float"
    except ValueError:
        return _strings(texts), "str"


def format_value(value: Any) -> str:
    """One value as STAR text, quoted where it must be."""
    column = np.array([value], dtype=object) if isinstance(value, str) else np.asarray([value])
    spec, values = _prepare(column, first=True)
    return (spec % values[0]).strip()


def format_rows(columns: Sequence[NDArray[Any]]) -> Iterator[str]:
    """Rows of a loop as lines, in pieces of some thousand rows."""
    n_rows = len(columns[0]) if columns else 0
    for start in range(0, n_rows, _CHUNK_ROWS):
        ready = [_prepare(column[start : start + _CHUNK_ROWS], first=i == 0) for i, column in enumerate(columns)]
        line = " ".join(spec for spec, _ in ready) + " \n"
        # One format a row, not one a value: this is what makes a million rows a matter of seconds.
        yield "".join(map(line.__mod__, zip(*(values for _, values in ready), strict=True)))


def _prepare(values: NDArray[Any], first: bool) -> tuple[str, list[Any]]:
    """The % format of a column and its values as that format takes them."""
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if values.dtype.kind in "iu":
        return f"%{_WIDTH}d", values.tolist()
    if values.dtype.kind == "f":
        return _prepare_floats(values)
    texts = [value if type(value) is str else str(value) for value in values.tolist()]
    return "%s", texts if _are_plain(texts, first) else [_quote(text, first) for text in texts]


def _prepare_floats(values: NDArray[Any]) -> tuple[str, list[Any]]:
    """RELION's six decimals where they hold the value exactly, else the shortest text that does."""
    if values.dtype != np.float64:
        # A float32 has at most nine significant digits: the shortest text of it, not of its float64.
        values = np.array([float(str(value)) for value in values], dtype=np.float64)
    with np.errstate(all="ignore"):
        six_decimals = (np.abs(values) < _PRINTED_INTEGER) & (np.round(values, _DECIMALS) == values)
        six_decimals &= ~(np.signbit(values) & (values == 0))
    spec = f"%{_WIDTH}.{_DECIMALS}f"
    if six_decimals.all():
        return spec, values.tolist()
    if not six_decimals.any() and np.isfinite(values).all():
        return f"%{_WIDTH}r", values.tolist()
    pairs = zip(values.tolist(), six_decimals.tolist(), strict=True)
    return "%s", [spec % value if plain else _shortest(value) for value, plain in pairs]


def _shortest(value: float) -> str:
    if math.isfinite(value):
        return repr(value).rjust(_WIDTH)
    return ("nan" if math.isnan(value) else "inf" if value > 0 else "-inf").rjust(_WIDTH)


def _are_plain(texts: list[str], first: bool) -> bool:
    """Whether no value needs quotes. Looks at all of them in one string: one at a time would take seconds."""
    joined = "\0" + "\0".join(texts)
    starts = _STARTS + (_FIRST_STARTS if first else ())
    return (
        "" not in texts
        and joined.count("\0") == len(texts)
        and joined.split() == [joined]
        and not any("\0" + start in joined for start in starts)
        and not (first and _BLOCK_WORD.search(joined))
    )


def _quote(text: str, first: bool) -> str:
    """Quote a string that would not read back as itself.

    first: it stands first on its line, where words such as data_ have a meaning. RELION 3.1 does not know
    quotes, so that nothing is quoted without need.
    """
    if "\n" in text or "\r" in text or "\0" in text:
        raise ValueError(f"a STAR value cannot hold a line break: {text[:40]!r}")
    if _are_plain([text], first):
        return text
    for mark in ('"', "'"):
        if not re.search(mark + r"(\s|$)", text):
            return f"{mark}{text}{mark}"
    raise ValueError(f"a STAR value cannot hold both kinds of quotes before spaces: {text[:40]!r}")
