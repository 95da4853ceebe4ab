"""Train a picker on some picks of this data: a small network, from particles and pixels that nobody labelled."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous import __version__
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_image
from vitreous.io.picker_file import PickerRecord, write_picker
from vitreous.io.relion import write_tables
from vitreous.job import Context, Job, JobParameters, Outputs, Quarantined, parameter
from vitreous.jobs._micrographs import read_micrographs
from vitreous.jobs._picks import match_names, read_picks
from vitreous.jobs._training_state import load_progress, save_progress
from vitreous.methods.picking.examples import Examples, LabelledMicrograph
from vitreous.methods.picking.network import PIXELS_PER_DIAMETER
from vitreous.methods.picking.positive_unlabelled import OBJECTIVES
from vitreous.methods.picking.precision_recall import PrecisionRecall
from vitreous.methods.picking.trained import PickerScale, TrainedPicker, network_maxima, working_micrograph
from vitreous.methods.picking.training import (
    LABELLED_RADIUS,
    Progress,
    TrainingPlan,
    finish,
    particle_prior,
    start,
    train,
)
from vitreous.runtime.checkpoint import save_checkpoint
from vitreous.runtime.progress import Pace, track
from vitreous.runtime.queue import shared_out

log = logging.getLogger(__name__)
_FEWEST_PICKS = 30
_TOLERANCE = 1.0 / 3.0  # of the diameter: how far from a pick a maximum may lie


class TrainPickerParameters(JobParameters):
    """What `train-picker` takes."""

    input: str = parameter(help="STAR file of micrographs", aliases=("i",))
    coordinates: str = parameter(
        help="picks to learn from: an autopick.star, particles.star of good classes, or cryoSPARC's .cs",
        aliases=("coords", "coord_list"),
    )
    diameter: float = parameter(help="diameter of the particle", unit="A", aliases=("particle_diameter",), gt=0)
    particles_per_micrograph: float = parameter(
        0.0, help="particles expected in a micrograph, picked or not (0: half as many again as were picked)", ge=0
    )
    validation: float = parameter(0.25, help="share of the micrographs held out to judge by", gt=0, lt=1)
    epochs: int = parameter(20, help="most epochs", ge=1)
    steps: int = parameter(50, help="batches in an epoch", advanced=True, ge=1)
    patience: int = parameter(5, help="epochs without getting better after which it stops", advanced=True, ge=1)
    objective: str = parameter(
        "nnpu", help="what is minimised: nnpu (non-negative risk) or ge-binomial (topaz's)", advanced=True
    )
    learning_rate: float = parameter(1e-3, help="step of Adam", advanced=True, gt=0)
    invert: bool = parameter(False, help="particles are white in the micrographs")
    exclude_contamination: bool = parameter(
        False, help="blank ice crystals, carbon and dirt first, instead of learning what they look like"
    )


@dataclass(frozen=True)
class _Sets:
    """What is learned from and what is judged by, with the names of the micrographs."""

    training: list[LabelledMicrograph]
    held_out: list[LabelledMicrograph]
    held_out_names: list[str]

    @property
    def n_picks(self) -> int:
        """In both."""
        return sum(len(one.picks) for one in (*self.training, *self.held_out))

    @property
    def n_micrographs(self) -> int:
        """In both."""
        return len(self.training) + len(self.held_out)


class TrainPicker(Job):
    """Epochs of positive-unlabelled learning; the one that is best on held-out micrographs is kept, and calibrated."""

    name = "train-picker"
    folder = "TrainPicker"
    relion_type = "vitreous.trainpicker"
    help = "train a picker on a few hundred picks of this data"
    Parameters = TrainPickerParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write picker.pt (for `autopick --model`), training.star, precision_recall.star and what it goes on from."""
        if params.objective not in OBJECTIVES:
            raise InputError("--objective", f"is {params.objective}", f"Give one of {', '.join(OBJECTIVES)}.")
        scale = PickerScale(params.diameter / PIXELS_PER_DIAMETER, params.diameter)
        sets, failed = _read(params, scale, context)
        plan = _plan(params, sets, context)
        progress = _train(sets, plan, context)
        share = min(1.0, sets.n_picks / sets.n_micrographs / _expected(params, sets))
        network, calibration, curve = finish(progress, sets.held_out, plan, share, context.device)
        best = progress.history[progress.best_epoch]
        record = PickerRecord(
            scale.pixel_size, scale.diameter, LABELLED_RADIUS, not params.invert, params.exclude_contamination,
            calibration.slope, calibration.offset, f"vitreous {__version__}", sets.n_picks, best.area,
        )  # fmt: skip
        target = context.directory / "picker.pt"
        write_picker(target, network.state_dict(), record)
        _write_curves(progress, curve, sets, context.directory)
        picker = TrainedPicker(network, scale, calibration)
        _write_example(sets.held_out[0], picker.on(context.device), plan, context)
        words = f"trained on {sum(len(m.picks) for m in sets.training)} picks in {len(sets.training)} micrographs; on "
        words += f"{len(sets.held_out)} held out: area {best.area:.2f}, recall {best.recall:.2f} at precision "
        words += f"{best.precision:.2f} (particles that nobody picked count as false)"
        metrics: dict[str, float | int | str] = {
            "n_picks": sets.n_picks,
            "n_training_micrographs": len(sets.training),
            "n_held_out_micrographs": len(sets.held_out),
            "n_epochs": len(progress.history),
            "best_epoch": progress.best_epoch + 1,
            "area_under_precision_recall": best.area,
            "precision": best.precision,
            "recall": best.recall,
        }
        return Outputs({context.relative(target): "PickerModel.pt.vitreous"}, metrics, failed, words)


