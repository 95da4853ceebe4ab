"""What refinement is given of the particles, and what it finds out about each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.ctf import CtfTreatment, Defocus, Microscope, phase_aberration
from vitreous.data.images import ImageSource
from vitreous.methods.refinement.coefficients import Coefficients


@dataclass(frozen=True)
class ParticleSet:
    """Images with the optics they were taken through.

    optics_group: (n,) index into microscopes, from 0. defocus: (n,). apply_ctf False: the CTF is taken to be one.
    limits: highest frequency (1/A) that each group's images hold, where that is less than the grid does.
    scale_groups: (n,) which group of particles (micrograph) each belongs to, from 0; scale: intensity of each such
    group, a factor of its CTF (None: all one, and not estimated). b_factor (A^2), ctf_scale: (n,) each particle's CTF
    is multiplied by ctf_scale exp(-b_factor k^2 / 4). premultiplied: whose images were multiplied by their CTF, by
    optics group.
    """

    images: ImageSource
    optics_group: NDArray[np.int64]
    microscopes: tuple[Microscope, ...]
    defocus: Defocus
    apply_ctf: bool = True
    limits: tuple[float, ...] = ()
    scale_groups: NDArray[np.int64] | None = None
    scale: NDArray[np.float64] | None = None
    treatment: CtfTreatment = field(default_factory=CtfTreatment)
    b_factor: Float[Tensor, "n"] | None = None
    ctf_scale: Float[Tensor, "n"] | None = None
    premultiplied: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.optics_group)

    @property
    def box(self) -> int:
        """Side of the images in pixels."""
        return self.images.box

    @property
    def pixel_size(self) -> float:
        """Pixel size in A."""
        return self.images.pixel_size

    @property
    def n_groups(self) -> int:
        """Number of optics groups."""
        return len(self.microscopes)

    @property
    def common_shell(self) -> int:
        """Highest shell that the images of all groups hold."""
        lowest = min(self.limits, default=math.inf) * self.box * self.pixel_size
        return int(min(self.box // 2, lowest))

    def ctf(self, indices: NDArray[np.int64], coefficients: Coefficients) -> Float[Tensor, "n m"]:
        """CTF of the particles at the packed coefficients, times their group's scale, float32; 0 where nothing is."""
        return self.transfer(indices, coefficients) * self._presence(indices, coefficients)

    def data_weight(
        self, indices: NDArray[np.int64], coefficients: Coefficients, ctf: Float[Tensor, "n m"]
    ) -> Float[Tensor, "n m"]:
        """What an image's coefficients are multiplied by in sums: their CTF, unless they already are."""
        done = self.is_premultiplied(indices)
        if not bool(done.any()):
            return ctf
        return torch.where(done[:, None], self._presence(indices, coefficients).to(ctf), ctf)

    def is_premultiplied(self, indices: NDArray[np.int64]) -> Bool[Tensor, "n"]:
        """Whose images were multiplied by their CTF."""
        flags = np.array(self.premultiplied or (False,) * self.n_groups, dtype=bool)
        return torch.from_numpy(flags[self.optics_group[indices]] & self.apply_ctf)

    def _presence(self, indices: NDArray[np.int64], coefficients: Coefficients) -> Float[Tensor, "n m_or_1"]:
        """How strongly a group's particles show at each coefficient, the CTF apart: its scale; 0 beyond its images."""
        present = torch.ones(len(indices), 1)
        if self.scale is not None and self.scale_groups is not None:
            present = torch.from_numpy(self.scale[self.scale_groups[indices]]).to(torch.float32)[:, None]
        if self.limits:
            k = coefficients.coordinates / (self.box * self.pixel_size)
            highest = torch.tensor(self.limits, dtype=torch.float64)[torch.from_numpy(self.optics_group[indices])]
            present = present * (k.norm(dim=1) < highest[:, None])
        return present

    def first_scale(self) -> NDArray[np.float64]:
        """A scale of one for each group of particles."""
        groups = self.scale_groups if self.scale_groups is not None else np.zeros(1, np.int64)
        return np.ones(int(groups.max(initial=0)) + 1)

    def with_scale(self, scale: NDArray[np.float64]) -> ParticleSet:
        """The same particles with these scales of their groups (an empty array: as they are)."""
        if not len(scale):
            return self
        groups = self.scale_groups if self.scale_groups is not None else np.zeros(len(self), np.int64)
        return replace(self, scale=scale, scale_groups=groups)

    def transfer(self, indices: NDArray[np.int64], coefficients: Coefficients) -> Float[Tensor, "n m"]:
        """The CTF alone, as it is treated, with the particles' own envelopes."""
        if not self.apply_ctf:
            return torch.ones(len(indices), len(coefficients))
        k = coefficients.coordinates / (self.box * self.pixel_size)
        k_squared, angle = k.square().sum(-1), torch.atan2(k[:, 0], k[:, 1])
        values = torch.empty(len(indices), len(k), dtype=torch.float32)
        groups = self.optics_group[indices]
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            defocus = self.defocus[torch.from_numpy(np.asarray(indices)[members])]
            exact = Defocus(*(getattr(defocus, f.name).to(torch.float64) for f in fields(defocus)))
            phase = phase_aberration(k_squared, angle, self.microscopes[group], exact)
            values[torch.from_numpy(members)] = self.treatment.values(phase).to(torch.float32)
        chosen = torch.from_numpy(np.asarray(indices))
        if self.b_factor is not None:
            values = values * torch.exp(-0.25 * self.b_factor[chosen, None] * k_squared).to(torch.float32)
        if self.ctf_scale is not None:
            values = values * self.ctf_scale[chosen, None].to(torch.float32)
        return values


@dataclass(frozen=True)
class Poses:
    """The state of each particle, one entry each.

    rotations: (n, 3, 3), volume axes to image axes; origins: (n, 2) shift (y, x) in pixels that brings the particle
    to the centre; classes from 0; norm: norm correction.
    """

    classes: NDArray[np.int64]
    rotations: NDArray[np.float64]
    origins: NDArray[np.float64]
    norm: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    max_probability: NDArray[np.float64]
    n_significant: NDArray[np.int64]

    @staticmethod
    def unknown(n: int) -> Poses:
        """n particles at the identity, centred, in class 0."""
        return Poses(
            np.zeros(n, np.int64),
            np.tile(np.eye(3), (n, 1, 1)),
            np.zeros((n, 2)),
            np.ones(n),
            np.zeros(n),
            np.zeros(n),
            np.zeros(n, np.int64),
        )

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, indices: NDArray[np.int64]) -> Poses:
        """The poses of some particles."""
        return Poses(**{f.name: getattr(self, f.name)[indices] for f in fields(self)})

    def put(self, indices: NDArray[np.int64], other: Poses) -> Poses:
        """A copy in which `other` stands at indices."""
        new = {f.name: getattr(self, f.name).copy() for f in fields(self)}
        for name, values in new.items():
            values[indices] = getattr(other, name)
        return replace(self, **new)
