"""Read back what a refinement left after an iteration, ours or RELION's: optimiser, data, models, sampling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.relion import read_dataset, read_tables

_NO_LIMIT = -91.0  # RELION's rlnTiltAngleLimit where there is none


@dataclass(frozen=True)
class SavedModel:
    """One _model.star. Curves (by class and shell) and noise (by optics group) are powers of unnormalised transforms.

    scale: of each group of particles, by its name; directions: shares of the particles by class and direction, None
    where the run kept none.
    """

    general: dict[str, Any]
    references: list[str]
    distribution: Float[np.ndarray, "k"]
    accuracy: tuple[float, float]
    ssnr: Float[np.ndarray, "k shells"]
    fsc: Float[np.ndarray, "k shells"]
    sigma2: Float[np.ndarray, "k shells"]
    tau2: Float[np.ndarray, "k shells"]
    noise: Float[np.ndarray, "optics shells"]
    scale: dict[str, float]
    directions: Float[np.ndarray, "k pixels"] | None


@dataclass(frozen=True)
class SavedRun:
    """One iteration. data: path of its particles; sampling, optimiser: single values by RELION's labels."""

    iteration: int
    data: Path
    dataset: Dataset
    models: list[SavedModel]
    sampling: dict[str, Any]
    optimiser: dict[str, Any]

    @property
    def pixel_size(self) -> float:
        """Pixel size of the references in A."""
        return float(self.models[0].general["rlnPixelSize"])


def is_optimiser(name: str) -> bool:
    """Whether a file name is that of an optimiser file."""
    return name.endswith("_optimiser.star")


def data_of_optimiser(path: Path, project: Path) -> str:
    """The particle STAR file that an optimiser file names, as read_particles takes it."""
    return str(find_file(_single(path, "optimiser_general"), "rlnExperimentalDataStarFile", path, project))


def read_run(path: Path, project: Path) -> SavedRun:
    """Read run_itNNN_optimiser.star and all that it names. Raises InputError where something is missing."""
    optimiser = _single(path, "optimiser_general")
    data = find_file(optimiser, "rlnExperimentalDataStarFile", path, project)
    dataset = read_dataset(data)
    labels = [label for label in ("rlnModelStarFile", "rlnModelStarFile2") if label in optimiser]
    models = [_read_model(find_file(optimiser, label, path, project), dataset) for label in labels]
    sampling = _single(find_file(optimiser, "rlnOrientSamplingStarFile", path, project), "sampling_general")
    return SavedRun(int(optimiser["rlnCurrentIteration"]), data, dataset, models, sampling, optimiser)


def find_file(optimiser: dict[str, Any], label: str, path: Path, project: Path) -> Path:
    """A file that an optimiser names: relative to the project, else beside the optimiser itself."""
    if label not in optimiser:
        raise InputError(path, f"names no {label}", "Give the run_itNNN_optimiser.star of a refinement.")
    return place_of(str(optimiser[label]), path, project)


def place_of(name: str, path: Path, project: Path) -> Path:
    """Where a file named in a run's STAR files lies. Raises InputError where it is gone."""
    for place in (project / name, path.parent / Path(name).name):
        if place.is_file():
            return place
    raise InputError(path, f"names {name}, which is not there", "Run from the project directory that it was made in.")


def option_values(run: SavedRun) -> dict[str, Any]:
    """What a 2D or 3D run was asked for, under the names of our parameters; RELION's lengths in A become pixels."""
    general, optimiser, sampling = run.models[0].general, run.optimiser, run.sampling
    values = {
        "particle_diameter": max(0.0, float(optimiser["rlnParticleDiameter"])),
        "tau2_fudge": float(general["rlnTau2FudgeFactor"]),
        "padding": round(float(general["rlnPaddingFactor"])),
        "oversampling": int(optimiser["rlnAdaptiveOversampleOrder"]),
        "adaptive_fraction": float(optimiser["rlnAdaptiveOversampleFraction"]),
        "offset_range": float(sampling["rlnOffsetRange"]) / run.pixel_size,
        "offset_step": float(sampling["rlnOffsetStep"]) / run.pixel_size,
        "ctf": bool(optimiser.get("rlnDoCorrectCtf", 1)),
        "ctf_phase_flipped": bool(optimiser.get("rlnCtfDataArePhaseFlipped", 0)),
        "only_flip_phases": bool(optimiser.get("rlnDoOnlyFlipCtfPhases", 0)),
        "ctf_intact_first_peak": bool(optimiser.get("rlnDoIgnoreCtfUntilFirstPeak", 0)),
        "norm_correction": bool(optimiser.get("rlnDoCorrectNorm", 1)),
        "scale_correction": bool(optimiser.get("rlnDoCorrectScale", 0)),
        "zero_mask": bool(optimiser.get("rlnDoZeroMask", 1)),
        "strict_highres_exp": max(0.0, float(optimiser.get("rlnHighresLimitExpectation", 0.0))),
        "incr_size": int(optimiser.get("rlnIncrementImageSize", 10)),
    }
    if "rlnTiltAngleLimit" in sampling and float(sampling["rlnTiltAngleLimit"]) > _NO_LIMIT:
        values["limit_tilt"] = float(sampling["rlnTiltAngleLimit"])
    return values


