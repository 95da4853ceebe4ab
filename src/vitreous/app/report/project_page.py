"""The report of a whole run: what came out, every step's pictures, what was decided, what it took."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.app.report.job_page import footer_html
from vitreous.app.report.map_view import map_view_html
from vitreous.app.report.page import figures_html, job_figures, number, page, split_unit, table_html, tiles_html
from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map
from vitreous.job import catalogue
from vitreous.pipeline.project import read_record
from vitreous.pipeline.recipe import STATE
from vitreous.pipeline.record import read_metrics
from vitreous.runtime.atomic import write_text

# Sections of the report and the steps that belong to each.
_SECTIONS = (
    ("micrographs", "Micrographs and motion", ("simulate", "import", "motion")),
    ("ctf", "Contrast transfer", ("ctf", "assign-ctf")),
    ("particles", "Particles", ("pick", "extract-2d", "import-particles")),
    ("classes", "2D classes", ("classes", "select")),
    ("model", "Initial model", ("initial-model", "extract-3d")),
    ("refinement", "Refinement", ("refine", "mask")),
    ("resolution", "Resolution", ("postprocess", "localres")),
)
_HEADLINES = (
    ("postprocess", "fsc143_resolution_A", "Å", "resolution (half-maps, FSC 0.143)"),
    ("localres", "local_resolution_median_A", "Å", "median local resolution"),
    ("postprocess", "b_factor_A2", "Å²", "B factor of the sharpening"),
)

_TRUTH_TILES = (
    "truth_fsc05_resolution_A",
    "pick_recall",
    "pick_precision",
    "motion_rms_error_A",
    "defocus_rms_error_A",
    "pose_median_error_deg",
)


def write_project_page(root: Path, *, title: str = "", truth: dict[str, Any] | None = None) -> Path:
    """Write the project's report.html; returns its path.

    truth: what the comparison with a simulation's truth found, name -> figure. Raises InputError where nothing was run.
    """
    try:
        state = json.loads((root / STATE).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(root, "there is no run to report on", "Run `vitreous spa` there first") from error
    steps = {one["step"]: one for one in state["steps"]}
    places = {name: root / one["directory"] for name, one in steps.items()}
    metrics = {name: read_metrics(place) for name, place in places.items()}
    sections = [
        ("summary", "Summary", _summary(steps, metrics, truth)),
        ("map", "The map", _map(places)),
        *((anchor, heading, _steps(root, names, places, steps)) for anchor, heading, names in _SECTIONS),
        ("decisions", "What was decided", _decisions(state["decisions"])),
        ("left-out", "Left out", _left_out(metrics)),
        ("times", "Time and memory", _times(steps)),
    ]
    records = [record for place in places.values() if (record := read_record(place))]
    last = steps[next(reversed(steps))]["summary"] if steps else ""
    path = root / "report.html"
    lead = escape(_sentence(steps, metrics) or last)
    write_text(path, page(title or root.name, lead, sections, footer_html(records[-1] if records else {})))
    return path


def _sentence(steps: dict[str, Any], metrics: dict[str, Any]) -> str:
    found = metrics.get("postprocess", {}).get("metrics", {}).get("fsc143_resolution_A")
    if found is None:
        return f"{len(steps)} steps done." if steps else ""
    seconds = sum(float(one["seconds"] or 0) for one in steps.values())
    return f"A map at {found:.2f} Å after {_duration(seconds)} of work in {len(steps)} steps."


def _summary(steps: dict[str, Any], metrics: dict[str, Any], truth: dict[str, Any] | None) -> str:
    tiles = []
    for step, name, unit, what in _HEADLINES:
        value = metrics.get(step, {}).get("metrics", {}).get(name)
        if isinstance(value, (int, float)):
            tiles.append((number(float(value)), unit, what))
    for step, words in (("ctf", "micrographs"), ("extract-2d", "particles picked"), ("select", "particles kept")):
        count = _count(metrics.get(step, {}).get("metrics", {}))
        if count is not None:
            tiles.append((number(count), "", words))
    tiles.append((_duration(sum(float(one["seconds"] or 0) for one in steps.values())), "", "of work"))
    peaks = [float(one["peak_rss_gb"]) for one in steps.values() if one.get("peak_rss_gb")]
    if peaks:
        tiles.append((f"{max(peaks):.2f}", "GB", "memory at most"))
    html = tiles_html(tiles)
    if truth:
        html += "<h3>Against the truth of the simulation</h3>" + _against_truth(truth)
    return html


def _against_truth(truth: dict[str, Any]) -> str:
    """The figures that matter most as tiles, all of them in a table."""
    found = {name: (*split_unit(name), number(value)) for name, value in truth.items() if value is not None}
    tiles = tiles_html((found[name][2], found[name][1], found[name][0]) for name in _TRUTH_TILES if name in found)
    rows = [(escape(words), escape(value), escape(unit)) for words, unit, value in found.values()]
    return (
        f"{tiles}<details><summary>all figures</summary>{table_html(('figure', 'value', 'unit'), rows, (1,))}</details>"
    )


def _count(metrics: dict[str, Any]) -> int | None:
    """How many items a step ended with, whatever it calls them."""
    for name in ("n_particles", "n_micrographs", "n_movies"):
        if isinstance(metrics.get(name), int):
            return int(metrics[name])
    return None


def _map(places: dict[str, Path]) -> str:
    post = places.get("postprocess")
    if post is None:
        return ""
    path = next((post / one for one in ("postprocess_masked.mrc", "postprocess.mrc") if (post / one).exists()), None)
    if path is None:
        return ""
    volume = read_map(path)
    density = _array(volume)
    mask = _same_grid(places.get("mask"), "mask.mrc", density.shape)
    resolution = _same_grid(places.get("localres"), "relion_locres.mrc", density.shape)
    return map_view_html(density, volume.voxel_size, mask, resolution)


def _array(volume: Volume) -> Any:
    return np.asarray(volume.density)


def _same_grid(directory: Path | None, name: str, shape: tuple[int, ...]) -> Any:
    """A map of another step, where there is one on the same grid."""
    if directory is None or not (directory / name).exists():
        return None
    found = _array(read_map(directory / name))
    return found if found.shape == shape else None


def _steps(root: Path, names: tuple[str, ...], places: dict[str, Path], steps: dict[str, Any]) -> str:
    html = ""
    for name in names:
        if name not in places:
            continue
        entry = catalogue().get(steps[name]["job"])
        module = entry.module.rsplit(".", 1)[-1] if entry else steps[name]["job"]
        pictures = figures_html(job_figures(module, places[name], root))
        place = escape(steps[name]["directory"])
        summary = escape(steps[name]["summary"])
        html += f'<h3>{escape(name)} <span class="note">· {place}</span></h3><p>{summary}</p>{pictures}'
    return html


def _decisions(decisions: list[dict[str, str]]) -> str:
    if not decisions:
        return ""
    cells = ("step", "name", "value", "reason")
    return table_html(("step", "what", "value", "why"), [[escape(one[key]) for key in cells] for one in decisions])


def _left_out(metrics: dict[str, Any]) -> str:
    rows = [
        (escape(step), escape(one["item"]), escape(one["reason"]))
        for step, content in metrics.items()
        for one in content.get("quarantined", [])
    ]
    return table_html(("step", "item", "reason"), rows) if rows else ""


def _times(steps: dict[str, Any]) -> str:
    total = sum(float(one["seconds"] or 0) for one in steps.values()) or 1.0
    rows = []
    for name, one in steps.items():
        seconds = float(one["seconds"] or 0)
        memory = f"{float(one['peak_rss_gb']):.2f}" if one.get("peak_rss_gb") else ""
        bar = f'<div class="bar" style="width:{100 * seconds / total:.1f}%"></div>'
        rows.append((escape(name), escape(one["directory"]), f"{seconds:.1f}", memory, bar))
    rows.append(("<b>all</b>", "", f"<b>{total:.1f}</b>", "", ""))
    return table_html(("step", "job", "seconds", "GB at most", "share"), rows, (2, 3))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
