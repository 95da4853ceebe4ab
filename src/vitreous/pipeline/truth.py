"""A finished project against the truth of the simulation that made its movies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.core.rotations import euler_to_matrix
from vitreous.core.symmetry import symmetry_matrices
from vitreous.data.dataset import Dataset
from vitreous.data.motion import N_COEFFICIENTS, Motion, grid_points, motion_error
from vitreous.data.table import Table
from vitreous.io.motion import read_motion
from vitreous.io.mrc import read_header, read_map
from vitreous.io.relion import read_dataset, read_table, read_tables
from vitreous.methods.maps.truth_fsc import TruthFsc, truth_fsc
from vitreous.methods.validation.errors import centre_shifts, defocus_errors, pose_errors
from vitreous.methods.validation.matching import PickCounts, count_picks, match_points
from vitreous.pipeline.project import Project
from vitreous.pipeline.runner import is_finished

MATCH_FRACTION = 0.35  # of the particle's diameter: a pick nearer than this to a particle is that particle
Figures = dict[str, float | int | str]


@dataclass(frozen=True)
class Results:
    """Which of a project's files to compare, each None where there is none.

    motion: corrected_micrographs.star; ctf: micrographs_ctf.star; picks: autopick.star; selected: particles after
    selection; refined: particles with their final poses; density: the final map.
    """

    motion: Path | None = None
    ctf: Path | None = None
    picks: Path | None = None
    selected: Path | None = None
    refined: Path | None = None
    density: Path | None = None


@dataclass(frozen=True)
class Sample:
    """What must be known of the specimen: longest diameter in A, point group."""

    diameter: float
    symmetry: str = "C1"


def find_results(root: str | Path) -> Results:
    """The newest finished job of each kind in a project."""
    newest: dict[str, Path] = {}
    for directory, record in Project(root).records():
        if is_finished(directory):
            newest[str(record.get("job"))] = directory

    def file(job: str, name: str) -> Path | None:
        path = newest[job] / name if job in newest else None
        return path if path is not None and path.exists() else None

    return Results(
        motion=file("motioncorr", "corrected_micrographs.star"),
        ctf=file("ctf", "micrographs_ctf.star"),
        picks=file("autopick", "autopick.star"),
        selected=file("select", "particles.star"),
        refined=file("refine3d", "run_data.star"),
        density=file("postprocess", "postprocess.mrc") or file("refine3d", "run_class001.mrc"),
    )


def compare_with_truth(root: str | Path, truth: str | Path, results: Results, sample: Sample) -> Figures:
    """All figures that the project's results and the truth files of a simulation (in the folder `truth`) allow.

    Units stand in the names. Raises InputError where truth files are missing or names do not match.
    """
    figures, _ = compare_all(Path(root), Path(truth), results, sample)
    return figures


def compare_all(root: Path, truth: Path, results: Results, sample: Sample) -> tuple[Figures, TruthFsc | None]:
    """`compare_with_truth`, with the FSC and the aligned map too."""
    micrographs = read_dataset(_existing(truth / "truth_micrographs.star"))
    particles = read_dataset(_existing(truth / "truth_particles.star"))
    pixel_size = float(particles.optics["micrograph_pixel_size"][0])
    figures: Figures = {"n_true_particles": len(particles), "n_true_micrographs": len(micrographs)}
    if results.motion is not None:
        figures |= motion_figures(root, results.motion, truth / "truth_motion.star", pixel_size)
    if results.ctf is not None:
        figures |= defocus_figures(read_dataset(results.ctf), micrographs)
    places = _by_micrograph(particles, pixel_size)
    if results.picks is not None:
        figures |= pick_figures(root, results, places, sample.diameter)
    if results.selected is not None:
        figures |= _prefixed("selected", _particle_counts(read_dataset(results.selected), places, sample.diameter))
    comparison = None
    if results.density is not None:
        comparison = truth_fsc(
            read_map(results.density), read_map(_existing(truth / "truth.mrc")), symmetry=sample.symmetry
        )
        figures |= _map_figures(comparison)
        if results.refined is not None:
            figures |= refined_figures(read_dataset(results.refined), particles, places, comparison, sample)
    return figures, comparison


def motion_figures(root: Path, corrected: Path, truth: Path, pixel_size: float) -> Figures:
    """Rms over frames, a grid of points and all movies of the displacement's error."""
    tables = read_tables(_existing(truth))
    shifts, models = tables["global_shift"], tables["local_motion_model"]
    rows = read_dataset(corrected).rows
    errors = []
    for name, metadata in zip(rows["micrograph_name"], rows["micrograph_metadata"], strict=True):
        found = read_motion(root / str(metadata)).motion
        true = _true_motion(shifts, models, _stem(name), found.shape, truth)
        if true.n_frames != found.n_frames:
            raise InputError(truth, f"{name} has {found.n_frames} frames, the truth {true.n_frames}", "Use one's own.")
        errors.append(motion_error(found, true, grid_points(found.shape), pixel_size))
    pixels, angstrom = np.sqrt(np.mean(np.square(errors), axis=0))
    return {
        "motion_rms_error_A": float(angstrom),
        "motion_rms_error_px": float(pixels),
        "motion_worst_error_A": float(np.max(np.array(errors)[:, 1])),
    }