def _read(params: TrainPickerParameters, scale: PickerScale, context: Context) -> tuple[_Sets, list[Quarantined]]:
    """Micrographs that have picks, reduced; which are held out depends on the seed alone."""
    path = context.project / params.input
    dataset = read_micrographs(path, "Give the STAR file of micrographs.")
    names = dataset.rows["micrograph_name"].astype(str).tolist()
    picks = match_names(read_picks(context.project / params.coordinates, context.project), names)
    rows = [index for index, name in enumerate(names) if name in picks and picks[name].n_rows]
    if len(rows) < 2:
        what = f"has picks in {len(rows)} of {len(names)} micrographs; one to learn from and one to judge by are least"
        raise InputError(context.project / params.coordinates, what, "Pick in a few more.")
    results = track(
        shared_out(
            rows, lambda row: _load(dataset, row, picks[names[row]], params, scale, context), threads=context.threads
        ),
        "Reading micrographs",
        len(rows),
    )
    loaded = dict(zip(rows, results, strict=True))
    failed = [one for one in loaded.values() if isinstance(one, Quarantined)]
    for item in failed:
        log.warning("%s left out: %s", item.item, item.reason)
    good = {names[row]: one for row, one in loaded.items() if isinstance(one, LabelledMicrograph) and len(one.picks)}
    n_picks = sum(len(one.picks) for one in good.values())
    if len(good) < 2 or n_picks < _FEWEST_PICKS:
        what = f"has {n_picks} picks in {len(good)} micrographs; {_FEWEST_PICKS} in 2 are least, a few hundred are good"
        raise InputError(context.project / params.coordinates, what, "Pick some more.")
    order = torch.randperm(len(good), generator=context.generator()).tolist()
    n_held = min(max(1, round(params.validation * len(good))), len(good) - 1)
    held = sorted(order[:n_held])
    every = list(good.items())
    training = [every[index][1] for index in sorted(order[n_held:])]
    return _Sets(training, [every[i][1] for i in held], [every[i][0] for i in held]), failed


