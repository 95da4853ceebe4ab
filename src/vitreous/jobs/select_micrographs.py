"""Choose micrographs: by the fit of their CTF, defocus, motion and ice, each plotted in the order of acquisition."""

from __future__ import annotations

from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.relion import read_dataset, write_dataset, write_tables
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.methods.selection.micrographs import Array, Limits, Quantity, judge_micrographs, outlier_limits

QUANTITIES = (
    Quantity("ctf_resolution", "CTF fit", "A", "high"),
    Quantity("ctf_figure_of_merit", "figure of merit", "", "low"),
    Quantity("defocus", "defocus", "A", "both"),
    Quantity("astigmatism", "astigmatism", "A", "high"),
    Quantity("motion_total", "motion", "A", "high"),
    Quantity("motion_early", "early motion", "A", "high"),
    Quantity("ice_ring", "ice ring", "", "high"),
)


class SelectMicrographsParameters(JobParameters):
    """What `select-micrographs` takes."""

    input: str = parameter(help="STAR file of micrographs, best after `ctf`", aliases=("i",))
    max_resolution: float | None = parameter(
        None, help="the CTF must fit to this resolution or better", unit="A", aliases=("max_ctf_resolution",), gt=0
    )
    min_figure_of_merit: float | None = parameter(None, help="least figure of merit of the CTF fit", ge=-1, le=1)
    min_defocus: float | None = parameter(None, help="least mean defocus", unit="A")
    max_defocus: float | None = parameter(None, help="greatest mean defocus", unit="A", gt=0)
    max_astigmatism: float | None = parameter(None, help="greatest astigmatism", unit="A", ge=0)
    max_motion: float | None = parameter(None, help="greatest motion over all frames", unit="A", gt=0)
    max_early_motion: float | None = parameter(None, help="greatest motion in the first 4 e/A^2", unit="A", gt=0)
    max_ice: float | None = parameter(
        None, help="greatest ice ring (power at 3.7 A over what lies around it, less 1; vitreous ice 0, icy 0.15)"
    )
    outliers: float = parameter(
        0.0, help="also leave out what lies this many robust standard deviations on the bad side of the others "
        "(0: no; 4 is careful)", ge=0,
    )  # fmt: skip


