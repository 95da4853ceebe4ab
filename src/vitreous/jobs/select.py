"""Choose particles: good 2D classes by themselves or by list, by a column's values, without duplicates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.columns import BY_LABEL
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_array, write_image
from vitreous.io.refinement_reading import is_optimiser
from vitreous.io.relion import read_dataset, read_table, write_dataset, write_tables
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.methods.selection.duplicates import first_of_each
from vitreous.methods.selection.features import ClassFeatures, measure_classes
from vitreous.methods.selection.judge import Verdict, judge_classes, leading_classes
from vitreous.methods.selection.likeness import likeness_to_leaders
from vitreous.runtime.atomic import write_text

PARTICLES_NODE = "ParticleGroupMetadata.star.relion"
CLASSES_NODE = "ImagesData.star.relion.classaverages"


class SelectParameters(JobParameters):
    """What `select` takes."""

    input: str = parameter(help="run_itNNN_data.star, _optimiser.star or any particles.star", aliases=("i",))
    classes: list[int] = parameter([], help="classes to keep, e.g. 1,4-6 (default: chosen from their averages)")
    min_score: float = parameter(
        0.5, help="lowest score of a class that is kept, 0 to 1", aliases=("rank_threshold",), ge=0, le=1
    )
    particle_diameter: float = parameter(
        0.0, help="diameter of the classification's mask (0: from its optimiser file)", unit="A", ge=0
    )
    column: str = parameter("", help="choose by this column (our name or RELION's label) instead", aliases=("select",))
    min_value: float | None = parameter(None, help="least value of the column", aliases=("minval", "select_minval"))
    max_value: float | None = parameter(None, help="greatest value of the column", aliases=("maxval", "select_maxval"))
    duplicate_distance: float = parameter(
        0.0, help="keep one of particles closer than this on their micrograph (0: keep all)", unit="A",
        aliases=("remove_duplicates",), ge=0,
    )  # fmt: skip


@dataclass(frozen=True)
class _Classes:
    """A classification's averages (protein white), and what its model says of them. diameter in A."""

    averages: NDArray[np.float32]
    names: list[str]
    pixel_size: float
    diameter: float
    features: ClassFeatures