def _load(
    dataset: Dataset, row: int, picks: Table, params: TrainPickerParameters, scale: PickerScale, context: Context
) -> LabelledMicrograph | Quarantined:
    name = str(dataset.rows["micrograph_name"][row])
    try:
        image, header_pixel = read_image(context.project / name)
        optics = dataset.optics
        known = "micrograph_pixel_size" in optics
        pixel_size = float(dataset.optics_of_rows("micrograph_pixel_size")[row]) if known else header_pixel
        if pixel_size <= 0:
            raise ValueError("its pixel size is known neither from the STAR file nor from its header")
        work = working_micrograph(
            torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)),
            pixel_size,
            scale,
            dark_particles=not params.invert,
            exclude_contamination=params.exclude_contamination,
        )
    except (ValueError, InputError) as error:
        return Quarantined(name, str(error))
    places = work.to_working(np.stack([picks["coordinate_x"], picks["coordinate_y"]], axis=1).astype(np.float64))
    inside = np.all((places >= 0) & (places <= np.array(work.even.image.shape) - 1), axis=1)
    return LabelledMicrograph(work.even.image, ~work.even.contaminated, places[inside])


def _expected(params: TrainPickerParameters, sets: _Sets) -> float:
    """Particles expected in a micrograph."""
    return params.particles_per_micrograph or 1.5 * sets.n_picks / sets.n_micrographs


def _plan(params: TrainPickerParameters, sets: _Sets, context: Context) -> TrainingPlan:
    n_pixels = sum(int(one.clean.sum()) for one in sets.training)
    return TrainingPlan(
        prior=particle_prior(_expected(params, sets) * len(sets.training), n_pixels),
        distance_px=0.8 * PIXELS_PER_DIAMETER,
        tolerance_px=_TOLERANCE * PIXELS_PER_DIAMETER,
        objective=params.objective,
        epochs=params.epochs,
        steps=params.steps,
        patience=params.patience,
        learning_rate=params.learning_rate,
        seed=context.seed,
    )


def _train(sets: _Sets, plan: TrainingPlan, context: Context) -> Progress:
    """All epochs, or those that an earlier run left to do; what it takes to go on is written after each."""
    state = context.directory / "training_state.npz"
    progress = load_progress(state, plan) if context.resume else None
    if progress is not None:
        log.info("going on after epoch %d", len(progress.history))
    progress = progress or start(plan)
    examples = Examples(sets.training, LABELLED_RADIUS)
    pace = Pace(plan.epochs - len(progress.history))
    for reached in train(progress, examples, sets.held_out, plan, context.device):
        progress = reached
        save_progress(state, progress, plan)
        last = progress.history[-1]
        log.info(
            "epoch %d of at most %d: loss %.4f, area %.3f, precision %.2f, recall %.2f; %s",
            len(progress.history), plan.epochs, last.loss, last.area, last.precision, last.recall, pace.step(),
        )  # fmt: skip
        _write_history(progress, context.directory)
        context.iteration_done()
    return progress


def _write_history(progress: Progress, directory: Path) -> None:
    history = progress.history
    columns: dict[str, Any] = {"vitreousEpoch": np.arange(1, len(history) + 1)}
    for name in ("loss", "area", "precision", "recall"):
        columns[f"vitreous{name.capitalize()}"] = np.array([getattr(epoch, name) for epoch in history])
    write_tables(directory / "training.star", {"epochs": Table(columns)})


def _write_curves(progress: Progress, curve: PrecisionRecall, sets: _Sets, directory: Path) -> None:
    _write_history(progress, directory)
    rows = Table({"pick_score": curve.threshold, "vitreousPrecision": curve.precision, "vitreousRecall": curve.recall})
    names = Table({"micrograph_name": sets.held_out_names})
    write_tables(directory / "precision_recall.star", {"curve": rows, "held_out": names})


def _write_example(one: LabelledMicrograph, picker: TrainedPicker, plan: TrainingPlan, context: Context) -> None:
    """A held-out micrograph as the network sees it, with what was picked in it and what it finds: for the picture."""
    places, output = network_maxima(picker.network, one.image, one.clean, plan.distance_px, context.device)
    image = one.image.astype(np.float32)
    found = {"places": places, "scores": picker.calibration(output)}
    save_checkpoint(context.directory / "example.npz", {"image": image, "picks": one.picks, **found})
