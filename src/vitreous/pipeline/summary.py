"""The figures of a whole run, for summary.json and the report."""

from __future__ import annotations

from typing import Any

from vitreous.io.relion import read_dataset
from vitreous.pipeline.recipe import Road


def road_figures(road: Road[Any]) -> dict[str, Any]:
    """Resolution, counts, seconds of work (over all runs it took) and the largest resident memory of any step."""
    metrics = {name: step.metrics for name, step in road.done.items()}
    post = metrics.get("postprocess", {})
    figures: dict[str, Any] = {
        "fsc143_resolution_A": post.get("fsc143_resolution_A"),
        "b_factor_A2": post.get("b_factor_A2"),
        "local_resolution_median_A": metrics.get("localres", {}).get("local_resolution_median_A"),
    }
    for step, file, name in (
        ("ctf", "micrographs_ctf.star", "n_micrographs"),
        ("extract-2d", "particles.star", "n_picked"),
        ("assign-ctf", "particles.star", "n_picked"),
        ("select", "particles.star", "n_particles"),
    ):
        if step in road.done:
            figures[name] = len(read_dataset(road.path(step, file)))
    figures["seconds"] = round(sum(step.seconds for step in road.done.values()), 1)
    figures["peak_rss_gb"] = max((float(step.get("peak_rss_gb", 0.0)) for step in metrics.values()), default=0.0)
    return figures