class Select(Job):
    """Keep the particles of good classes, with a reason for each class."""

    name = "select"
    folder = "Select"
    relion_type = "relion.select"
    help = "choose good classes (by themselves or by list) or particles by value"
    Parameters = SelectParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write particles.star; for classes also class_averages.star and .mrcs, backup_selection.star, reasons.json."""
        data_path, optimiser = _files(context.project / params.input, context)
        dataset = read_dataset(data_path)
        if dataset.kind != "particles":
            raise InputError(data_path, f"lists {dataset.kind}, not particles", "Give a STAR file of particles.")
        nodes: dict[str, str] = {}
        metrics: dict[str, float | int | str] = {"n_input_particles": len(dataset)}
        if params.column:
            kept, words = _by_value(dataset, params, data_path)
        else:
            kept, words = _by_class(dataset, data_path, optimiser, params, context, nodes, metrics)
        chosen = dataset.take(np.flatnonzero(kept))
        if params.duplicate_distance > 0 and len(chosen):
            before = len(chosen)
            chosen = chosen.take(np.flatnonzero(_without_duplicates(chosen, params.duplicate_distance, data_path)))
            words += f"; {before - len(chosen)} duplicates dropped"
        if len(chosen) == 0:
            raise InputError(data_path, "no particle is left by this choice", "Loosen it.")
        target = context.directory / "particles.star"
        write_dataset(target, chosen)
        nodes = {context.relative(target): PARTICLES_NODE, **nodes}
        share = len(chosen) / len(dataset)
        metrics |= {"n_particles": len(chosen), "kept_fraction": share}
        return Outputs(nodes, metrics, summary=f"{len(chosen)} of {len(dataset)} particles kept ({words})")


def _files(path: Path, context: Context) -> tuple[Path, Path | None]:
    """The data file and, where there is one, the optimiser file of the same iteration."""
    if is_optimiser(path.name):
        general = read_table(path, "optimiser_general").row(0)
        return context.project / str(general["rlnExperimentalDataStarFile"]), path
    optimiser = path.with_name(path.name.replace("_data.star", "_optimiser.star"))
    return path, optimiser if optimiser != path and optimiser.is_file() else None


def _by_value(dataset: Dataset, params: SelectParameters, path: Path) -> tuple[NDArray[np.bool_], str]:
    name = BY_LABEL[params.column].name if params.column in BY_LABEL else params.column
    if name in dataset.rows:
        values = dataset.rows[name]
    elif name in dataset.optics:
        values = dataset.optics_of_rows(name)
    else:
        raise InputError(path, f"has no column {params.column}", f"There are {', '.join(sorted(dataset.rows))}.")
    if values.dtype == object:
        raise InputError(path, f"column {params.column} holds words, not numbers", "Choose by a column of numbers.")
    low = -np.inf if params.min_value is None else params.min_value
    high = np.inf if params.max_value is None else params.max_value
    return (values >= low) & (values <= high), f"{params.column} from {low:g} to {high:g}"


def _by_class(
    dataset: Dataset,
    path: Path,
    optimiser: Path | None,
    params: SelectParameters,
    context: Context,
    nodes: dict[str, str],
    metrics: dict[str, float | int | str],
) -> tuple[NDArray[np.bool_], str]:
    """Which particles lie in chosen classes; writes the classes' own files."""
    if "class_number" not in dataset.rows:
        raise InputError(path, "has no class numbers", "Classify the particles first, or choose by --column.")
    numbers = dataset.rows["class_number"].astype(np.int64)
    if optimiser is None:
        if not params.classes:
            what = "has no optimiser and model file beside it, so there are no class averages to judge"
            raise InputError(path, what, "Give --classes, or the run_itNNN_data.star of a classification.")
        return np.isin(numbers, params.classes), f"classes {_ranges(params.classes)}"
    n_maps = _n_3d_classes(optimiser)
    if n_maps:
        if not params.classes:
            raise InputError(_model_of(optimiser), "is a model of 3D classes", "Give --classes to choose among them.")
        _check_classes(params, n_maps)
        metrics |= {"n_classes": n_maps, "n_classes_kept": len(set(params.classes))}
        return np.isin(numbers, params.classes), f"3D classes {_ranges(params.classes)} of {n_maps}"
    classes = _read_classes(path, optimiser, numbers, params, context)
    verdicts = _verdicts(classes, params, path)
    kept = np.array([verdict.kept for verdict in verdicts])
    if not kept.any():
        what = f"no class reaches a score of {params.min_score:g}"
        raise InputError(path, what, "Lower --min-score, or give --classes.")
    _write_classes(classes, verdicts, context)
    nodes[context.relative(context.directory / "class_averages.star")] = CLASSES_NODE
    metrics |= {"n_classes": len(kept), "n_classes_kept": int(kept.sum())}
    inside = (numbers >= 1) & (numbers <= len(kept))
    chosen = np.flatnonzero(kept) + 1
    return inside & np.isin(numbers, chosen), f"{kept.sum()} of {len(kept)} classes: {_ranges(chosen.tolist())}"


def _model_of(optimiser: Path) -> Path:
    return optimiser.with_name(optimiser.name.replace("_optimiser.star", "_model.star"))


def _n_3d_classes(optimiser: Path) -> int:
    """How many maps the classification has; 0 for one in 2D and for a refinement of two halves."""
    model = _model_of(optimiser)
    if not model.is_file():
        return 0
    facts = read_table(model, "model_general").row(0)
    is_3d = int(facts.get("rlnReferenceDimensionality", 2)) == 3
    return read_table(model, "model_classes").n_rows if is_3d else 0


def _check_classes(params: SelectParameters, n_classes: int) -> None:
    wrong = [number for number in params.classes if not 1 <= number <= n_classes]
    if wrong:
        raise InputError("--classes", f"{wrong[0]} is not among classes 1 to {n_classes}", "Look at the classes.")


def _read_classes(
    path: Path, optimiser: Path, numbers: NDArray[np.int64], params: SelectParameters, context: Context
) -> _Classes:
    general = read_table(optimiser, "optimiser_general").row(0)
    model = _model_of(optimiser)
    table = read_table(model, "model_classes")
    facts = read_table(model, "model_general").row(0)
    names = [str(name) for name in table["reference_image"]]
    stack = path.with_name(Path(names[0].partition("@")[2] or names[0]).name)
    averages, header = read_array(stack)
    if len(averages) != len(names):
        raise InputError(stack, f"holds {len(averages)} images, the model {len(names)} classes", "Run it again.")
    pixel_size = float(facts.get("rlnPixelSize", 0.0)) or header.pixel_size
    box = averages.shape[-1]
    diameter = params.particle_diameter or float(general.get("rlnParticleDiameter", 0.0)) or 0.9 * box * pixel_size
    # Shares are counted: the model's distribution is smoothed by its prior.
    counts = np.bincount(numbers[(numbers >= 1) & (numbers <= len(names))], minlength=len(names) + 1)[1:]
    share = counts / max(1, counts.sum())
    resolution = np.nan_to_num(table["estimated_resolution"].astype(np.float64), nan=999.0, posinf=999.0)
    features = measure_classes(averages.astype(np.float32), pixel_size, diameter, share, resolution)
    return _Classes(averages.astype(np.float32), names, pixel_size, diameter, features)


