"""Images of several optics groups on one grid: each group's own pixel, box, magnification and odd aberrations undone.

The transform of an image is a sum over its pixels that can be had at any frequency, so each image is evaluated at the
frequencies of the common grid itself: no interpolation, no rounding of boxes. The field of view is cut, or continued
with the level of the image's border; frequencies that a group did not record are zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.aberrations import beam_tilt_phase, odd_phase
from vitreous.core.ctf import Microscope
from vitreous.core.fourier import frequency_grid, radius_grid, to_real
from vitreous.data.images import ImageSource

_SAME = 1e-4  # relative: pixel sizes that only rounding tells apart are one
_BATCH = 64  # images brought over at a time


@dataclass(frozen=True)
class Grid:
    """A square box of `box` pixels of `pixel_size` A."""

    box: int
    pixel_size: float

    @property
    def extent(self) -> float:
        """Side in A."""
        return self.box * self.pixel_size

    def is_same(self, other: Grid) -> bool:
        """Whether two grids are one but for rounding."""
        return self.box == other.box and abs(self.pixel_size / other.pixel_size - 1.0) < _SAME


@dataclass(frozen=True)
class Distortion:
    """What a group's optics did to its images besides the CTF.

    magnification: RELION's matrix in (x, y): an image's frequency k shows the specimen at `magnification` k;
    beam_tilt: (x, y) in mrad; odd_zernike: coefficients in RELION's order.
    """

    magnification: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    beam_tilt: tuple[float, float] = (0.0, 0.0)
    odd_zernike: tuple[float, ...] = ()

    @property
    def turns_phases(self) -> bool:
        """Whether there are odd aberrations."""
        return any(self.beam_tilt) or any(self.odd_zernike)

    @property
    def is_none(self) -> bool:
        """Whether images are as they should be."""
        return not self.turns_phases and self.magnification == Distortion.magnification

    def phase(self, microscope: Microscope, ky: Tensor, kx: Tensor) -> Float[Tensor, "*grid"]:
        """Phase in radians that the odd aberrations gave the transform at (ky, kx) in 1/A."""
        tilt = beam_tilt_phase(self.beam_tilt, microscope.cs, microscope.wavelength, ky, kx)
        return tilt + odd_phase(self.odd_zernike, ky, kx)


@dataclass(frozen=True)
class GroupImages:
    """One optics group's images. members: which particles of the set they are, in the source's order."""

    images: ImageSource
    members: Int[np.ndarray, "n"]
    microscope: Microscope
    distortion: Distortion = field(default_factory=Distortion)

    @property
    def grid(self) -> Grid:
        """The grid that the images were recorded on."""
        return Grid(self.images.box, self.images.pixel_size)


def highest_frequency(recorded: Grid, common: Grid) -> float:
    """Highest frequency (1/A) of whole shells of the common grid that the recorded one holds; inf if it is the same."""
    if recorded.is_same(common):
        return math.inf
    shell = min(common.box // 2, math.floor(common.extent / (2.0 * recorded.pixel_size) - 0.5))
    return (shell + 0.5) / common.extent


def choose_grid(grids: Sequence[Grid], like: Grid | None = None) -> Grid:
    """The grid to work on: the one that a reference has, else the finest (of these the largest)."""
    if like is not None:
        for grid in grids:
            if grid.is_same(like):
                return grid
    return min(grids, key=lambda grid: (grid.pixel_size, -grid.box))


class CommonGrid:
    """Images of several groups on one grid (an ImageSource)."""

    def __init__(self, groups: Sequence[GroupImages], grid: Grid) -> None:
        self._grid = grid
        self._groups = [BroughtOver(group, grid) for group in groups]
        n = sum(len(group.members) for group in groups)
        self._group_of = np.empty(n, dtype=np.int64)
        self._place = np.empty(n, dtype=np.int64)
        for number, group in enumerate(groups):
            self._group_of[group.members] = number
            self._place[group.members] = np.arange(len(group.members))

    @property
    def box(self) -> int:
        """Side of the square images in pixels."""
        return self._grid.box

    @property
    def pixel_size(self) -> float:
        """Pixel size in A."""
        return self._grid.pixel_size

    def limit_of(self, particle: int) -> float:
        """Highest frequency (1/A) that a particle's image holds; inf where that is all the grid does."""
        return highest_frequency(self._groups[self._group_of[particle]].recorded, self._grid)

    def __len__(self) -> int:
        return len(self._group_of)

    def __getitem__(self, indices: Int[np.ndarray, "n"]) -> Float[Tensor, "n box box"]:
        wanted = np.asarray(indices, dtype=np.int64)
        groups = self._group_of[wanted]
        out = torch.empty(len(wanted), self.box, self.box)
        for number in np.unique(groups):
            chosen = np.flatnonzero(groups == number)
            for start in range(0, len(chosen), _BATCH):
                part = chosen[start : start + _BATCH]
                out[torch.from_numpy(part)] = self._groups[number].images(self._place[wanted[part]])
        return out


