"""Simulate dose-fractionated movies as a counting detector writes them, with all that is true about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.motion import Motion, accumulated_motion
from vitreous.data.table import Table
from vitreous.io.movies import open_movie
from vitreous.io.mrc import write_image
from vitreous.io.relion import write_dataset, write_tables
from vitreous.io.tiff import write_tiff
from vitreous.job import Context, Job, Outputs, parameter
from vitreous.jobs._simulation import (
    FieldParameters,
    FieldTruth,
    acquisition,
    crowd,
    draw_dirt,
    draw_focus,
    each,
    exposure_bytes,
    generators,
    load_sample,
    make_projector,
    micrograph_truth,
    optics_table,
    particle_truth,
    write_truth_map,
)
from vitreous.methods.simulation.detector import Detector, DetectorSettings, random_detector
from vitreous.methods.simulation.exposure import Specimen, record_movie
from vitreous.methods.simulation.motion import MotionSettings, random_motion
from vitreous.methods.simulation.scene import random_scene
from vitreous.runtime.atomic import write_text

MOVIES_NODE = "MicrographMovieGroupMetadata.star.relion"


class SimulateMoviesParameters(FieldParameters):
    """What `simulate-movies` takes."""

    n_movies: int = parameter(8, help="movies to make", aliases=("n",), ge=1)
    frames: int = parameter(16, help="frames a movie", ge=1)
    drift: float = parameter(8.0, help="drift of the whole field over the exposure", unit="A", ge=0)
    local_motion: float = parameter(2.0, help="rms of the local motion over the field", unit="A", ge=0)
    jitter: float = parameter(0.1, help="rms of what is random from frame to frame", unit="A", advanced=True, ge=0)
    gain_spread: float = parameter(0.03, help="unevenness of the detector's pixels (1 sigma)", ge=0, lt=0.2)
    hot_pixels: int = parameter(20, help="hot pixels, not in the gain reference", advanced=True, ge=0)
    dead_pixels: int = parameter(20, help="dead pixels, 0 in the gain reference", advanced=True, ge=0)
    dead_columns: int = parameter(1, help="dead columns", advanced=True, ge=0)


class SimulateMovies(Job):
    """Movies with particles in moving, fading ice, and the truth about every frame and particle."""

    name = "simulate-movies"
    folder = "Simulate"
    relion_type = "vitreous.simulate.movies"
    help = "simulate movies of an atomic model, with their truth"
    Parameters = SimulateMoviesParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write movies/*.tiff, gain.mrc, defects.txt, movies.star and the truth_* files."""
        sample = load_sample(params, context)
        shape = (params.size_y, params.size_x)
        taken = acquisition(params, shape, params.frames)
        projector = make_projector(sample, params.pixel_size)
        filling = crowd(params, sample)
        detector = _detector(params, shape, context)
        settings = MotionSettings(params.drift, jitter=params.jitter, local=params.local_motion)

        def make(index: int) -> tuple[FieldTruth, Motion]:
            path = context.directory / "movies" / f"movie_{index + 1:04d}.tiff"
            drawn, noise = generators(context.seed, index)
            focus = draw_focus(params, drawn)
            scene = random_scene(shape, params.pixel_size, filling, drawn)
            dirt = draw_dirt(params, context.seed, index)
            scene = scene if dirt is None else scene.without(dirt.covered)
            motion = random_motion(taken.exposures, shape, params.pixel_size, settings, drawn)
            if not (context.resume and _is_whole(path, shape, params.frames)):
                specimen = Specimen(projector, scene, focus, taken, noise)
                if dirt is not None:
                    specimen.contaminate(dirt, focus)
                write_tiff(path, record_movie(specimen, motion, taken, detector, noise), params.pixel_size)
            return FieldTruth(context.relative(path), scene, focus), motion

        memory = exposure_bytes(shape, params.frames)
        made = list(each(make, params.n_movies, "simulating movies", context, memory))
        fields, motions = [field for field, _ in made], [motion for _, motion in made]
        _write_tables(params, context, fields, motions)
        write_truth_map(params, sample, context)
        n_particles = sum(len(field.scene) for field in fields)
        return Outputs(
            nodes={context.relative(context.directory / "movies.star"): MOVIES_NODE},
            metrics={
                "n_movies": len(fields),
                "n_particles": n_particles,
                "n_atoms": len(sample.atoms),
                "particle_diameter_A": 2.0 * sample.radius,
                "dose_per_frame_e_A2": taken.frame_dose,
            },
            summary=f"{len(fields)} movies of {params.frames} frames with {n_particles} particles of "
            f"{2 * sample.radius:.0f} A, {taken.frame_dose:.3g} e/A^2 a frame",
        )


