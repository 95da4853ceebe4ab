"""Steps that every road ends with: good classes, then from half-maps to a sharpened map."""

from __future__ import annotations

from typing import Any

from vitreous.pipeline.recipe import Road

HALF_MAP = "run_half1_class001_unfil.mrc"


def select_classes(road: Road[Any]) -> dict[str, Any]:
    """Choose among the classes of the last iteration."""
    return {"input": road.latest("classes", "run_it*_data.star")}


def make_mask(road: Road[Any]) -> dict[str, Any]:
    """A mask from the refined map."""
    return {"input": road.file("refine", "run_class001.mrc")}


def half_map_in_mask(road: Road[Any]) -> dict[str, Any]:
    """The first half-map and the mask: what post-processing and local resolution work on."""
    return {"input": road.file("refine", HALF_MAP), "mask": road.file("mask", "mask.mrc")}


def sharpen(road: Road[Any]) -> dict[str, Any]:
    """The same, saying how the mask was cut."""
    found = road.done["mask"]
    road.decide("mask", "mask threshold", f"{found.metrics.get('threshold', 0):.3g}", found.summary)
    return half_map_in_mask(road)
