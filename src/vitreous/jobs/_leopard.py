"""A Leopard-EM configuration as our optics, orientations and filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.core.ctf import Microscope
from vitreous.core.errors import InputError
from vitreous.core.named_aberrations import Aberrations
from vitreous.core.search_grid import AngleLimits, search_orientations
from vitreous.io.leopard import LeopardMatch, LeopardOrientations
from vitreous.methods.matching.filters import Filters, RadialCurve
from vitreous.methods.matching.match import MatchSettings
from vitreous.methods.matching.transfer import Lens


def lens_of_leopard(config: LeopardMatch) -> Lens:
    """The optics group as ours."""
    optics = config.optics
    matrix = optics.get("mag_matrix") or [1.0, 0.0, 0.0, 1.0]
    tilt = (float(optics.get("beam_tilt_x") or 0.0), float(optics.get("beam_tilt_y") or 0.0))
    aberrations = Aberrations(
        tilt,
        {str(name): float(value) for name, value in (optics.get("odd_zernikes") or {}).items()},
        {str(name): float(value) for name, value in (optics.get("even_zernikes") or {}).items()},
        ((float(matrix[0]), float(matrix[1])), (float(matrix[2]), float(matrix[3]))),
    )
    microscope = Microscope(
        float(optics["voltage"]), float(optics["spherical_aberration"]), float(optics["amplitude_contrast_ratio"])
    )
    return Lens(
        float(optics["pixel_size"]),
        microscope,
        float(optics["defocus_u"]),
        float(optics["defocus_v"]),
        float(optics["astigmatism_angle"]),
        float(optics["phase_shift"]),
        float(optics["ctf_B_factor"]),
        aberrations,
    )


def settings_of_leopard(config: LeopardMatch, where: Path) -> MatchSettings:
    """Orientations, defoci and filters of a Leopard-EM configuration as ours."""
    low, high, step = config.defocus or (0.0, 0.0, 0.0)
    grids = [_angles(grid) for grid in config.orientations]
    first = config.orientations[0]
    return MatchSettings(
        psi_step=first.psi_step,
        theta_step=first.theta_step,
        symmetry=first.symmetry,
        angles=torch.cat(grids),
        defocus_min=low,
        defocus_max=high,
        defocus_step=step,
        filters=_filters(config.filters, where),
        corners=True,
    )


def _angles(grid: LeopardOrientations) -> torch.Tensor:
    method: Any = grid.method
    limits = None
    if any(value is not None for value in grid.limits.values()):
        given = {name: value for name, value in grid.limits.items() if value is not None}
        limits = AngleLimits(
            (given.get("phi_min", 0.0), given.get("phi_max", 360.0)),
            (given.get("theta_min", 0.0), given.get("theta_max", 180.0)),
            (given.get("psi_min", 0.0), given.get("psi_max", 360.0)),
        )
    return search_orientations(grid.psi_step, grid.theta_step, grid.symmetry, method=method, limits=limits)


def _filters(sections: dict[str, dict[str, Any]], where: Path) -> Filters:
    known = {"whitening_filter", "bandpass_filter", "phase_randomization_filter", "arbitrary_curve_filter"}
    for name, section in sections.items():
        if name not in known and section.get("enabled"):
            raise InputError(where, f"{name} is not offered", "Disable it.")
    white = {"enabled": True, **sections.get("whitening_filter", {})}
    band, random, curve = (
        sections.get(f"{n}_filter", {}) for n in ("bandpass", "phase_randomization", "arbitrary_curve")
    )
    power = white.get("do_power_spectrum")
    return Filters(
        whiten="" if not white["enabled"] else "amplitude" if power is False else "power",
        n_bins=int(white.get("num_freq_bins") or 0),
        max_frequency=float(white.get("max_freq") or 0.5),
        low=float(band.get("low_freq_cutoff") or 0.0) if band.get("enabled") else 0.0,
        high=float(band.get("high_freq_cutoff") or 0.0) if band.get("enabled") else 0.0,
        falloff=float(band.get("falloff") or 0.05),
        curve=_curve(curve, where) if curve.get("enabled") else None,
        randomise_from=float(random.get("cuton") or 0.0) if random.get("enabled") else 0.0,
    )


def _curve(section: dict[str, Any], where: Path) -> RadialCurve:
    frequencies = np.asarray(section.get("frequencies") or [], dtype=np.float64)
    amplitudes = np.asarray(section.get("amplitudes") or [], dtype=np.float64)
    if len(frequencies) < 2 or len(frequencies) != len(amplitudes) or (np.diff(frequencies) <= 0).any():
        raise InputError(
            where, "its arbitrary_curve_filter is no curve", "Give rising frequencies, one amplitude each."
        )
    return RadialCurve(frequencies, amplitudes)
