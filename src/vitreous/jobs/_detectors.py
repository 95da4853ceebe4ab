"""What looks for particles: a Laplacian of Gaussian, templates or a trained picker, each with its own threshold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.errors import InputError
from vitreous.io.mrc import read_image
from vitreous.io.picker_file import read_picker
from vitreous.job import Context
from vitreous.jobs._autopick_parameters import AutopickParameters
from vitreous.methods.picking.calibration import Calibration
from vitreous.methods.picking.network import PickerNetwork
from vitreous.methods.picking.pick import Candidates, Lens, PickingRecipe, find_candidates
from vitreous.methods.picking.selection import Cut, choose_cuts, fit_own
from vitreous.methods.picking.templates import Templates, templates_of_images, templates_of_map
from vitreous.methods.picking.threshold import NoiseLaw, ScoreModel
from vitreous.methods.picking.trained import PickerScale, TrainedPicker, cut_log_odds, find_with_network

Scores = NDArray[np.float64]
Models = Sequence[ScoreModel | None] | None


@dataclass(frozen=True)
class Detector:
    """find: candidates of a micrograph (pixel size in A, its lens if known); fit: what its scores say by themselves.

    cut: a cut for the scores of each micrograph, given how noise scores and, where they are known, the fits.
    search: names all that candidates depend on but the micrograph.
    """

    find: Callable[[Tensor, float, Lens | None], Candidates]
    fit: Callable[[Candidates], ScoreModel | None]
    cut: Callable[[list[Scores], NoiseLaw, Models], list[Cut]]
    diameter: float
    search: str

    def search_through(self, lens: Lens | None) -> str:
        """A name for the search of a micrograph seen through this lens, in the file of its candidates."""
        seen = "" if lens is None else f"{lens.microscope} {[float(value) for value in astuple(lens.defocus)]}"
        return f"search-{hashlib.sha256((self.search + seen).encode()).hexdigest()[:16]}"


def make_detector(params: AutopickParameters, context: Context) -> Detector:
    """The one that is asked for. Raises InputError where the settings do not go together."""
    if params.ref and params.model:
        raise InputError("autopick", "is given both --ref and --model", "Give one of them.")
    if params.model:
        return _trained(params, context)
    if not (params.diameter_min and params.diameter_max):
        raise InputError("autopick", "needs diameter_min and diameter_max", "Give both, or --model, which knows.")
    recipe = _recipe(params, params.diameter_min, params.diameter_max)
    templates = read_templates(params, context.project) if params.ref else None
    return Detector(
        lambda image, pixel_size, lens: find_candidates(image, pixel_size, recipe, lens, templates),
        lambda found: None if params.threshold is not None else fit_own(found.scores, found.noise),
        lambda scores, law, models: choose_cuts(
            scores,
            law,
            models=models,
            given=params.threshold,
            adjust=params.adjust_threshold,
            upper_deviations=params.upper_threshold,
        ),
        0.5 * (params.diameter_min + params.diameter_max),
        f"{recipe} {_content(context, params.ref)} {params.ref_pixel_size} {params.psi_step}",
    )


def _content(context: Context, name: str) -> str:
    """What a file holds, in short; empty without one."""
    return hashlib.sha256((context.project / name).read_bytes()).hexdigest() if name else ""


def _trained(params: AutopickParameters, context: Context) -> Detector:
    path = context.project / params.model
    weights, record = read_picker(path)
    network = PickerNetwork()
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(path, "holds weights of another network", "Train it again with this version.") from error
    picker = TrainedPicker(
        network,
        PickerScale(record.pixel_size, record.diameter),
        Calibration(record.slope, record.offset),
        dark_particles=record.dark_particles,
        exclude_contamination=record.exclude_contamination,
    ).on(context.device)
    recipe = _recipe(params, params.diameter_min or record.diameter, params.diameter_max or record.diameter)
    return Detector(
        lambda image, pixel_size, _: find_with_network(image, pixel_size, recipe, picker, context.device),
        lambda _: None,
        lambda scores, *_: cut_log_odds(scores, given=params.threshold, adjust=params.adjust_threshold),
        record.diameter,
        f"{recipe} {_content(context, params.model)}",
    )


def _recipe(params: AutopickParameters, diameter_min: float, diameter_max: float) -> PickingRecipe:
    if diameter_min > diameter_max:
        raise InputError("autopick", "diameter_min is larger than diameter_max", "Exchange them.")
    return PickingRecipe(
        diameter_min=diameter_min,
        diameter_max=diameter_max,
        min_distance=params.min_distance,
        max_resolution=params.max_resolution,
        dark_particles=not params.invert,
        use_ctf=params.use_ctf,
        exclude_contamination=params.exclude_contamination,
        edge=params.edge,
        min_roundness=params.min_roundness,
    )


def read_templates(params: AutopickParameters, project: Path) -> Templates:
    """Class averages (k, y, x), one image, or a map, told apart by shape and ending."""
    path = project / params.ref
    images, header_pixel = read_image(path)
    pixel_size = params.ref_pixel_size or header_pixel
    if pixel_size <= 0:
        raise InputError(path, "does not say its pixel size", "Give --ref-pixel-size.")
    values = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    is_map = values.ndim == 3 and path.suffix != ".mrcs" and len(set(values.shape)) == 1
    values = values if is_map or values.ndim == 3 else values[None]
    make = templates_of_map if is_map else templates_of_images
    try:
        return make(values, pixel_size, params.diameter_max, psi_step=params.psi_step)
    except ValueError as error:
        raise InputError(path, f"cannot be used: {error}", "Give square, even images that are not empty.") from error


def lens_of(optics: dict[str, Any], row: dict[str, Any]) -> Lens | None:
    """How a micrograph was seen; None where its CTF is not known."""
    needed = ("voltage", "cs", "amplitude_contrast")
    if "defocus_u" not in row or any(name not in optics for name in needed):
        return None
    u, v = float(row["defocus_u"]), float(row.get("defocus_v", row["defocus_u"]))
    angle, phase = float(row.get("defocus_angle", 0.0)), float(row.get("phase_shift", 0.0))
    if not np.isfinite([u, v, angle, phase]).all():
        return None
    defocus = Defocus(*(torch.tensor([value], dtype=torch.float64) for value in (u, v, angle, phase)))
    voltage, cs, amplitude_contrast = (float(optics[name]) for name in needed)
    return Lens(Microscope(voltage, cs, amplitude_contrast), defocus)
