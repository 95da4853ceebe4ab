"""Particles that are cut again: their rows by micrograph, with origins on the point that is to be in the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset
from vitreous.job import Context
from vitreous.jobs._extract_parameters import ExtractParameters
from vitreous.jobs._picks import by_micrograph
from vitreous.methods.extraction.recentre import centre_of_mass, centre_on_point


def particles_to_cut(params: ExtractParameters, context: Context) -> dict[str, Table]:
    """Rows of a particle set by micrograph name. Raises InputError where they do not know their place."""
    path = context.project / params.particles
    particles = read_dataset(path)
    missing = [n for n in ("coordinate_x", "coordinate_y", "micrograph_name") if n not in particles.rows]
    if missing:
        raise InputError(path, f"has no {', '.join(missing)}", "Only particles that know their place can be cut again.")
    elsewhere = bool(params.recenter_on) or any((params.recenter_x, params.recenter_y, params.recenter_z))
    if (params.recenter or elsewhere) and "origin_x" not in particles.rows:
        what = "has no origins to re-centre on"
        raise InputError(path, what, "Give the particles of a refinement or classification.")
    if elsewhere and not params.recenter:
        raise InputError("extract", "has a point to centre on, but not --recenter", "Add --recenter.")
    rows = _on_point(particles, path, params, context) if elsewhere else particles.rows
    if "image_name" in rows:
        rows = rows.with_columns(original_image_name=rows["image_name"])
    return by_micrograph(rows)


def _on_point(particles: Dataset, path: Path, params: ExtractParameters, context: Context) -> Table:
    """The rows with origins that bring the reference's point to the box centre."""
    rows = particles.rows
    points = _points(particles, path, params, context)
    missing = [name for name in ("psi", *(("rot", "tilt") if points[:, 2].any() else ())) if name not in rows]
    if missing:
        raise InputError(path, f"has no {', '.join(missing)}", "Give the particles of a refinement or classification.")
    none = np.zeros(rows.n_rows)
    angles = np.stack([rows[n].astype(np.float64) if n in rows else none for n in ("rot", "tilt", "psi")], axis=1)
    origins = np.stack([rows["origin_x"], rows["origin_y"]], axis=1).astype(np.float64)
    moved = centre_on_point(origins, points, angles)
    return rows.with_columns(origin_x=moved[:, 0], origin_y=moved[:, 1])


def _points(particles: Dataset, path: Path, params: ExtractParameters, context: Context) -> np.ndarray:
    """x, y, z (A) in the reference, one a particle."""
    rows = particles.rows
    if not params.recenter_on:
        known = params.ref_pixel_size or "pixel_size" in particles.optics
        if not known:
            raise InputError(path, "does not say the particles' pixel size", "Give --ref-pixel-size.")
        size = params.ref_pixel_size or particles.optics_of_rows("pixel_size").astype(np.float64)[:, None]
        point = np.array([params.recenter_x, params.recenter_y, params.recenter_z])
        return np.asarray(np.broadcast_to(point * size, (rows.n_rows, 3)))
    reference = context.project / params.recenter_on
    density, header = read_image(reference)
    pixel_size = params.ref_pixel_size or header
    if pixel_size <= 0:
        raise InputError(reference, "does not say its pixel size", "Give --ref-pixel-size.")
    try:
        if density.ndim == 3 and reference.suffix != ".mrcs":
            return np.tile(centre_of_mass(density.astype(np.float64), pixel_size), (rows.n_rows, 1))
        images = density if density.ndim == 3 else density[None]
        # Classes without particles may be empty: they are asked for nothing.
        number = rows["class_number"].astype(np.int64) - 1 if "class_number" in rows else np.zeros(rows.n_rows, int)
        if number.min() < 0 or number.max() >= len(images):
            raise InputError(reference, f"has {len(images)} classes, the particles name others", "Give their classes.")
        centres = np.zeros((len(images), 3))
        for index in np.unique(number):
            centres[index] = centre_of_mass(images[index].astype(np.float64), pixel_size)
    except ValueError as error:
        raise InputError(reference, str(error), "Give a map or class averages with white particles.") from error
    return centres[number]
