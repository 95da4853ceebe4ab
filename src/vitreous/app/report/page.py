"""The pieces a report page is made of. Pages are self-contained: style, pictures and script stand inside."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from types import ModuleType

from vitreous.app.report.figure import Figure

log = logging.getLogger(__name__)

_UNITS = {
    "A": "Å",
    "A2": "Å²",
    "deg": "°",
    "px": "px",
    "gb": "GB",
    "GB": "GB",
    "seconds": "s",
    "s": "s",
    "um": "µm",
    "percent": "%",
}
_WORDS = {
    "seconds": ("time", "s"),
    "peak_rss_gb": ("memory at most", "GB"),
    "fsc143_resolution_A": ("resolution (FSC 0.143)", "Å"),
    "fsc05_resolution_A": ("resolution (FSC 0.5)", "Å"),
    "truth_fsc05_resolution_A": ("agreement with the truth (FSC 0.5)", "Å"),
}
_HEADER_BYTES = 24  # a PNG's header ends with its width and height
_WIDE_RATIO, _WIDE_PIXELS = 2.1, 950  # pictures wider than this get a row of their own


def page(title: str, lead: str, sections: Sequence[tuple[str, str, str]], footer: str, *, refresh: int = 0) -> str:
    """A whole page. sections: (anchor, title, inner HTML); empty ones are left out.

    refresh: seconds after which a browser loads it again (0: never).
    """
    again = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    filled = [(anchor, heading, inner) for anchor, heading, inner in sections if inner.strip()]
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in filled)
    body = "".join(
        f'<section id="{anchor}"><h2>{escape(heading)}</h2>{inner}</section>\n' for anchor, heading, inner in filled
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{again}<title>{escape(title)}</title><style>{style}</style></head><body>\n"
        f'<header><h1>{escape(title)}</h1><p class="lead">{lead}</p></header>\n'
        f"<nav><div>{links}</div></nav>\n<main>{body}</main>\n<footer>{footer}</footer></body></html>\n"
    )


def figure_html(figure: Figure) -> str:
    """One picture with its words; wide pictures take a whole row."""
    width, height = png_size(figure.png)
    wide = ' class="wide"' if height and (width / height > _WIDE_RATIO or width > _WIDE_PIXELS) else ""
    return (
        f'<figure{wide}><img class="plot" alt="{escape(figure.title)}" src="{data_uri(figure.png)}">'
        f"<figcaption><b>{escape(figure.title)}.</b> {escape(figure.caption)}</figcaption></figure>"
    )


def figures_html(figures: Iterable[Figure]) -> str:
    """Pictures side by side where there is room."""
    inner = "".join(figure_html(one) for one in figures)
    return f'<div class="figures">{inner}</div>' if inner else ""


def data_uri(png: bytes) -> str:
    """A picture as it stands inside a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header."""
    if len(png) < _HEADER_BYTES:
        return 0, 0
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def table_html(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """A table; cells are HTML already. numeric: columns set flush right."""
    mark = {index: ' class="number"' for index in numeric}
    head = "".join(f"<th{mark.get(index, '')}>{escape(title)}</th>" for index, title in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f"<td{mark.get(index, '')}>{cell}</td>" for index, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def tiles_html(figures: Iterable[tuple[str, str, str]]) -> str:
    """Big numbers: (value, unit, what it is)."""
    inner = "".join(
        f"<div class='tile'><b>{escape(value)}<small>{escape(unit)}</small></b><span>{escape(what)}</span></div>"
        for value, unit, what in figures
    )
    return f"<div class='tiles'>{inner}</div>" if inner else ""


def split_unit(name: str) -> tuple[str, str]:
    """A metric's name into words and unit: fsc143_resolution_A -> ("fsc143 resolution", "Å")."""
    if name in _WORDS:
        return _WORDS[name]
    head, _, tail = name.rpartition("_")
    words, unit = (head, _UNITS[tail]) if tail in _UNITS and head else (name, "")
    return words.removeprefix("n_").replace("_", " "), unit


def number(value: object) -> str:
    """A figure with as many digits as one would say."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def job_figures(module: str, directory: Path, project: Path) -> list[Figure]:
    """A job's pictures; none where nobody draws them, and a line in the log where drawing fails.

    module: the job's module name ("motioncorr", "import_").
    """
    try:
        drawing = _drawing(module)
        found: list[Figure] = drawing.figures(directory, project) if drawing is not None else []
    except Exception:
        # A picture that cannot be drawn must not cost the user the job that it pictures.
        log.warning("the figures of %s could not be drawn (see run.log); the job itself is done", directory.name)
        log.info("drawing failed", exc_info=True)
        return []
    return found


def import_drawing(module: str) -> None:
    """Import what will draw a job's pictures, ahead of need; what is wrong with it is said when they are drawn."""
    with suppress(Exception):
        _drawing(module)


def _drawing(module: str) -> ModuleType | None:
    name = f"vitreous.app.report.figures.{module}"
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None
