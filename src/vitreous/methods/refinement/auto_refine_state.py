"""What auto-refine is asked to do and what it knows after each iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fsc import fsc
from vitreous.core.symmetry import order_of
from vitreous.methods.refinement.orientation_priors import OrientationPriors
from vitreous.methods.refinement.particles import Poses
from vitreous.methods.refinement.preprocess import NoiseModel
from vitreous.methods.refinement.regularise import Regulariser, classic
from vitreous.runtime.phases import Phases
from vitreous.runtime.ranks import ALONE, Ranks

Halves = tuple["HalfModel", "HalfModel"]


@dataclass(frozen=True)
class AutoRefineOptions:
    """Options of auto-refine; defaults are RELION's.

    diameter (A) of the spherical mask; ini_high: low-pass of the first reference (A); healpix_order: of the first,
    coarse grid (None: 2, or 3 for T, O and I); offset_range and offset_step: of the first coarse grid (pixels);
    local_order: order from which searches are local; join_halves: halves share what is coarser than this (A);
    mask: replaces the sphere around the references; absolute_grey: the reference's grey values are those of the
    data; first_samples: most coarse samples a particle keeps in the first iteration where they are not (a reference of
    guessed grey values says little about how sure a pose is; RELION then keeps one, by cross-correlation);
    sigma_ang: search locally from the start, about the poses given, with this standard deviation (degrees; 0: no);
    relaxed_symmetry: local searches look at the mates in this group as well; strict_highres: finest detail (A) that
    is compared (0: no limit); zero_mask: see preprocess.prepare; half_map_fsc: correlation of two unregularised
    half-maps by shell (e.g. one corrected for a mask); regularise: makes the references from the sums.
    """

    symmetry: str
    diameter: float
    ini_high: float = 60.0
    healpix_order: int | None = None
    oversampling: int = 1
    offset_range: float = 5.0
    offset_step: float = 2.0
    local_order: int = 4
    join_halves: float = 40.0
    tau2_fudge: float = 1.0
    padding: int = 2
    perturb: float = 0.5
    adaptive_fraction: float = 0.999
    max_significant: int = 2**62
    strict_highres: float = 0.0
    zero_mask: bool = True
    sigma_ang: float = 0.0
    relaxed_symmetry: str = "C1"
    priors: OrientationPriors = field(default_factory=OrientationPriors)
    incr_size: int = 10
    gridding_iterations: int = 0
    norm_correction: bool = True
    scale_correction: bool = False
    absolute_grey: bool = False
    first_samples: int = 100
    pool: int = 512
    low_precision: bool = True
    mask: Float[Tensor, "box box box"] | None = None
    half_map_fsc: Callable[[Tensor, Tensor], Tensor] = fsc
    regularise: Regulariser = classic
    max_iterations: int = 50
    memory: int = 1 << 30
    seed: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ranks: Ranks = ALONE
    phases: Phases = field(default_factory=Phases)

    @property
    def first_order(self) -> int:
        """HEALPix order of the first grid."""
        if self.healpix_order is not None:
            return self.healpix_order
        return 3 if self.symmetry[0] in "TOI" and order_of(self.symmetry) >= 12 else 2


@dataclass(frozen=True)
class HalfModel:
    """One half's model.

    density: the reference that the next iteration compares with; noise; sigma_offset (pixels); tau2, sigma2: prior
    and error variance of the map's coefficients by shell; directions: posterior number of particles by HEALPix
    pixel of the iteration's order (empty before the first); scale: intensity of each group of particles (empty: not
    estimated).
    """

    density: Float[Tensor, "box box box"]
    noise: NoiseModel
    sigma_offset: float
    tau2: Float[Tensor, "shells"]
    sigma2: Float[Tensor, "shells"]
    directions: Float[Tensor, "pixels"]
    scale: Float[Tensor, "scale_groups"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))


@dataclass(frozen=True)
class Schedule:
    """Where auto-refine stands on its way to finer sampling.

    order, offset_range, offset_step (pixels): of the coarse grid now; no_gain, no_change: iterations without better
    resolution, without smaller changes of the poses; smallest changes since the grid was made finer; best_shell: the
    best resolution so far, entry_shell: what it was when this grid began; fine_enough: finer angles would be beyond
    the data's accuracy; final: this is the last iteration.
    """

    order: int
    offset_range: float
    offset_step: float
    no_gain: int = 0
    no_change: int = 0
    smallest_rotation: float = 999.0
    smallest_offset: float = 999.0
    best_shell: int = 0
    entry_shell: int = 0
    fine_enough: bool = False
    final: bool = False


@dataclass(frozen=True)
class AutoRefineState:
    """All that the next iteration needs, and what the files tell.

    curve: gold-standard FSC; max_shell: highest shell compared; shell: resolution (FSC 0.143); changes: mean angle
    (degrees) and rms offset (pixels) by which poses moved; accuracy: of angles (degrees) and offsets (pixels);
    half_maps: unregularised; density: both halves together (final iteration alone; empty before); tau2, sigma2 of it.
    """

    iteration: int
    poses: Poses
    half_sets: NDArray[np.int64]
    halves: Halves
    schedule: Schedule
    curve: Float[Tensor, "shells"]
    max_shell: int
    shell: int
    rotation_change: float
    offset_change: float
    rotation_accuracy: float
    offset_accuracy: float
    log_likelihood: float
    high_fsc_at_limit: bool
    half_maps: Float[Tensor, "halves box box box"]
    density: Float[Tensor, "box box box"]

    @property
    def average_max_probability(self) -> float:
        """Mean over particles of the largest posterior weight."""
        return float(self.poses.max_probability.mean())


def state_to_arrays(state: AutoRefineState) -> dict[str, NDArray[np.generic]]:
    """A state as plain arrays, exact to the bit: what a checkpoint holds."""
    arrays: dict[str, NDArray[np.generic]] = {"half_sets": state.half_sets, "curve": state.curve.numpy()}
    arrays |= {f"pose_{f.name}": getattr(state.poses, f.name) for f in fields(Poses)}
    arrays |= {f"schedule_{f.name}": np.asarray(getattr(state.schedule, f.name)) for f in fields(Schedule)}
    arrays |= {name: np.asarray(getattr(state, name)) for name in _SCALARS}
    for number, half in enumerate(state.halves, 1):
        arrays |= {f"half{number}_{name}": getattr(half, name).numpy() for name in _HALF_TENSORS}
        arrays[f"half{number}_noise"] = half.noise.sigma2.numpy()
        arrays[f"half{number}_sigma_offset"] = np.asarray(half.sigma_offset)
    arrays["half_maps"], arrays["density"] = state.half_maps.numpy(), state.density.numpy()
    return arrays


def state_from_arrays(arrays: dict[str, NDArray[np.generic]]) -> AutoRefineState:
    """Undo `state_to_arrays`. Raises KeyError where something is missing."""

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(arrays[name]))

    halves = [
        HalfModel(
            noise=NoiseModel(tensor(f"half{h}_noise")),
            sigma_offset=float(arrays[f"half{h}_sigma_offset"]),
            **{name: tensor(f"half{h}_{name}") for name in _HALF_TENSORS},
        )
        for h in (1, 2)
    ]
    return AutoRefineState(
        poses=Poses(**{f.name: np.array(arrays[f"pose_{f.name}"]) for f in fields(Poses)}),
        half_sets=np.array(arrays["half_sets"], dtype=np.int64),
        halves=(halves[0], halves[1]),
        schedule=Schedule(**{f.name: arrays[f"schedule_{f.name}"].item() for f in fields(Schedule)}),
        curve=tensor("curve"),
        half_maps=tensor("half_maps"),
        density=tensor("density"),
        **{name: arrays[name].item() for name in _SCALARS},
    )


_HALF_TENSORS = ("density", "tau2", "sigma2", "directions", "scale")
_SCALARS = (
    "iteration",
    "max_shell",
    "shell",
    "rotation_change",
    "offset_change",
    "rotation_accuracy",
    "offset_accuracy",
    "log_likelihood",
    "high_fsc_at_limit",
)


def split_halves(n: int, seed: int) -> NDArray[np.int64]:
    """Half 1 or 2 for each of n particles, at random, as equal as can be."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return np.where(order < (n + 1) // 2, 1, 2).astype(np.int64)


def renew_half(half: HalfModel, **changes: object) -> HalfModel:
    """A half's model with some fields replaced."""
    return replace(half, **changes)  # type: ignore[arg-type]