def _detector(params: SimulateMoviesParameters, shape: tuple[int, int], context: Context) -> Detector:
    """Draw the detector and write what is known of it: gain.mrc (to multiply by) and defects.txt (x y width height)."""
    settings = DetectorSettings(params.gain_spread, params.hot_pixels, params.dead_pixels, params.dead_columns)
    rng = np.random.default_rng(np.random.SeedSequence(context.seed, spawn_key=(0,)))
    detector = random_detector(shape, settings, rng)
    write_image(context.directory / "gain.mrc", detector.gain, params.pixel_size)
    lines = [f"{x} 0 1 {shape[0]}\n" for x in detector.columns]
    write_text(context.directory / "defects.txt", "".join(lines))
    return detector


def _is_whole(path: Path, shape: tuple[int, int], n_frames: int) -> bool:
    """Whether an earlier run wrote this movie: it opens, and its last frame reads."""
    if not path.is_file():
        return False
    try:
        movie = open_movie(path)
        return movie.shape == shape and movie.n_frames == n_frames and bool(movie.frames(n_frames - 1, n_frames).any())
    except InputError:
        return False


def _write_tables(
    params: SimulateMoviesParameters, context: Context, fields: list[FieldTruth], motions: list[Motion]
) -> None:
    """movies.star for the next job; truth_particles, truth_micrographs and truth_motion.star for whoever checks it."""
    names = np.array([field.name for field in fields], dtype=object)
    ones = np.ones(len(fields), dtype=np.int64)
    rows = Table({"movie_name": names, "optics_group": ones})
    write_dataset(context.directory / "movies.star", Dataset("movies", optics_table(params), rows))
    optics = optics_table(params, micrograph_pixel_size=params.pixel_size)
    particles = Dataset("particles", optics, particle_truth(fields))
    write_dataset(context.directory / "truth_particles.star", particles)
    lengths = [accumulated_motion(motion, params.pixel_size, params.dose / params.frames) for motion in motions]
    micrographs = micrograph_truth(fields).with_columns(
        movie_name=names,
        motion_total=np.array([length.total for length in lengths]),
        motion_early=np.array([length.early for length in lengths]),
        motion_late=np.array([length.late for length in lengths]),
    )
    write_dataset(context.directory / "truth_micrographs.star", Dataset("micrographs", optics, micrographs))
    write_tables(context.directory / "truth_motion.star", _motion_tables(fields, motions))


def _motion_tables(fields: list[FieldTruth], motions: list[Motion]) -> dict[str, Table]:
    """Shifts (RELION's sign: what brings a frame back onto the first) and local model, all movies in one table each."""
    shifts, models = [], []
    for field, motion in zip(fields, motions, strict=True):
        n = motion.n_frames
        columns = {
            "movie_name": np.full(n, field.name, dtype=object),
            "frame_number": np.arange(1, n + 1),
            "shift_x": motion.global_shifts[:, 0],
            "shift_y": motion.global_shifts[:, 1],
        }
        shifts.append(Table(columns))
        coefficients = np.zeros(36) if motion.coefficients is None else motion.coefficients.reshape(-1)
        columns = {
            "movie_name": np.full(36, field.name, dtype=object),
            "motion_coefficient_index": np.arange(36),
            "motion_coefficient": coefficients,
        }
        models.append(Table(columns))
    return {"global_shift": Table.concatenate(shifts), "local_motion_model": Table.concatenate(models)}
