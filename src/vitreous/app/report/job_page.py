"""A job's own report.html: its figures, its numbers, what it was given, what it left out."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any

from vitreous.app.report.page import figures_html, job_figures, number, page, split_unit, table_html, tiles_html
from vitreous.job import catalogue
from vitreous.pipeline.project import read_record
from vitreous.pipeline.record import read_metrics
from vitreous.runtime.atomic import write_text

_PAGE = "report.html"
_REFRESH_S = 20


def write_job_page(directory: Path, project: Path, *, running: bool = False) -> Path:
    """Write report.html into a job's directory; returns its path. running: it is not done, this is what there is."""
    record = read_record(directory) or {}
    content = read_metrics(directory)
    name = str(record.get("job", directory.name))
    entry = catalogue().get(name)
    sections = [
        ("result", "Result", metrics_html(content.get("metrics", {}))),
        ("figures", "Figures", figures_html(job_figures(module_of(name), directory, project))),
        ("left-out", "Left out", quarantined_html(content.get("quarantined", []))),
        ("parameters", "Parameters", parameters_html(record.get("parameters", {}))),
    ]
    lead = escape(str(content.get("summary", ""))) or escape(entry.help if entry else "")
    still = any("<script" in inner for _, _, inner in sections)  # a map that someone is turning is left alone
    refresh = _REFRESH_S if running and not still else 0
    if running:
        how = "the page loads itself again" if refresh else "load the page again for the next"
        lead = f"Still running: this is the state at {time.strftime('%H:%M:%S')}; {how}. {lead}"
    path = directory / _PAGE
    title = f"{name} — {_short(directory, project)}"
    write_text(path, page(title, lead, sections, footer_html(record), refresh=refresh))
    return path


def module_of(name: str) -> str:
    """The name of the module that a job, and that its figures are in."""
    entry = catalogue().get(name)
    return entry.module.rsplit(".", 1)[-1] if entry else name


def metrics_html(metrics: dict[str, Any]) -> str:
    """The job's figures as tiles."""
    tiles = []
    for name, value in metrics.items():
        words, unit = split_unit(name)
        tiles.append((number(value), unit, words))
    return tiles_html(tiles)


def quarantined_html(items: list[dict[str, str]]) -> str:
    """What was left out, and why."""
    return (
        table_html(("item", "reason"), [(escape(one["item"]), escape(one["reason"])) for one in items]) if items else ""
    )


def parameters_html(parameters: dict[str, Any]) -> str:
    """What the job was given, folded away."""
    if not parameters:
        return ""
    rows = [(f"<code>{escape(name)}</code>", escape(str(value))) for name, value in parameters.items()]
    return f"<details><summary>all {len(rows)} parameters</summary>{table_html(('name', 'value'), rows)}</details>"


def footer_html(record: dict[str, Any]) -> str:
    """What made the page."""
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    return escape(f"{record.get('started', '')} · {versions} · seed {record.get('seed', '')}")


def _short(directory: Path, project: Path) -> str:
    return str(directory.relative_to(project)) if directory.is_relative_to(project) else directory.name
