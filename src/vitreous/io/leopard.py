"""Leopard-EM's files: its YAML as it stands, its eight maps, its results table. The only place that knows its names."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import ArrayLike

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.runtime.atomic import atomic_path

# Our name of a map -> theirs.
MAP_NAMES = {
    "mip": "mip",
    "scaled_mip": "scaled_mip",
    "psi": "orientation_psi",
    "theta": "orientation_theta",
    "phi": "orientation_phi",
    "relative_defocus": "relative_defocus",
    "mean": "correlation_average",
    "variance": "correlation_variance",
}
RESULT_COLUMNS = (
    "particle_index", "mip", "scaled_mip", "correlation_mean", "correlation_variance", "total_correlations", "pos_x",
    "pos_y", "pos_x_img", "pos_y_img", "pos_x_img_angstrom", "pos_y_img_angstrom", "phi", "theta", "psi",
    "relative_defocus", "defocus_u", "defocus_v", "astigmatism_angle", "pixel_size", "refined_pixel_size", "voltage",
    "spherical_aberration", "amplitude_contrast_ratio", "phase_shift", "ctf_B_factor", "even_zernikes", "odd_zernikes",
    "mag_matrix", "micrograph_path", "template_path", "mip_path", "scaled_mip_path", "psi_path", "theta_path",
    "phi_path", "defocus_path", "correlation_average_path", "correlation_variance_path",
)  # fmt: skip
_REQUIRED = ("template_volume_path", "micrograph_path", "match_template_result", "optics_group")
_SECTIONS = ("defocus_search_config", "orientation_search_config", "preprocessing_filters", "computational_config")


@dataclass(frozen=True)
class LeopardOrientations:
    """One grid of the orientation search: steps and limits in degrees, None where not given."""

    psi_step: float = 1.5
    theta_step: float = 2.5
    symmetry: str = "C1"
    method: str = "uniform"
    limits: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class LeopardMatch:
    """A match_template configuration. optics: the optics group's fields; filters: the filters' sections.

    maps: their map name -> file. defocus: (lowest, highest, step) in A, None where disabled.
    """

    template: Path
    micrograph: Path
    optics: dict[str, Any]
    orientations: tuple[LeopardOrientations, ...]
    defocus: tuple[float, float, float] | None
    filters: dict[str, dict[str, Any]]
    maps: dict[str, Path]
    overwrite: bool
    uses_cpu: bool


def read_match_config(path: str | Path) -> LeopardMatch:
    """Read a MatchTemplateManager's YAML. Relative paths are relative to the working directory, as Leopard-EM's are.

    Raises InputError for what is missing or is not understood.
    """
    file = Path(path)
    try:
        config = yaml.safe_load(file.read_text())
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "Check the name and the permissions.") from error
    except yaml.YAMLError as error:
        raise InputError(file, f"is no YAML ({str(error).splitlines()[0]})", "Give Leopard-EM's YAML.") from error
    if not isinstance(config, dict):
        raise InputError(file, "is no match_template configuration", "Give Leopard-EM's YAML.")
    missing = [name for name in _REQUIRED if name not in config]
    unknown = [name for name in config if name not in (*_REQUIRED, *_SECTIONS)]
    if missing or unknown:
        what = f"has no {', '.join(missing)}" if missing else f"has an unknown section {unknown[0]}"
        raise InputError(file, what, "Give the YAML of Leopard-EM's match_template program.")
    result = config["match_template_result"] or {}
    maps = {name: Path(str(result[f"{name}_path"])) for name in MAP_NAMES.values() if result.get(f"{name}_path")}
    devices = (config.get("computational_config") or {}).get("gpu_ids", "all")
    return LeopardMatch(
        Path(str(config["template_volume_path"])),
        Path(str(config["micrograph_path"])),
        _optics(file, config["optics_group"] or {}),
        _orientations(file, config.get("orientation_search_config") or {}),
        _defocus(config.get("defocus_search_config")),
        {name: dict(section or {}) for name, section in (config.get("preprocessing_filters") or {}).items()},
        maps,
        bool(result.get("allow_file_overwrite", False)),
        devices == "cpu" or devices == ["cpu"],
    )


def _optics(file: Path, optics: dict[str, Any]) -> dict[str, Any]:
    needed = ("pixel_size", "voltage", "defocus_u", "defocus_v", "astigmatism_angle")
    missing = [name for name in needed if optics.get(name) is None]
    if missing:
        raise InputError(file, f"its optics_group has no {', '.join(missing)}", "Add them.")
    defaults = {"spherical_aberration": 2.7, "amplitude_contrast_ratio": 0.07, "phase_shift": 0.0, "ctf_B_factor": 0.0}
    return {**defaults, **{name: value for name, value in optics.items() if value is not None}}


def _orientations(file: Path, config: dict[str, Any]) -> tuple[LeopardOrientations, ...]:
    grids = config.get("orientation_configs", [config])
    result = []
    for grid in grids:
        method = str(grid.get("base_grid_method", "uniform"))
        if method not in ("uniform", "healpix"):
            raise InputError(file, f"base_grid_method {method} is not offered", "Use uniform or healpix.")
        limits = {
            name: grid.get(name) for name in ("phi_min", "phi_max", "theta_min", "theta_max", "psi_min", "psi_max")
        }
        steps = float(grid.get("psi_step", 1.5)), float(grid.get("theta_step", 2.5))
        result.append(LeopardOrientations(*steps, str(grid.get("symmetry") or "C1"), method, limits))
    return tuple(result)


def _defocus(config: dict[str, Any] | None) -> tuple[float, float, float] | None:
    if config is None or not config.get("enabled", True):
        return None
    names = (("defocus_min", -1000.0), ("defocus_max", 1000.0), ("defocus_step", 200.0))
    low, high, step = (float(config.get(name, default)) for name, default in names)
    return low, high, step


def write_results(
    path: str | Path, columns: Mapping[str, ArrayLike | Sequence[Any]], extra: Sequence[str] = ()
) -> None:
    """Write a results table (CSV with a leading row number, as pandas does), atomically; `extra` columns come last."""
    names = (*RESULT_COLUMNS, *extra)
    table = Table({name: columns[name] for name in names})
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("", *names))
        for index in range(table.n_rows):
            writer.writerow((index, *(table[name][index] for name in names)))


def read_results(path: str | Path) -> Table:
    """Read a results table, Leopard-EM's or ours. Raises InputError where columns that matter are missing."""
    file = Path(path)
    try:
        with file.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "Check the name and the permissions.") from error
    needed = ("pos_x", "pos_y", "phi", "theta", "psi", "relative_defocus", "micrograph_path")
    if rows and (missing := [name for name in needed if name not in rows[0]]):
        raise InputError(file, f"has no column {missing[0]}", "Give a results table of match_template.")
    columns: dict[str, list[Any]] = {
        name: [row[name] for row in rows] for name in (rows[0] if rows else needed) if name
    }
    return Table({name: _numbers(values) for name, values in columns.items()})


def _numbers(values: list[Any]) -> list[Any]:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return [str(value) for value in values]
