"""Simulated movies: a micrograph as motion correction should give it, the true motion, views, the true map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitreous.app.report.drawing import COLOURS, INK, new_figure
from vitreous.app.report.figure import Figure
from vitreous.app.report.figures._simulation import micrograph_figure, truth_figure, views_figure
from vitreous.data.motion import Motion, field_displacement, grid_points
from vitreous.io.gain import read_gain
from vitreous.io.movies import open_movie
from vitreous.io.relion import read_dataset, read_tables

_MOVIES_SHOWN = 4
_EXAGGERATION = 20.0  # of motion, so that it is seen on the field


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """The first micrograph, the first movies' motion, views and true map."""
    particles = read_dataset(job_directory / "truth_particles.star")
    movies = read_dataset(job_directory / "movies.star")
    pixel_size = float(movies.optics["movie_pixel_size"][0])
    names = [str(name) for name in movies.rows["movie_name"][:_MOVIES_SHOWN]]
    gain = read_gain(job_directory / "gain.mrc")
    motions = _motions(job_directory / "truth_motion.star", names, (gain.shape[0], gain.shape[1]))
    rows = particles.rows
    mine = rows["micrograph_name"] == names[0]
    coordinates = np.stack([rows["coordinate_x"][mine], rows["coordinate_y"][mine]], 1)
    micrograph = _aligned_sum(project / names[0], gain, motions[0])
    return [
        micrograph_figure(micrograph, pixel_size, names[0], coordinates),
        _motion_figure(names, motions, pixel_size),
        views_figure(rows),
        truth_figure(job_directory),
    ]


def _motions(path: Path, names: list[str], shape: tuple[int, int]) -> list[Motion]:
    tables = read_tables(path)
    shifts, model = tables["global_shift"], tables["local_motion_model"]
    motions = []
    for name in names:
        mine, local = shifts["movie_name"] == name, model["movie_name"] == name
        track = np.stack([shifts["shift_x"][mine], shifts["shift_y"][mine]], 1)
        motions.append(Motion(shape, track, model["motion_coefficient"][local].reshape(2, -1)))
    return motions


def _aligned_sum(path: Path, gain: np.ndarray, motion: Motion) -> np.ndarray:
    """Sum of the frames moved back by whole pixels, dead and hot pixels replaced."""
    movie = open_movie(path)
    total = np.zeros(movie.shape, dtype=np.float32)
    bad = gain == 0
    for number in range(movie.n_frames):
        frame = movie.frames(number, number + 1)[0] * gain
        middle = float(np.median(frame))
        frame[bad | (frame > 12 * max(middle, 1.0))] = middle
        shift = np.rint(motion.global_shifts[number]).astype(int)
        total += np.roll(frame, (shift[1], shift[0]), (0, 1))
    return total


def _motion_figure(names: list[str], motions: list[Motion], pixel_size: float) -> Figure:
    """Tracks of a grid of points over the field, made larger."""
    figure = new_figure(3.0 * len(names), 3.4)
    for axes, name, motion in zip(figure.subplots(1, len(names), squeeze=False)[0], names, motions, strict=True):
        points = grid_points(motion.shape, 5)
        tracks = points + _EXAGGERATION * field_displacement(motion, points)
        axes.plot(tracks[:, :, 0], tracks[:, :, 1], color=COLOURS[0], linewidth=0.9)
        axes.scatter(points[:, 0], points[:, 1], s=6, color=COLOURS[1])
        axes.set(xlim=(0, motion.shape[1]), ylim=(0, motion.shape[0]), aspect="equal", xticks=[], yticks=[])
        length = np.linalg.norm(motion.global_shifts[-1]) * pixel_size
        axes.set_title(f"{Path(name).stem}: {length:.1f} Å", fontsize=9, color=INK)
    caption = f"True motion at 25 points of the field, {_EXAGGERATION:.0f} times enlarged, from the first frame (dot); "
    caption += "the title says how far the whole field has moved at the end."
    return Figure.from_matplotlib(figure, "motion", "True motion", caption)
