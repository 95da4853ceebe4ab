"""Pick particles by a Laplacian of Gaussian, by templates or by a trained picker; automatic threshold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_image
from vitreous.io.relion import write_tables
from vitreous.job import Context, Job, Outputs, Quarantined
from vitreous.jobs._autopick_parameters import AutopickParameters
from vitreous.jobs._candidates import read_candidates, write_candidates
from vitreous.jobs._detectors import Detector, lens_of, make_detector
from vitreous.jobs._micrographs import read_micrographs
from vitreous.methods.picking.pick import Candidates
from vitreous.methods.picking.selection import Cut
from vitreous.methods.picking.threshold import ScoreModel
from vitreous.runtime.progress import track
from vitreous.runtime.queue import shared_out

log = logging.getLogger(__name__)
COORDINATES_NODE = "MicrographCoordsGroup.star.relion.autopick"


@dataclass(frozen=True)
class Found:
    """One micrograph with its candidates, what their scores say by themselves, and where its picks go."""

    name: str
    place: Path
    candidates: Candidates
    model: ScoreModel | None = None


class Autopick(Job):
    """Multi-scale Laplacian of Gaussian, templates, or a trained picker; all scores decide what is a particle."""

    name = "autopick"
    folder = "AutoPick"
    relion_type = "relion.autopick.log"
    help = "pick particles in micrographs (Laplacian of Gaussian, templates, or a trained picker)"
    Parameters = AutopickParameters
    shared = queued = True

    def run(self, params: Any, context: Context) -> Outputs:
        """Write NAME_candidates.star and NAME_autopick.star per micrograph, and autopick.star that lists them."""
        dataset = _read(context.project / params.input)
        detector = make_detector(params, context)
        results = list(track(_search(dataset, detector, context), "Picking", len(dataset)))
        failed = [result for result in results if isinstance(result, Quarantined)]
        found = [result for result in results if isinstance(result, Found)]
        for item in failed:
            log.warning("%s left out: %s", item.item, item.reason)
        if not found:
            what = f"none of its {len(results)} micrographs could be searched; the first: {failed[0].reason}"
            raise InputError(context.project / params.input, what, "Look at the micrographs.")
        models = [one.model for one in found]
        cuts = detector.cut([one.candidates.scores for one in found], found[0].candidates.noise, models)
        counts = [write_picks(one, picks_of(one, cut)) for one, cut in zip(found, cuts, strict=True)]
        return write_listing(found, counts, cuts, failed, context)


def _read(path: Path) -> Dataset:
    dataset = read_micrographs(path, "Give the STAR file of the CTF job.")
    if len(dataset) == 0:
        raise InputError(path, "lists no micrographs", "Give a STAR file with at least one.")
    return dataset


def _search(dataset: Dataset, detector: Detector, context: Context) -> Iterator[Found | Quarantined]:
    """Candidates of each micrograph, in order; numpy, scipy and FFTs leave Python's lock free."""
    return shared_out(
        range(len(dataset)),
        lambda index: _attempt(dataset, index, detector, context),
        threads=context.threads,
        ranks=context.ranks,
    )


def _attempt(dataset: Dataset, index: int, detector: Detector, context: Context) -> Found | Quarantined:
    try:
        found = search_one(dataset, index, detector, context)
    except (ValueError, InputError) as error:
        return Quarantined(str(dataset.rows["micrograph_name"][index]), str(error))
    # The fit of its own scores would hold up all ranks if it were left to the end.
    return replace(found, model=detector.fit(found.candidates))


def search_one(
    dataset: Dataset,
    index: int,
    detector: Detector,
    context: Context,
    read: Callable[[Path], tuple[NDArray[Any], float]] = read_image,
) -> Found:
    """Candidates of one micrograph, written. Raises ValueError, and what `read` raises."""
    name = str(dataset.rows["micrograph_name"][index])
    place = context.place_of(name)
    stored = Path(f"{place}_candidates.star")
    optics = {column: dataset.optics_of_rows(column)[index] for column in dataset.optics}
    lens = lens_of(optics, dataset.rows.row(index))
    search = detector.search_through(lens)
    candidates = read_candidates(stored, search) if context.resume and stored.is_file() else None
    if candidates is None:
        image, header_pixel = read(context.project / name)
        pixel_size = float(optics.get("micrograph_pixel_size", header_pixel))
        if pixel_size <= 0:
            raise ValueError("its pixel size is known neither from the STAR file nor from its header")
        micrograph = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        candidates = detector.find(micrograph, pixel_size, lens)
        write_candidates(stored, candidates, search)
    return Found(name, place, candidates)


def write_picks(found: Found, picks: Table) -> int:
    """Write the picks of a micrograph; how many there are."""
    write_tables(f"{found.place}_autopick.star", {"": picks})
    return picks.n_rows


def picks_of(found: Found, cut: Cut) -> Table:
    """The candidates that are picks."""
    kept = cut.keeps(found.candidates.scores)
    return Table(
        {
            "coordinate_x": found.candidates.coordinates[kept, 0],
            "coordinate_y": found.candidates.coordinates[kept, 1],
            "pick_score": found.candidates.scores[kept],
            "class_number": found.candidates.classes[kept],
            "psi": found.candidates.psi[kept],
        }
    )


def write_listing(
    found: list[Found], counts: list[int], cuts: list[Cut], failed: list[Quarantined], context: Context
) -> Outputs:
    """Write autopick.star and picking_summary.star."""
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