def _true_motion(shifts: Table, models: Table, stem: str, shape: tuple[int, int], path: Path) -> Motion:
    mine = np.array([_stem(name) == stem for name in shifts["movie_name"]])
    model = np.array([_stem(name) == stem for name in models["movie_name"]])
    if not mine.any():
        raise InputError(path, f"says nothing about {stem}", "Give the truth of the movies that were processed.")
    track = np.stack([shifts["shift_x"][mine], shifts["shift_y"][mine]], axis=1).astype(np.float64)
    coefficients = np.zeros(2 * N_COEFFICIENTS)
    coefficients[models["motion_coefficient_index"][model].astype(np.int64)] = models["motion_coefficient"][model]
    return Motion(shape, track, coefficients.reshape(2, N_COEFFICIENTS))


def defocus_figures(found: Dataset, truth: Dataset) -> Figures:
    """Errors of defocus, astigmatism and its direction over the micrographs that were fitted."""
    columns = ("defocus_u", "defocus_v", "defocus_angle")
    index = {_stem(name): row for row, name in enumerate(truth.rows["micrograph_name"])}
    stems = [_stem(name) for name in found.rows["micrograph_name"]]
    strangers = [stem for stem in stems if stem not in index]
    if strangers:
        raise InputError("truth_micrographs.star", f"says nothing about {strangers[0]}", "Give this project's truth.")
    ours = np.stack([found.rows[name] for name in columns], 1).astype(np.float64)
    true = np.stack([truth.rows[name] for name in columns], 1).astype(np.float64)[[index[stem] for stem in stems]]
    errors = defocus_errors(ours, true)
    figures: Figures = {
        "defocus_rms_error_A": errors.defocus_rms,
        "defocus_axes_rms_error_A": errors.axes_rms,
        "astigmatism_rms_error_A": errors.astigmatism_rms,
        "n_ctf_missing": len(truth) - len(found),
    }
    if np.isfinite(errors.angle_rms):
        figures |= {
            "astigmatism_angle_rms_error_deg": errors.angle_rms,
            "astigmatism_angle_worst_error_deg": errors.angle_max,
        }
    return figures


@dataclass(frozen=True)
class _Place:
    """True particles of one micrograph: row numbers and positions (n, 2) as (x, y) in A."""

    rows: NDArray[np.int64]
    positions: NDArray[np.float64]


def _by_micrograph(particles: Dataset, pixel_size: float) -> dict[str, _Place]:
    stems = np.array([_stem(name) for name in particles.rows["micrograph_name"]], dtype=object)
    positions = np.stack([particles.rows["coordinate_x"], particles.rows["coordinate_y"]], 1) * pixel_size
    return {
        str(stem): _Place(np.flatnonzero(stems == stem), positions[stems == stem].astype(np.float64))
        for stem in dict.fromkeys(stems)
    }


def pick_figures(root: Path, results: Results, places: dict[str, _Place], diameter: float) -> Figures:
    """Recall and precision over all true particles, also those on micrographs that were left out on the way.

    Particles nearer to an edge than their radius count too in pick_recall; pick_recall_inside leaves them out.
    """
    assert results.picks is not None
    listing = read_table(results.picks, "coordinate_files")
    counts, distances, seen = PickCounts(), [], set()
    for name, file in zip(listing["micrograph_name"], listing["coordinate_file"], strict=True):
        picks = read_table(root / str(file))
        header = read_header(root / str(name))
        pixel_size = header.pixel_size
        found = np.zeros((0, 2))
        if "coordinate_x" in picks:
            found = np.stack([picks["coordinate_x"], picks["coordinate_y"]], 1).astype(np.float64) * pixel_size
        true = places.get(_stem(name), _Place(np.zeros(0, dtype=np.int64), np.zeros((0, 2))))
        matches = match_points(found, true.positions, MATCH_FRACTION * diameter)
        field = (header.shape[2] * pixel_size, header.shape[1] * pixel_size)
        counts += count_picks(matches, len(found), true.positions, field, 0.5 * diameter)
        distances.append(matches.distance)
        seen.add(_stem(name))
    counts += PickCounts(true=sum(len(place.rows) for stem, place in places.items() if stem not in seen))
    distance = np.concatenate(distances) if distances else np.zeros(0)
    figures: Figures = {
        "pick_recall": counts.recall,
        "pick_recall_inside": counts.recall_inside,
        "pick_precision": counts.precision,
        "n_picks": counts.found,
    }
    if distance.size:
        figures["pick_centre_rms_error_A"] = float(np.sqrt(np.mean(distance**2)))
    return figures


