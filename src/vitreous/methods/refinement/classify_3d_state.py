"""What 3D classification is asked to do and what it knows after each iteration."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.methods.refinement.particles import Poses
from vitreous.methods.refinement.preprocess import NoiseModel
from vitreous.runtime.phases import Phases
from vitreous.runtime.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Options3D:
    """Options of 3D classification; defaults are those of RELION's interface.

    diameter (A) of the image mask, and of the references' where there is no `mask`; ini_high: low-pass of the first
    references (A); healpix_order, offset_range and offset_step (pixels): of the coarse grid, before oversampling;
    align False: classes are compared at the poses given; sigma_angle: searches are local, about each particle's last
    pose, with a Gaussian prior of this width (degrees; 0: global); first_by_correlation: the first iteration takes
    each particle's best correlation; absolute_grey: the references' grey values are those of the data (else they are
    fitted); first_samples: most coarse samples a particle keeps in the first iteration where they are not;
    strict_highres: nothing finer is compared (A; 0: no limit); uniform_classes: large classes do not attract more.
    """

    n_classes: int
    diameter: float
    symmetry: str = "C1"
    iterations: int = 25
    tau2_fudge: float = 4.0
    ini_high: float = 60.0
    align: bool = True
    healpix_order: int = 2
    oversampling: int = 1
    offset_range: float = 5.0
    offset_step: float = 2.0
    sigma_angle: float = 0.0
    perturb: float = 0.5
    first_by_correlation: bool = False
    absolute_grey: bool = False
    first_samples: int = 100
    strict_highres: float = 0.0
    max_significant: int = 2**62
    zero_mask: bool = True
    pool: int = 512
    uniform_classes: bool = False
    adaptive_fraction: float = 0.999
    incr_size: int = 10
    padding: int = 2
    gridding_iterations: int = 0
    norm_correction: bool = True
    low_precision: bool = True
    mask: Float[Tensor, "box box box"] | None = None
    memory: int = 1 << 30
    seed: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ranks: Ranks = ALONE
    phases: Phases = field(default_factory=Phases)


@dataclass(frozen=True)
class Changes:
    """How much an iteration changed: share of particles in another class, mean angle (degrees), rms offset (pixels)."""

    classes: float
    rotations: float
    offsets: float


@dataclass(frozen=True)
class Classification3D:
    """All that the next iteration needs, and what the files tell.

    densities: (k, box, box, box), the references the next iteration compares with; sigma_offset in pixels;
    distribution: share of each class; directions: (k, pixels) posterior number of particles by HEALPix pixel of the
    grid (k, 0 before the first iteration and where searches are not global); data_vs_prior, tau2, sigma2: by class
    and shell; max_shell: highest shell summed; shell: resolution of the best class; alike: the references are copies
    of one, so the next iteration draws each particle's class.
    """

    iteration: int
    poses: Poses
    densities: Float[Tensor, "k box box box"]
    noise: NoiseModel
    sigma_offset: float
    distribution: Float[Tensor, "k"]
    directions: Float[Tensor, "k pixels"]
    data_vs_prior: Float[Tensor, "k shells"]
    tau2: Float[Tensor, "k shells"]
    sigma2: Float[Tensor, "k shells"]
    max_shell: int
    shell: int
    alike: bool
    changes: Changes
    log_likelihood: float = 0.0

    @property
    def average_max_probability(self) -> float:
        """Mean over particles of the largest posterior weight."""
        return float(self.poses.max_probability.mean())


_TENSORS = ("densities", "distribution", "directions", "data_vs_prior", "tau2", "sigma2")
_SCALARS = ("iteration", "sigma_offset", "max_shell", "shell", "alike", "log_likelihood")


def state_to_arrays(state: Classification3D) -> dict[str, NDArray[np.generic]]:
    """A state as plain arrays, exact to the bit: what a checkpoint holds."""
    arrays: dict[str, NDArray[np.generic]] = {"noise": state.noise.sigma2.numpy()}
    arrays |= {f"pose_{f.name}": getattr(state.poses, f.name) for f in fields(Poses)}
    arrays |= {f"changes_{f.name}": np.asarray(getattr(state.changes, f.name)) for f in fields(Changes)}
    arrays |= {name: getattr(state, name).numpy() for name in _TENSORS}
    arrays |= {name: np.asarray(getattr(state, name)) for name in _SCALARS}
    return arrays


def state_from_arrays(arrays: dict[str, NDArray[np.generic]]) -> Classification3D:
    """Undo `state_to_arrays`. Raises KeyError where something is missing."""
    rest: dict[str, Any] = {name: torch.from_numpy(np.array(arrays[name])) for name in _TENSORS}
    rest |= {name: arrays[name].item() for name in _SCALARS}
    return Classification3D(
        poses=Poses(**{f.name: np.array(arrays[f"pose_{f.name}"]) for f in fields(Poses)}),
        noise=NoiseModel(torch.from_numpy(np.array(arrays["noise"]))),
        changes=Changes(**{f.name: float(arrays[f"changes_{f.name}"]) for f in fields(Changes)}),
        **rest,
    )
