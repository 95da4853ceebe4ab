"""Correlations around one place: a few positions, any orientations, as one matrix product; and climbing from there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.rotations import axis_angle_to_matrix, euler_to_matrix, matrix_to_euler
from vitreous.kernels.project import ProjectableVolume, prepare_volume
from vitreous.methods.matching.filters import Filters, RadialCurve
from vitreous.methods.matching.templates import TemplateMaker, centred_transfer, read_coordinates
from vitreous.methods.matching.transfer import Lens

_AT_ONCE = 64  # templates that are held


@dataclass(frozen=True)
class Field:
    """A filtered micrograph (variance 1) with the optics and filters that its templates need, and the template."""

    image: Float[Tensor, "height width"]
    volume: ProjectableVolume
    lens: Lens
    whitening: RadialCurve | None
    filters: Filters

    @staticmethod
    def of(
        image: Float[Tensor, "height width"],
        density: Float[Tensor, "box box box"],
        lens: Lens,
        whitening: RadialCurve | None,
        filters: Filters,
        *,
        padding: int = 2,
    ) -> Field:
        """image: as prepare_micrograph leaves it. density: (z, y, x)."""
        volume = prepare_volume(density.to(torch.float32), padding)
        return Field(image.to(torch.float32), volume, lens, whitening, filters)

    def maker(
        self, defocus: Float[Tensor, "planes"], scale: float = 1.0, b_factor: float | None = None
    ) -> TemplateMaker:
        """Templates at relative defoci (A). scale: true voxel size of the template over the assumed one."""
        lens = self.lens if b_factor is None else replace(self.lens, b_factor=b_factor)
        transfer = centred_transfer(self.volume, lens, defocus, self.whitening, self.filters)
        return TemplateMaker(self.volume, transfer, read_coordinates(self.volume.box, lens.aberrations, scale))


@dataclass(frozen=True)
class Place:
    """A molecule. position: (y, x) of the template's first pixel on the micrograph; angles: (phi, theta, psi), degrees;
    defocus: A, relative to the micrograph's; scale: true voxel size of the template over the assumed one."""

    position: tuple[int, int]
    angles: Float[Tensor, "3"]
    defocus: float = 0.0
    scale: float = 1.0
    correlation: float = -torch.inf


def nearby_angles(angles: Float[Tensor, "3"], step: float, reach: float) -> Float[Tensor, "n 3"]:
    """Orientations within `reach` degrees of one, on a cubic lattice of rotation vectors `step` degrees apart."""
    count = int(reach / step + 1e-9)
    axis = torch.arange(-count, count + 1, dtype=torch.float64) * step
    vectors = torch.cartesian_prod(axis, axis, axis)
    length = vectors.norm(dim=1)
    vectors, length = vectors[length <= reach + 1e-9], length[length <= reach + 1e-9]
    axes = torch.where(length[:, None] > 0, vectors, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    pose = euler_to_matrix(*angles.to(torch.float64).unbind())
    return torch.stack(matrix_to_euler(axis_angle_to_matrix(axes, length) @ pose), 1) % 360.0


def window_correlations(
    image: Float[Tensor, "height width"], maker: TemplateMaker, position: tuple[int, int],
    angles: Float[Tensor, "n 3"], reach: int,
) -> tuple[Float[Tensor, "n planes rows columns"], tuple[int, int]]:  # fmt: skip
    """Correlations at positions within `reach` pixels (a square, cut at the map's border); and its first position."""
    box = maker.box
    top, bottom = max(0, position[0] - reach), min(image.shape[0] - box, position[0] + reach)
    left, right = max(0, position[1] - reach), min(image.shape[1] - box, position[1] + reach)
    windows = image[top : bottom + box, left : right + box].unfold(0, box, 1).unfold(1, box, 1).reshape(-1, box * box)
    shape = maker.n_planes, bottom - top + 1, right - left + 1
    size = max(1, _AT_ONCE // maker.n_planes)
    parts = [maker(some).reshape(-1, box * box) @ windows.T for some in angles.split(size)]
    return torch.cat(parts).reshape(len(angles), *shape), (top, left)


def best_of(
    image: Float[Tensor, "height width"], maker: TemplateMaker, start: Place, angles: Float[Tensor, "n 3"],
    defocus: Float[Tensor, "planes"], reach: int,
) -> Place:  # fmt: skip
    """The highest correlation of the orientations and the maker's planes (`defocus`), within `reach` pixels."""
    values, corner = window_correlations(image, maker, start.position, angles, reach)
    index = int(values.argmax())
    orientation, plane, row, column = (int(i) for i in torch.unravel_index(torch.tensor(index), values.shape))
    position = corner[0] + row, corner[1] + column
    return Place(position, angles[orientation], float(defocus[plane]), start.scale, float(values.reshape(-1)[index]))


def best_around(
    field: Field, start: Place, angles: Float[Tensor, "n 3"], defocus: Float[Tensor, "planes"], reach: int
) -> Place:
    """The same with templates at the given relative defoci."""
    return best_of(field.image, field.maker(defocus, start.scale), start, angles, defocus, reach)


def climb_angles(field: Field, start: Place, step: float, finest: float, reach: int) -> Place:
    """Hill climbing over orientations: the 26 neighbours at `step` degrees, then at half of it, down to `finest`."""
    best = start
    while step >= finest - 1e-9:
        for _ in range(6):
            nearby = nearby_angles(best.angles, step, 1.8 * step)
            found = best_around(field, best, nearby, torch.tensor([best.defocus]), reach)
            moved = found.correlation > best.correlation + 1e-6
            best = found if moved else best
            if not moved:
                break
        step *= 0.5
    return best