class SelectMicrographs(Job):
    """Limits on CTF fit, defocus, astigmatism, motion and ice, with a reason for each micrograph that fails one."""

    name = "select-micrographs"
    folder = "Select"
    relion_type = "relion.select.onvalue"
    help = "choose micrographs by CTF fit, defocus, motion and ice"
    Parameters = SelectMicrographsParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write micrographs.star (kept), rejected.star (with reasons) and judged.star (all values, for the plots)."""
        path = context.project / params.input
        dataset = read_dataset(path)
        if dataset.kind != "micrographs" or len(dataset) == 0:
            what = "lists no micrographs" if len(dataset) == 0 else f"lists {dataset.kind}, not micrographs"
            raise InputError(path, what, "Give the STAR file of motion correction or of `ctf`.")
        values = _values(dataset)
        known = [quantity for quantity in QUANTITIES if quantity.name in values]
        limits = _limits(params, values)
        _check(limits, values, str(path), params)
        reasons = judge_micrographs(values, known, limits)
        kept = np.array([not reason for reason in reasons])
        if not kept.any():
            raise InputError(path, "no micrograph is left by these limits", f"Loosen them: {_overview(values)}.")
        target = context.directory / "micrographs.star"
        write_dataset(target, dataset.take(np.flatnonzero(kept)))
        _write_judgement(dataset, values, reasons, limits, context)
        metrics: dict[str, float | int | str] = {"n_micrographs": int(kept.sum()), "n_rejected": int((~kept).sum())}
        for quantity in known:
            failed = sum(any(part.startswith(f"{quantity.words} ") for part in one.split("; ")) for one in reasons)
            if limits.get(quantity.name, Limits()).are_set:
                metrics[f"n_failing_{quantity.name}"] = failed
        return Outputs(
            nodes={context.relative(target): "MicrographGroupMetadata.star.relion"},
            metrics=metrics,
            summary=f"{kept.sum()} of {len(kept)} micrographs kept{_why(known, limits, metrics)}",
        )


def _values(dataset: Dataset) -> dict[str, Array]:
    """What the table knows of each micrograph, by quantity."""
    rows = dataset.rows
    values = {q.name: rows[q.name].astype(np.float64) for q in QUANTITIES if q.name in rows}
    if "defocus_u" in rows and "defocus_v" in rows:
        u, v = (rows[name].astype(np.float64) for name in ("defocus_u", "defocus_v"))
        values["defocus"] = 0.5 * (u + v)
        values.setdefault("astigmatism", np.abs(u - v))
    return values


def _limits(params: SelectMicrographsParameters, values: dict[str, Array]) -> dict[str, Limits]:
    """What was given, narrowed by what outliers say."""
    given = {
        "ctf_resolution": (None, params.max_resolution),
        "ctf_figure_of_merit": (params.min_figure_of_merit, None),
        "defocus": (params.min_defocus, params.max_defocus),
        "astigmatism": (None, params.max_astigmatism),
        "motion_total": (None, params.max_motion),
        "motion_early": (None, params.max_early_motion),
        "ice_ring": (None, params.max_ice),
    }
    limits = {
        name: Limits(-np.inf if low is None else low, np.inf if high is None else high)
        for name, (low, high) in given.items()
    }
    if params.outliers:
        for quantity in QUANTITIES:
            # Defocus is chosen by the user: far from the others is not bad.
            if quantity.name in values and quantity.bad != "both":
                found = outlier_limits(values[quantity.name], quantity, params.outliers)
                limits[quantity.name] = limits[quantity.name].narrowed(found)
    return {name: limit for name, limit in limits.items() if limit.are_set}


def _check(limits: dict[str, Limits], values: dict[str, Array], path: str, params: SelectMicrographsParameters) -> None:
    """Raise InputError where a limit is on something the file does not say, or nothing was asked for."""
    if not limits and not params.outliers:
        raise InputError(
            path, f"no limit is given; its micrographs have {_overview(values)}", "Give --max-resolution 6, say."
        )
    for quantity in QUANTITIES:
        if quantity.name in limits and quantity.name not in values:
            what = f"does not say the {quantity.words} of its micrographs"
            raise InputError(path, what, "Run the job that finds it first, or leave that limit out.")


def _overview(values: dict[str, Array]) -> str:
    """Median and range of each quantity, in words."""
    parts = []
    for quantity in QUANTITIES:
        if quantity.name in values:
            known = values[quantity.name][np.isfinite(values[quantity.name])]
            if len(known):
                unit = f" {quantity.unit}" if quantity.unit else ""
                parts.append(
                    f"{quantity.words} {known.min():.3g} to {known.max():.3g}{unit} (median {np.median(known):.3g})"
                )
    return ", ".join(parts) or "no figures at all"


def _why(known: list[Quantity], limits: dict[str, Limits], metrics: dict[str, float | int | str]) -> str:
    parts = [f"{metrics[f'n_failing_{q.name}']} by {q.words}" for q in known if metrics.get(f"n_failing_{q.name}")]
    return f" ({', '.join(parts)})" if parts else ""


def _write_judgement(
    dataset: Dataset, values: dict[str, Array], reasons: list[str], limits: dict[str, Limits], context: Context
) -> None:
    """rejected.star: the rows that fail, with the reason; judged.star: values and limits, as the plots show them."""
    failed = np.flatnonzero(np.array([bool(reason) for reason in reasons]))
    if len(failed):
        rejected = dataset.take(failed)
        texts = np.array([reasons[index] for index in failed], dtype=object)
        write_dataset(context.directory / "rejected.star", rejected.with_columns(vitreousReason=texts))
    names = dataset.rows["micrograph_name"]
    judged = Table({"micrograph_name": names, **values, "selected": np.array([int(not reason) for reason in reasons])})
    bounds = Table(
        {
            "vitreousQuantity": list(limits),
            "vitreousLeast": [limit.low for limit in limits.values()],
            "vitreousGreatest": [limit.high for limit in limits.values()],
        }
    )
    tables = {"judged": judged}
    if limits:
        tables["limits"] = bounds
    write_tables(context.directory / "judged.star", tables)
