"""Pick particles by a Laplacian of Gaussian or by templates, through each micrograph's CTF; automatic threshold."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset, read_tables, write_tables
from vitreous.job import Context, Job, JobParameters, Outputs, Quarantined, parameter
from vitreous.methods.picking.pick import Candidates, Lens, PickingRecipe, find_candidates
from vitreous.methods.picking.selection import Cut, choose_cuts, fit_own
from vitreous.methods.picking.templates import Templates, templates_of_images, templates_of_map
from vitreous.methods.picking.threshold import NoiseLaw, ScoreModel
from vitreous.runtime.progress import track
from vitreous.runtime.queue import shared_out

log = logging.getLogger(__name__)
COORDINATES_NODE = "MicrographCoordsGroup.star.relion.autopick"


class AutopickParameters(JobParameters):
    """What `autopick` takes."""

    input: str = parameter(help="STAR file of micrographs with their CTF", aliases=("i",))
    diameter_min: float = parameter(help="smallest particle diameter", unit="A", aliases=("LoG_diam_min",), gt=0)
    diameter_max: float = parameter(help="largest particle diameter", unit="A", aliases=("LoG_diam_max",), gt=0)
    threshold: float | None = parameter(None, help="lowest score of a pick (default: found from the scores)")
    adjust_threshold: float = parameter(
        0.0, help="move the threshold by this many standard deviations of the scores: positive picks fewer",
        aliases=("LoG_adjust_threshold",),
    )  # fmt: skip
    upper_threshold: float = parameter(
        5.0, help="drop scores this many (robust) standard deviations above the picks' median (0: keep them)",
        aliases=("LoG_upper_threshold",), ge=0,
    )  # fmt: skip
    min_distance: float = parameter(
        0.0, help="least distance between picks (0: 0.8 of diameter_min)", unit="A",
        aliases=("min_distance_A", "min_distance"), ge=0,
    )  # fmt: skip
    max_resolution: float = parameter(
        20.0, help="finest detail used", unit="A", aliases=("LoG_maxres", "lowpass"), gt=0
    )
    ref: str = parameter(
        "", help="instead of a LoG: templates with white particles, class averages (.mrcs) or a map (.mrc)"
    )
    ref_pixel_size: float = parameter(
        0.0, help="pixel size of the templates (0: as their header says)", unit="A", aliases=("angpix_ref",), ge=0,
        advanced=True,
    )  # fmt: skip
    psi_step: float = parameter(
        5.0, help="step of the templates' directions in the plane", unit="deg", aliases=("ang",), gt=0, le=360,
        advanced=True,
    )  # fmt: skip
    invert: bool = parameter(False, help="particles are white in the micrographs", aliases=("Log_invert", "LoG_invert"))
    use_ctf: bool = parameter(True, help="weight the filter with the CTF of each micrograph where it is known")
    exclude_contamination: bool = parameter(True, help="leave out ice crystals, carbon and dirt")
    edge: float = parameter(
        -1.0, help="least distance of a pick from the micrograph's edge (negative: half of diameter_max)", unit="A",
        advanced=True,
    )  # fmt: skip
    min_roundness: float = parameter(
        0.2, help="least roundness of a pick's response, 0 to 1: edges of carbon have less", advanced=True, ge=0, le=1
    )


@dataclass(frozen=True)
class _Found:
    """One micrograph with its candidates, what their scores say by themselves, and where its picks go."""

    name: str
    place: Path
    candidates: Candidates
    model: ScoreModel | None = None


class Autopick(Job):
    """Multi-scale Laplacian of Gaussian, or templates; scores of all micrographs decide what is a particle."""

    name = "autopick"
    folder = "AutoPick"
    relion_type = "relion.autopick.log"
    help = "pick particles in micrographs (Laplacian of Gaussian or templates)"
    Parameters = AutopickParameters
    shared = queued = True

    def run(self, params: Any, context: Context) -> Outputs:
        """Write NAME_candidates.star and NAME_autopick.star per micrograph, and autopick.star that lists them."""
        if params.diameter_min > params.diameter_max:
            raise InputError("autopick", "diameter_min is larger than diameter_max", "Exchange them.")
        dataset = _read(context.project / params.input)
        templates = read_templates(params, context.project) if params.ref else None
        results = list(track(_search(dataset, params, templates, context), "Picking", len(dataset)))
        failed = [result for result in results if isinstance(result, Quarantined)]
        found = [result for result in results if isinstance(result, _Found)]
        for item in failed:
            log.warning("%s left out: %s", item.item, item.reason)
        if not found:
            what = f"none of its {len(results)} micrographs could be searched; the first: {failed[0].reason}"
            raise InputError(context.project / params.input, what, "Look at the micrographs.")
        cuts = choose_cuts(
            [one.candidates.scores for one in found],
            found[0].candidates.noise,
            models=[one.model for one in found],
            given=params.threshold,
            adjust=params.adjust_threshold,
            upper_deviations=params.upper_threshold,
        )
        counts = [_write_picks(one, cut) for one, cut in zip(found, cuts, strict=True)]
        return _outputs(found, counts, cuts, failed, context)


def _read(path: Path) -> Dataset:
    dataset = read_dataset(path)
    if dataset.kind != "micrographs" or "micrograph_name" not in dataset.rows:
        raise InputError(path, f"lists {dataset.kind}, not micrographs", "Give the STAR file of the CTF job.")
    if len(dataset) == 0:
        raise InputError(path, "lists no micrographs", "Give a STAR file with at least one.")
    return dataset


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


def _search(
    dataset: Dataset, params: AutopickParameters, templates: Templates | None, context: Context
) -> Iterator[_Found | Quarantined]:
    """Candidates of each micrograph, in order; numpy, scipy and FFTs leave Python's lock free."""
    recipe = PickingRecipe(
        diameter_min=params.diameter_min,
        diameter_max=params.diameter_max,
        min_distance=params.min_distance,
        max_resolution=params.max_resolution,
        dark_particles=not params.invert,
        use_ctf=params.use_ctf,
        exclude_contamination=params.exclude_contamination,
        edge=params.edge,
        min_roundness=params.min_roundness,
    )
    return shared_out(
        range(len(dataset)),
        lambda index: _fitted(_attempt(dataset, index, recipe, templates, context), params),
        threads=context.threads,
        ranks=context.ranks,
    )


