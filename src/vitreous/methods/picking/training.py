"""Train the picker's network: epochs of random batches, judged on micrographs that it never learns from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.methods.picking.calibration import Calibration, calibrate
from vitreous.methods.picking.examples import Batch, Examples, LabelledMicrograph
from vitreous.methods.picking.network import PickerNetwork
from vitreous.methods.picking.positive_unlabelled import OBJECTIVES
from vitreous.methods.picking.precision_recall import PrecisionRecall, hits, precision_recall
from vitreous.methods.picking.trained import network_maxima

LABELLED_RADIUS = 2.0  # working pixels around a pick, a seventh of the diameter
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingPlan:
    """How to train. prior: share of pixels within the labelled radius of a particle; distance_px, tolerance_px: see
    `validate`; patience: epochs without a better area under the precision-recall curve until it stops.
    """

    prior: float
    distance_px: float
    tolerance_px: float
    objective: str = "ge-binomial"
    epochs: int = 20
    steps: int = 50
    patience: int = 5
    n_positive: int = 48
    n_unlabelled: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    seed: int = 1


@dataclass(frozen=True)
class Epoch:
    """How an epoch ended: its mean loss, and on the held-out micrographs the area and the best precision, recall."""

    loss: float
    area: float
    precision: float
    recall: float


@dataclass
class Progress:
    """All there is to go on from. weights and moments (Adam's) are the last epoch's, best those of the best one."""

    weights: Weights
    moments: Weights = field(default_factory=dict)
    best: Weights = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """Index of the epoch with the greatest area."""
        return int(np.argmax([epoch.area for epoch in self.history])) if self.history else -1

    def is_done(self, plan: TrainingPlan) -> bool:
        """All epochs are done, or none of the last few was better."""
        n = len(self.history)
        return n >= plan.epochs or (n > 0 and n - 1 - self.best_epoch >= plan.patience)


def particle_prior(n_particles: float, n_pixels: int) -> float:
    """Share of pixels that lie within the labelled radius of a particle; at most one half."""
    axis = np.arange(-3, 4)
    disc = int((np.hypot(*np.meshgrid(axis, axis)) <= LABELLED_RADIUS).sum())
    return float(min(0.5, n_particles * disc / max(n_pixels, 1)))


def start(plan: TrainingPlan) -> Progress:
    """Random weights: the same for the same seed."""
    network = PickerNetwork(torch.Generator().manual_seed(plan.seed), plan.prior)
    return Progress({name: value.clone() for name, value in network.state_dict().items()})


def train(
    progress: Progress,
    examples: Examples,
    held_out: list[LabelledMicrograph],
    plan: TrainingPlan,
    device: torch.device,
    step_done: Callable[[], object] = lambda: None,
) -> Iterator[Progress]:
    """Epoch after epoch, yielding what there is to go on from, until it is done. step_done: called after each step.

    What an epoch draws depends on seed and epoch alone: a run that was stopped goes on with the same bits.
    """
    network = PickerNetwork().to(device)
    network.load_state_dict(progress.weights)
    optimiser = torch.optim.Adam(network.parameters(), plan.learning_rate, weight_decay=plan.weight_decay)
    _restore(optimiser, progress.moments)
    while not progress.is_done(plan):
        epoch = len(progress.history)
        generator = torch.Generator().manual_seed(1_000_003 * plan.seed + epoch)
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            losses = []
            for _ in range(plan.steps):
                batch = examples.batch(plan.n_positive, plan.n_unlabelled, generator)
                losses.append(_step(network, optimiser, batch, plan, device))
                step_done()
            curve = validate(network, held_out, plan, device)[0]
        progress = _after(progress, network, optimiser, float(np.mean(losses)), curve)
        yield progress


def _step(
    network: PickerNetwork, optimiser: torch.optim.Optimizer, batch: Batch, plan: TrainingPlan, device: torch.device
) -> float:
    positive = network(batch.positive.to(device)).flatten(1)[batch.labelled.to(device)]
    outputs = network(batch.unlabelled.to(device)).flatten(1).gather(1, batch.drawn.to(device))
    unlabelled = outputs[batch.usable.to(device)]
    if not len(positive) or not len(unlabelled):
        return float("nan")
    loss = OBJECTIVES[plan.objective](positive, unlabelled, plan.prior)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return float(loss.detach())


def _after(
    progress: Progress,
    network: PickerNetwork,
    optimiser: torch.optim.Optimizer,
    loss: float,
    curve: PrecisionRecall,
) -> Progress:
    weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    at = curve.best() if len(curve.recall) else -1
    precision, recall = (float(curve.precision[at]), float(curve.recall[at])) if at >= 0 else (0.0, 0.0)
    history = [*progress.history, Epoch(loss, curve.area, precision, recall)]
    better = all(curve.area > epoch.area for epoch in progress.history)
    best = copy.deepcopy(weights) if better else progress.best
    return replace(progress, weights=weights, moments=_moments(optimiser), best=best, history=history)


def _moments(optimiser: torch.optim.Optimizer) -> Weights:
    return {
        f"{index}/{name}": value.detach().cpu().clone()
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def _restore(optimiser: torch.optim.Optimizer, moments: Weights) -> None:
    if not moments:
        return
    state: dict[int, Weights] = {}
    for key, value in moments.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def validate(
    network: PickerNetwork, held_out: list[LabelledMicrograph], plan: TrainingPlan, device: torch.device
) -> tuple[PrecisionRecall, Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Precision and recall of the picks on micrographs by the maxima of the network's output.

    Maxima are plan.distance_px apart, one within plan.tolerance_px of a pick is right. Returns the curve, and output
    and rightness (0, 1) of all maxima.
    """
    outputs, right = [], []
    for one in held_out:
        positions, strengths = network_maxima(network, one.image, one.clean, plan.distance_px, device)
        outputs.append(strengths)
        right.append(hits(positions, one.picks, plan.tolerance_px))
    output, is_hit = np.concatenate(outputs), np.concatenate(right)
    return precision_recall(output, is_hit, sum(len(one.picks) for one in held_out)), output, is_hit


def finish(
    progress: Progress,
    held_out: list[LabelledMicrograph],
    plan: TrainingPlan,
    share_picked: float,
    device: torch.device,
) -> tuple[PickerNetwork, Calibration, PrecisionRecall]:
    """The best epoch's network, its calibration on the held-out micrographs, and its curve there (in log-odds)."""
    network = PickerNetwork().to(device)
    network.load_state_dict(progress.best)
    curve, output, is_hit = validate(network, held_out, plan, device)
    calibration = calibrate(output, is_hit.astype(bool), share_picked)
    return network, calibration, replace(curve, threshold=calibration(curve.threshold))
