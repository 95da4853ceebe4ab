"""From the options and columns that say what is known of orientations to what the method takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.core.symmetry import canonical_name
from vitreous.data.dataset import Dataset
from vitreous.methods.refinement.dataset import has_poses
from vitreous.methods.refinement.orientation_priors import OrientationPriors
from vitreous.methods.refinement.particles import ParticleSet


def search_options(params: Any, dataset: Dataset, particles: ParticleSet) -> dict[str, Any]:
    """Fields of AutoRefineOptions. Raises InputError where particles lack what the options need."""
    if params.sigma_ang > 0 and not has_poses(dataset):
        raise InputError("--sigma-ang", "needs particles with Euler angles", "Refine them globally first.")
    relaxed = canonical_name(params.relax_symmetry)
    if relaxed != "C1" and canonical_name(params.symmetry) != "C1":
        raise InputError(
            "--relax-symmetry", "goes with --sym C1 alone", "Leave the symmetry to be relaxed out of --sym."
        )
    priors = OrientationPriors(
        limit_tilt=params.limit_tilt,
        tilt=_prior(dataset, "tilt_prior", params.sigma_tilt, "--sigma-tilt"),
        psi=_prior(dataset, "psi_prior", params.sigma_psi, "--sigma-psi"),
        sigma_tilt=params.sigma_tilt,
        sigma_psi=params.sigma_psi,
        origins=_origins(dataset, particles.pixel_size),
    )
    return {"sigma_ang": params.sigma_ang, "relaxed_symmetry": relaxed, "priors": priors}


def _prior(dataset: Dataset, column: str, sigma: float, option: str) -> NDArray[np.float64] | None:
    if sigma <= 0:
        return None
    if column not in dataset.rows:
        raise InputError(option, f"needs particles with the column {column}", "Leave it out, or add the column.")
    return np.asarray(dataset.rows[column], dtype=np.float64)


def _origins(dataset: Dataset, pixel_size: float) -> NDArray[np.float64] | None:
    """Expected origins (y, x) in pixels, where the particles have them."""
    columns = ("origin_y_prior", "origin_x_prior")
    if any(name not in dataset.rows for name in columns):
        return None
    return np.stack([np.asarray(dataset.rows[name], dtype=np.float64) / pixel_size for name in columns], 1)
