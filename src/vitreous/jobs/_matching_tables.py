"""Hits as tables: Leopard-EM's results, RELION's coordinates and particles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.named_aberrations import Aberrations
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.jobs._matching_task import Matched
from vitreous.methods.matching.transfer import Lens

_OPTICS = {
    "voltage": "voltage",
    "spherical_aberration": "cs",
    "amplitude_contrast_ratio": "amplitude_contrast",
    "pixel_size": "micrograph_pixel_size",
}
_ANGLES = {"rot": "phi", "tilt": "theta", "psi": "psi"}


def centres(matched: Matched) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) of the hits' centres on the micrograph, pixels: the template's centre is half a box further on."""
    half = matched.box // 2
    return matched.hits.peaks.positions[:, 0] + half, matched.hits.peaks.positions[:, 1] + half


def results_columns(matched: Matched, lens: Lens, micrograph: Path, template: Path) -> dict[str, Any]:
    """Columns of the results table, Leopard-EM's names, and our p_value."""
    hits, n = matched.hits, len(matched.hits)
    y, x = centres(matched)

    def same(value: Any) -> np.ndarray:
        return np.full(n, value, dtype=object if isinstance(value, str) else None)

    ours = {"psi": "psi", "theta": "theta", "phi": "phi", "defocus": "relative_defocus"}
    ours |= {
        "correlation_average": "mean",
        "correlation_variance": "variance",
        "mip": "mip",
        "scaled_mip": "scaled_mip",
    }
    paths = {f"{theirs}_path": same(str(matched.files[name])) for theirs, name in ours.items()}
    return {
        "particle_index": np.arange(n),
        "mip": hits.mip,
        "scaled_mip": hits.peaks.scores,
        "correlation_mean": hits.mean,
        "correlation_variance": hits.variance,
        "total_correlations": same(matched.n_correlations),
        "pos_x": hits.peaks.positions[:, 1],
        "pos_y": hits.peaks.positions[:, 0],
        "pos_x_img": x,
        "pos_y_img": y,
        "pos_x_img_angstrom": x * lens.pixel_size,
        "pos_y_img_angstrom": y * lens.pixel_size,
        "phi": hits.phi,
        "theta": hits.theta,
        "psi": hits.psi,
        "relative_defocus": hits.relative_defocus,
        "defocus_u": same(lens.defocus_u),
        "defocus_v": same(lens.defocus_v),
        "astigmatism_angle": same(lens.defocus_angle),
        "pixel_size": same(lens.pixel_size),
        "refined_pixel_size": lens.pixel_size / hits.scale,
        "voltage": same(lens.microscope.voltage),
        "spherical_aberration": same(lens.microscope.cs),
        "amplitude_contrast_ratio": same(lens.microscope.amplitude_contrast),
        "phase_shift": same(lens.phase_shift),
        "ctf_B_factor": same(lens.b_factor),
        "even_zernikes": same(_named(lens.aberrations.even)),
        "odd_zernikes": same(_named(lens.aberrations.odd)),
        "mag_matrix": same(_matrix(lens.aberrations)),
        "micrograph_path": same(str(micrograph)),
        "template_path": same(str(template)),
        "p_value": hits.p_values,
        **paths,
    }


def _named(terms: Any) -> str:
    return json.dumps(dict(terms)) if terms else ""


def _matrix(aberrations: Aberrations) -> str:
    return "" if aberrations == Aberrations() else json.dumps([v for row in aberrations.magnification for v in row])


def coordinates_table(matched: Matched) -> Table:
    """Picks of one micrograph for `extract`, with their poses."""
    y, x = centres(matched)
    hits = matched.hits
    return Table(
        {
            "coordinate_x": x.astype(np.float64),
            "coordinate_y": y.astype(np.float64),
            "pick_score": hits.peaks.scores,
            "rot": hits.phi,
            "tilt": hits.theta,
            "psi": hits.psi,
        }
    )


def hits_table(done: list[tuple[str, Lens, Matched]]) -> Dataset:
    """All hits as RELION particles: coordinates, poses, own defocus; an optics group for each microscope."""
    kinds: list[tuple[float, ...]] = []
    tables = []
    for name, lens, matched in done:
        scope = lens.microscope
        kind = (scope.voltage, scope.cs, scope.amplitude_contrast, lens.pixel_size)
        if kind not in kinds:
            kinds.append(kind)
        picks, n = coordinates_table(matched), len(matched.hits)
        tables.append(
            picks.with_columns(
                micrograph_name=np.full(n, name, dtype=object),
                optics_group=np.full(n, kinds.index(kind) + 1, dtype=np.int64),
                defocus_u=lens.defocus_u + matched.hits.relative_defocus,
                defocus_v=lens.defocus_v + matched.hits.relative_defocus,
                defocus_angle=np.full(n, lens.defocus_angle),
                phase_shift=np.full(n, lens.phase_shift),
                origin_x=np.zeros(n),
                origin_y=np.zeros(n),
            )
        )
    numbers = np.arange(1, len(kinds) + 1)
    columns = dict(
        zip(("voltage", "cs", "amplitude_contrast", "micrograph_pixel_size"), zip(*kinds, strict=True), strict=True)
    )
    optics = Table(
        {
            "optics_group": numbers,
            "optics_group_name": np.array([f"opticsGroup{i}" for i in numbers], dtype=object),
            **{name: np.array(values) for name, values in columns.items()},
        }
    )
    return Dataset("particles", optics, Table.concatenate(tables))


def particles_of_results(results: Table, prefix: str = "") -> Dataset:
    """Rows of a results table as RELION particles; prefix: of the columns with position, pose and defocus."""
    number = {name: np.asarray(results[name], dtype=np.float64) for name in _OPTICS}
    kinds = np.stack(list(number.values()), 1)
    distinct, group = np.unique(kinds, axis=0, return_inverse=True)
    moved = np.asarray(results[f"{prefix}relative_defocus"], dtype=np.float64)
    rows = {
        "micrograph_name": results["micrograph_path"],
        "optics_group": group.reshape(-1).astype(np.int64) + 1,
        "coordinate_x": np.asarray(results[f"{prefix}pos_x_img"], dtype=np.float64),
        "coordinate_y": np.asarray(results[f"{prefix}pos_y_img"], dtype=np.float64),
        "pick_score": np.asarray(results[f"{prefix}scaled_mip"], dtype=np.float64),
        **{ours: np.asarray(results[f"{prefix}{theirs}"]) for ours, theirs in _ANGLES.items()},
        "defocus_u": np.asarray(results["defocus_u"], dtype=np.float64) + moved,
        "defocus_v": np.asarray(results["defocus_v"], dtype=np.float64) + moved,
        "defocus_angle": results["astigmatism_angle"],
        "phase_shift": results["phase_shift"],
        "origin_x": np.zeros(len(moved)),
        "origin_y": np.zeros(len(moved)),
    }
    optics = {ours: distinct[:, i] for i, ours in enumerate(_OPTICS.values())}
    numbers = np.arange(1, len(distinct) + 1)
    names = np.array([f"opticsGroup{i}" for i in numbers], dtype=object)
    return Dataset("particles", Table({"optics_group": numbers, "optics_group_name": names, **optics}), Table(rows))