def _single(path: Path, block: str) -> dict[str, Any]:
    """A block of single values by RELION's labels (read_tables renames only what our registry knows)."""
    tables = read_tables(path)
    if block not in tables:
        raise InputError(path, f"has no block data_{block}", "Give the run_itNNN_optimiser.star of a refinement.")
    return {name: values[0] for name, values in tables[block].items()}


def _read_model(path: Path, dataset: Dataset) -> SavedModel:
    tables = read_tables(path)
    if "model_classes" not in tables:
        raise InputError(path, "has no block data_model_classes", "Give the _model.star of a refinement.")
    general = {name: values[0] for name, values in tables["model_general"].items()}
    classes, groups = tables["model_classes"], tables["model_groups"]
    power = float(general["rlnOriginalImageSize"]) ** 4
    curves = [tables[f"model_class_{k}"] for k in range(1, classes.n_rows + 1)]

    def stacked(name: str, factor: float = 1.0) -> NDArray[np.float64]:
        return np.stack([np.asarray(one[name], dtype=np.float64) for one in curves]) * factor

    return SavedModel(
        general,
        [str(name) for name in classes["reference_image"]],
        np.asarray(classes["class_distribution"], dtype=np.float64),
        (float(classes["accuracy_rotations"][0]), float(classes["accuracy_translations"][0])),
        stacked("rlnSsnrMap"),
        stacked("gold_standard_fsc"),
        stacked("rlnReferenceSigma2", power),
        stacked("rlnReferenceTau2", power),
        _noise(path, tables, dataset) * power,
        dict(zip(groups["group_name"].astype(str), groups["rlnGroupScaleCorrection"].astype(float), strict=True))
        if "group_name" in groups
        else {},
        _directions(tables, classes.n_rows),
    )


def _directions(tables: dict[str, Table], n_classes: int) -> NDArray[np.float64] | None:
    found = [tables.get(f"model_pdf_orient_class_{k}") for k in range(1, n_classes + 1)]
    shares = [np.asarray(one["rlnOrientationDistribution"], np.float64) for one in found if one is not None]
    return np.stack(shares) if len(shares) == n_classes else None


def _noise(path: Path, tables: dict[str, Table], dataset: Dataset) -> NDArray[np.float64]:
    """Noise by row of the optics table.

    RELION 4 and we keep it by optics group; RELION 3.1 by group of particles: the mean over an optics group's particles
    is taken.
    """
    n_optics = dataset.optics.n_rows
    found = {
        (match[1], int(match[2])): np.asarray(table["rlnSigma2Noise"], dtype=np.float64)
        for name, table in tables.items()
        if (match := re.fullmatch(r"model_(optics_)?group_(\d+)", name))
    }
    by_optics = [found.get(("optics_", number)) for number in range(1, n_optics + 1)]
    if all(curve is not None for curve in by_optics):
        return np.stack([curve for curve in by_optics if curve is not None])
    by_group = {number: curve for (optics, number), curve in found.items() if optics is None}
    if not by_group:
        raise InputError(path, "holds no noise spectra", "Give the _model.star of a refinement.")
    groups = tables["model_groups"]
    sizes = dict(zip(groups["group_number"], groups["rlnGroupNrParticles"], strict=True))
    overall = _mean_noise(by_group, sizes)
    if "group_number" not in dataset.rows:
        return np.tile(overall, (n_optics, 1))
    numbers = np.asarray(dataset.rows["group_number"], dtype=np.int64)
    curves = []
    for group in dataset.optics["optics_group"]:
        theirs, counts = np.unique(numbers[dataset.rows["optics_group"] == group], return_counts=True)
        known = {int(number): int(n) for number, n in zip(theirs, counts, strict=True) if int(number) in by_group}
        curves.append(_mean_noise(by_group, known) if known else overall)
    return np.stack(curves)


def _mean_noise(by_group: dict[int, NDArray[np.float64]], sizes: dict[int, int]) -> NDArray[np.float64]:
    """Mean of the groups' curves over `sizes` particles of each."""
    return np.average([by_group[number] for number in sizes], axis=0, weights=list(sizes.values()))
