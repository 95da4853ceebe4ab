"""Which Fourier coefficients of an image are compared, packed in one vector.

The independent coefficients of a real image (half a plane, no coefficient twice) within a shell, ordered by
shell: so the coefficients of a lower resolution are the first ones of a higher, and each shell is a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from vitreous.core.fourier import frequency_grid, shell_indices


@dataclass(frozen=True)
class Coefficients:
    """The packed list for images of `box` pixels, shells 0 .. max_shell.

    flat: index of each into a flattened rfft; coordinates: (ky, kx) in Fourier pixels; shells: its shell, rising;
    shell_starts: (max_shell + 2,) first coefficient of each shell, and the end.
    """

    box: int
    max_shell: int
    flat: Int[Tensor, "m"]
    coordinates: Float[Tensor, "m 2"]
    shells: Int[Tensor, "m"]
    shell_starts: Int[Tensor, "n_shells_and_1"]

    @staticmethod
    def within(box: int, max_shell: int) -> Coefficients:
        """All independent coefficients up to max_shell (cut at Nyquist, whose own lines are their own conjugates)."""
        return _within(box, max(1, min(max_shell, box // 2)))

    def __len__(self) -> int:
        return int(self.flat.numel())

    def count(self, max_shell: int) -> int:
        """How many coefficients lie in shells 0 .. max_shell."""
        return int(self.shell_starts[min(max_shell, self.max_shell) + 1])

    def gather(self, images_ft: Complex[Tensor, "*batch box half"]) -> Complex[Tensor, "*batch m"]:
        """Pack transforms in rfft layout."""
        return images_ft.flatten(-2)[..., self.flat.to(images_ft.device)]

    def scatter(self, packed: Complex[Tensor, "*batch m"]) -> Complex[Tensor, "*batch box half"]:
        """Unpack into rfft layout: the rest zero, the conjugates in column kx = 0 filled in."""
        half = self.box // 2 + 1
        out = packed.new_zeros(*packed.shape[:-1], self.box * half)
        out[..., self.flat.to(packed.device)] = packed
        images_ft = out.reshape(*packed.shape[:-1], self.box, half)
        positive = images_ft[..., 1 : (self.box + 1) // 2, 0]
        images_ft[..., self.box - positive.shape[-1] :, 0] = positive.flip(-1).conj()
        return images_ft

    def shell_sums(self, values: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n_shells"]:
        """Sum a packed real quantity over each shell, in float64."""
        total = torch.zeros(*values.shape[:-1], self.max_shell + 1, dtype=torch.float64, device=values.device)
        return total.index_add_(-1, self.shells.to(values.device), values.to(torch.float64))

    def shell_counts(self) -> Int[Tensor, "n_shells"]:
        """Number of coefficients in each shell."""
        return self.shell_starts.diff()

    def spread(self, curve: Float[Tensor, "*batch n_shells"]) -> Float[Tensor, "*batch m"]:
        """A shell curve (at least max_shell + 1 long) at each coefficient."""
        return curve[..., self.shells.to(curve.device)]

    def shift_phases(self, shifts: Float[Tensor, "*batch 2"]) -> Complex[Tensor, "*batch m"]:
        """Phases that move image content by shifts (y, x) in pixels; complex64, full turns taken off in float64."""
        where = self.coordinates.to(shifts.device)
        turns = -(shifts.to(torch.float64) @ where.T) / self.box
        angle = (2.0 * torch.pi * (turns - turns.round())).to(torch.float32)
        return torch.complex(torch.cos(angle), torch.sin(angle))


@lru_cache(maxsize=64)
def _within(box: int, max_shell: int) -> Coefficients:
    ky, kx = (k * box for k in frequency_grid((box, box)))
    shells = shell_indices(box)
    ky, kx = ky.expand_as(shells).round(), kx.expand_as(shells).round()
    nyquist = box / 2
    keep = (shells <= max_shell) & ~((kx == 0) & (ky < 0)) & (ky.abs() < nyquist) & (kx < nyquist)
    flat = torch.nonzero(keep.flatten()).flatten()
    order = torch.argsort(shells.flatten()[flat], stable=True)
    flat = flat[order]
    sorted_shells = shells.flatten()[flat]
    coordinates = torch.stack([ky.flatten()[flat], kx.flatten()[flat]], -1)
    starts = torch.searchsorted(sorted_shells, torch.arange(max_shell + 2))
    return Coefficients(box, max_shell, flat, coordinates, sorted_shells, starts)