def _verdicts(classes: _Classes, params: SelectParameters, path: Path) -> list[Verdict]:
    """What the averages say; a list of classes overrules it but keeps the scores."""
    try:
        leaders = leading_classes(classes.features)
        resolution = classes.features.resolution
        likeness = likeness_to_leaders(classes.averages, classes.pixel_size, classes.diameter, resolution, leaders)
        verdicts = judge_classes(classes.features, params.min_score, likeness)
    except ValueError as error:
        if not params.classes:
            raise InputError(path, str(error), "Classify again, or give --classes.") from error
        verdicts = [Verdict(False, 0.0, {}, "") for _ in classes.names]
    if not params.classes:
        return verdicts
    _check_classes(params, len(verdicts))
    chosen = set(params.classes)
    return [
        Verdict(number in chosen, one.score, one.points, "chosen by hand" if number in chosen else "not on the list")
        for number, one in enumerate(verdicts, 1)
    ]


def _write_classes(classes: _Classes, verdicts: list[Verdict], context: Context) -> None:
    """Chosen averages, best first; which classes were chosen, as RELION's display keeps it; reasons as JSON."""
    features = classes.features
    order = sorted(range(len(verdicts)), key=lambda k: (-verdicts[k].score, -features.share[k]))
    kept = [k for k in order if verdicts[k].kept]
    stack = context.directory / "class_averages.mrcs"
    write_image(stack, classes.averages[kept], classes.pixel_size)
    table = Table(
        {
            "reference_image": [f"{i:06d}@{context.relative(stack)}" for i in range(1, len(kept) + 1)],
            "class_number": np.array(kept) + 1,
            "class_distribution": features.share[kept],
            "estimated_resolution": features.resolution[kept],
            "class_score": np.array([verdicts[k].score for k in kept]),
        }
    )
    write_tables(context.directory / "class_averages.star", {"": table})
    selected = Table({"selected": np.array([int(verdict.kept) for verdict in verdicts])})
    write_tables(context.directory / "backup_selection.star", {"": selected})
    reasons = [
        {
            "class": k + 1,
            "kept": verdicts[k].kept,
            "score": round(verdicts[k].score, 4),
            "share": float(features.share[k]),
            "resolution_A": float(features.resolution[k]),
            "reason": verdicts[k].reason,
            "points": {name: round(value, 3) for name, value in verdicts[k].points.items()},
        }
        for k in order
    ]
    write_text(context.directory / "reasons.json", json.dumps(reasons, indent=1))


def _without_duplicates(dataset: Dataset, distance: float, path: Path) -> NDArray[np.bool_]:
    """Particles at their refined places, compared on each micrograph; the likelier of two is kept."""
    rows = dataset.rows
    missing = [name for name in ("coordinate_x", "coordinate_y", "micrograph_name") if name not in rows]
    if missing or "micrograph_pixel_size" not in dataset.optics:
        what = f"lacks {', '.join(missing) or 'the micrographs pixel size'}, so places cannot be compared"
        raise InputError(path, what, "Leave --duplicate-distance out.")
    positions = np.stack([rows["coordinate_x"], rows["coordinate_y"]], axis=1).astype(np.float64)
    positions *= dataset.optics_of_rows("micrograph_pixel_size").astype(np.float64)[:, None]
    if "origin_x" in rows:
        positions -= np.stack([rows["origin_x"], rows["origin_y"]], axis=1).astype(np.float64)
    _, micrographs = np.unique(rows["micrograph_name"].astype(str), return_inverse=True)
    worth = next((rows[n].astype(np.float64) for n in ("max_probability", "pick_score") if n in rows), None)
    return first_of_each(positions, micrographs, distance, worth)


def _ranges(numbers: list[int]) -> str:
    """1, 2, 3, 7 as "1-3, 7"."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