def _found_positions(particles: Dataset) -> NDArray[np.float64]:
    """Where particles are on their micrographs, (n, 2) as (x, y) in A: coordinate less origin."""
    rows = particles.rows
    name = "micrograph_pixel_size" if "micrograph_pixel_size" in particles.optics else "movie_pixel_size"
    pixel_size = particles.optics_of_rows(name).astype(np.float64)
    axes = []
    for axis in ("x", "y"):
        origin = rows[f"origin_{axis}"] if f"origin_{axis}" in rows else np.zeros(rows.n_rows)
        axes.append(rows[f"coordinate_{axis}"] * pixel_size - origin)
    return np.stack(axes, 1).astype(np.float64)


def _match_particles(
    particles: Dataset, places: dict[str, _Place], tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of particles and rows of the truth that belong together."""
    positions = _found_positions(particles)
    stems = np.array([_stem(name) for name in particles.rows["micrograph_name"]], dtype=object)
    found, true = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for stem, place in places.items():
        mine = np.flatnonzero(stems == stem)
        matches = match_points(positions[mine], place.positions, tolerance)
        found.append(mine[matches.found])
        true.append(place.rows[matches.true])
    return np.concatenate(found), np.concatenate(true)


def _particle_counts(particles: Dataset, places: dict[str, _Place], diameter: float) -> Figures:
    found, _ = _match_particles(particles, places, MATCH_FRACTION * diameter)
    n_true = sum(len(place.rows) for place in places.values())
    return {
        "recall": len(found) / n_true if n_true else float("nan"),
        "precision": len(found) / len(particles) if len(particles) else float("nan"),
    }


def refined_figures(
    refined: Dataset, truth: Dataset, places: dict[str, _Place], comparison: TruthFsc, sample: Sample
) -> Figures:
    """Errors of the final poses, by the map's own alignment to the truth, symmetry and hand allowed for."""
    found, true = _match_particles(refined, places, MATCH_FRACTION * sample.diameter)
    figures = _prefixed("refined", _particle_counts(refined, places, sample.diameter))
    if len(found) == 0:
        return figures
    group = symmetry_matrices(sample.symmetry)
    alignment = comparison.alignment
    true_poses = _poses(truth.rows, true)
    angles = pose_errors(_poses(refined.rows, found), true_poses, alignment.matrix, group)
    order = np.argsort(np.concatenate([place.rows for place in places.values()]))
    positions = np.concatenate([place.positions for place in places.values()])[order]
    offset = _found_positions(refined)[found] - positions[true] - centre_shifts(true_poses, alignment.shift).numpy()
    distance = np.sqrt((offset**2).sum(1))
    return figures | {
        "pose_median_error_deg": float(angles.median()),
        "pose_within_5deg": float((angles < 5.0).double().mean()),
        "offset_median_error_A": float(np.median(distance)),
    }


def _poses(rows: Table, index: NDArray[np.int64]) -> torch.Tensor:
    columns = (torch.from_numpy(rows[name][index].astype(np.float64)) for name in ("rot", "tilt", "psi"))
    return euler_to_matrix(*columns)


def _map_figures(comparison: TruthFsc) -> Figures:
    alignment = comparison.alignment
    return {
        "truth_fsc05_resolution_A": comparison.resolution_05,
        "truth_fsc0143_resolution_A": comparison.resolution_0143,
        "hand": "mirrored" if alignment.mirrored else "true",
        "truth_correlation": alignment.correlation,
        "truth_correlation_other_hand": alignment.other_hand,
    }


def _prefixed(prefix: str, figures: Figures) -> Figures:
    return {f"{prefix}_{name}": value for name, value in figures.items()}


def _stem(name: Any) -> str:
    """A micrograph's or movie's bare name, by which they are told apart: movies/a.tiff and MotionCorr/job002/a.mrc."""
    return Path(str(name)).stem


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputError(path, "is not there", "Give the folder of the simulation that made the movies.")
    return path