class BroughtOver:
    """One group's images on the common grid.

    Grey values: images are normalised to unit noise in their own pixels, so a value is carried over times the ratio of
    the pixel sizes, which leaves the noise with the power it would have had in the common grid's pixels.
    """

    def __init__(self, group: GroupImages, grid: Grid) -> None:
        self._group = group
        self._grid = grid
        self._as_they_are = group.grid.is_same(grid) and group.distortion.is_none

    @property
    def recorded(self) -> Grid:
        """The grid that the images were recorded on."""
        return self._group.grid

    def images(self, places: NDArray[np.int64]) -> Float[Tensor, "n box box"]:
        """Images of the group's source, float32."""
        images = self._group.images[places]
        if self._as_they_are:
            return images
        gain = self._group.grid.pixel_size / self._grid.pixel_size
        level = _border_level(images)
        images_ft = self._transform(images - level) * (gain * self._correction)
        return to_real(images_ft, (self._grid.box, self._grid.box)) + level / gain

    def _transform(self, images: Float[Tensor, "n own own"]) -> Complex[Tensor, "n box half"]:
        """The images' transforms at the common grid's frequencies, whatever their own grid."""
        shears = self._geometry
        images = _shear(images, shears.rows_by_columns, 1)
        images = _shear(images, shears.columns_by_rows, 2)
        along_y, cosines, sines = self._waves
        return torch.matmul(along_y, torch.complex(images @ cosines, images @ sines))

    @cached_property
    def _geometry(self) -> _Shears:
        return _shears(self._group.distortion.magnification)

    @cached_property
    def _waves(self) -> tuple[Complex[Tensor, "box own"], Float[Tensor, "own half"], Float[Tensor, "own half"]]:
        """exp(-2 pi i k r) for the common grid's ky, and its two parts for kx, at the group's pixels; 0 outside."""
        ky, kx = frequency_grid((self._grid.box,) * 2, self._grid.pixel_size)
        own = self._group.grid
        position = (torch.arange(own.box, dtype=torch.float64) - own.box // 2) * own.pixel_size
        y, x = position * self._geometry.scale_y, position * self._geometry.scale_x
        along_x = _waves(kx, x, self._grid.extent).T
        return _waves(ky.flatten(), y, self._grid.extent), along_x.real.contiguous(), along_x.imag.contiguous()

    @cached_property
    def _correction(self) -> Complex[Tensor, "box half"]:
        """Odd aberrations taken off; zero beyond what the group holds."""
        shape = (self._grid.box,) * 2
        ky, kx = frequency_grid(shape, self._grid.pixel_size)
        inside = radius_grid(shape, self._grid.pixel_size) < highest_frequency(self._group.grid, self._grid)
        distortion = self._group.distortion
        if not distortion.turns_phases:
            return inside.to(torch.complex64)
        phase = distortion.phase(self._group.microscope, ky.expand_as(inside), kx.expand_as(inside))
        return torch.polar(inside.to(torch.float64), -phase).to(torch.complex64)


def _border_level(images: Float[Tensor, "n own own"]) -> Float[Tensor, "n 1 1"]:
    """Mean of each image's outermost pixels: what lies beyond is taken to be that."""
    own = images.shape[-1]
    inner = images[:, 1:-1, 1:-1].sum((1, 2))
    return ((images.sum((1, 2)) - inner) / (4 * own - 4))[:, None, None]


def _waves(frequency: Tensor, position: Tensor, extent: float) -> Complex[Tensor, "k r"]:
    turns = frequency[:, None] * position
    inside = (position >= -extent / 2 * (1 + 1e-9)) & (position < extent / 2 * (1 - 1e-9))
    angle = -2.0 * torch.pi * (turns - turns.round())
    return torch.polar(inside.to(torch.float64).expand_as(angle).contiguous(), angle).to(torch.complex64)


@dataclass(frozen=True)
class _Shears:
    """A linear map of positions (y, x) as two shears and a scaling: y += a x, then x += b y, then each axis scaled."""

    rows_by_columns: float
    columns_by_rows: float
    scale_y: float
    scale_x: float


def _shears(magnification: tuple[tuple[float, float], tuple[float, float]]) -> _Shears:
    """Where pixels lie in the specimen: r' = M^-T r, since frequencies k of the image are M k of the specimen."""
    in_xy = np.linalg.inv(np.array(magnification)).T
    (yy, yx), (xy, xx) = in_xy[::-1, ::-1]
    scale_x = xx - xy * yx / yy
    return _Shears(float(yx / yy), float(xy / scale_x), float(yy), float(scale_x))


def _shear(images: Float[Tensor, "n own own"], slope: float, dim: int) -> Float[Tensor, "n own own"]:
    """Move each line along `dim` by slope times its distance from the middle, periodically, by its transform."""
    if slope == 0.0:
        return images
    own = images.shape[-1]
    k = torch.fft.rfftfreq(own, dtype=torch.float64)
    angle = -2.0 * torch.pi * k[:, None] * slope * (torch.arange(own, dtype=torch.float64) - own // 2)
    phases = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)  # (half, lines)
    phases = phases if dim == 1 else phases.T
    return torch.fft.irfft(torch.fft.rfft(images, dim=dim) * phases, n=own, dim=dim)