def _attempt(
    dataset: Dataset, index: int, recipe: PickingRecipe, templates: Templates | None, context: Context
) -> _Found | Quarantined:
    name = str(dataset.rows["micrograph_name"][index])
    place = context.place_of(name)
    stored = Path(f"{place}_candidates.star")
    try:
        candidates = _read_candidates(stored) if context.resume and stored.is_file() else None
        if candidates is None:
            image, header_pixel = read_image(context.project / name)
            optics = {column: dataset.optics_of_rows(column)[index] for column in dataset.optics}
            pixel_size = float(optics.get("micrograph_pixel_size", header_pixel))
            if pixel_size <= 0:
                raise ValueError("its pixel size is known neither from the STAR file nor from its header")
            lens = _lens(optics, dataset.rows.row(index))
            micrograph = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
            candidates = find_candidates(micrograph, pixel_size, recipe, lens, templates)
            _write_candidates(stored, candidates)
    except (ValueError, InputError) as error:
        return Quarantined(name, str(error))
    return _Found(name, place, candidates)


def _fitted(found: _Found | Quarantined, params: AutopickParameters) -> _Found | Quarantined:
    """With the fit of its own scores, which would hold up all ranks if it were left to the end."""
    if isinstance(found, Quarantined) or params.threshold is not None:
        return found
    return replace(found, model=fit_own(found.candidates.scores, found.candidates.noise))


def _lens(optics: dict[str, Any], row: dict[str, Any]) -> Lens | None:
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


def _write_candidates(path: Path, found: Candidates) -> None:
    general = {"contaminated": found.contaminated, "noise_mode": found.noise.mode, "noise_scale": found.noise.scale}
    rows = Table(
        {
            "coordinate_x": found.coordinates[:, 0],
            "coordinate_y": found.coordinates[:, 1],
            "pick_score": found.scores,
            "pick_diameter": found.diameters,
            "class_number": found.classes,
            "psi": found.psi,
        }
    )
    write_tables(path, {"general": general, "candidates": rows})


def _read_candidates(path: Path) -> Candidates | None:
    """Candidates that an earlier run left; None where they cannot be read back."""
    try:
        tables = read_tables(path)
        general, rows = tables["general"].row(0), tables["candidates"]
        coordinates = np.stack([rows["coordinate_x"], rows["coordinate_y"]], axis=1)
        noise = NoiseLaw(float(general["noise_mode"]), float(general["noise_scale"]))
        share = float(general["contaminated"])
        scores, diameters = rows["pick_score"], rows["pick_diameter"]
        return Candidates(coordinates, scores, diameters, share, noise, rows["class_number"], rows["psi"])
    except (InputError, KeyError):
        return None


def _write_picks(found: _Found, cut: Cut) -> int:
    kept = cut.keeps(found.candidates.scores)
    picks = Table(
        {
            "coordinate_x": found.candidates.coordinates[kept, 0],
            "coordinate_y": found.candidates.coordinates[kept, 1],
            "pick_score": found.candidates.scores[kept],
            "class_number": found.candidates.classes[kept],
            "psi": found.candidates.psi[kept],
        }
    )
    write_tables(f"{found.place}_autopick.star", {"": picks})
    return int(kept.sum())


def _outputs(
    found: list[_Found], counts: list[int], cuts: list[Cut], failed: list[Quarantined], context: Context
) -> Outputs:
    files = [context.relative(Path(f"{one.place}_autopick.star")) for one in found]
    names = [one.name for one in found]
    listing = Table({"micrograph_name": names, "coordinate_file": files})
    thresholds = np.array([cut.threshold for cut in cuts])
    summary = Table(
        {
            "micrograph_name": names,
            "n_picks": np.array(counts),
            "threshold": np.where(np.isfinite(thresholds), thresholds, 0.0),
            "threshold_basis": [cut.basis for cut in cuts],
            "contaminated": np.array([one.candidates.contaminated for one in found]),
        }
    )
    target = context.directory / "autopick.star"
    write_tables(target, {"coordinate_files": listing})
    write_tables(context.directory / "picking_summary.star", {"micrographs": summary})
    total = sum(counts)
    words = f"{total} picks in {len(found)} micrographs ({total / len(found):.0f} each)"
    if all(cut.basis == "noise" for cut in cuts):
        words += "; the scores show no clear particles: look at the picks, and give --threshold if they are wrong"
        log.warning("%s", words)
    metrics: dict[str, float | int | str] = {
        "n_micrographs": len(found),
        "n_picks": total,
        "median_picks": float(np.median(counts)),
        "median_threshold": float(np.median(summary["threshold"])),
        "contaminated_fraction": float(np.mean(summary["contaminated"])),
    }
    if failed:
        words += f"; {len(failed)} micrographs left out"
    return Outputs({context.relative(target): COORDINATES_NODE}, metrics, failed, words)
