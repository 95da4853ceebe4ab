"""Templates: projections of a volume as the filtered micrograph would show them, ready to correlate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import frequency_grid
from vitreous.core.named_aberrations import Aberrations
from vitreous.core.rotations import euler_to_matrix
from vitreous.kernels.project import ProjectableVolume, prepare_volume, project
from vitreous.methods.matching.filters import Filters, RadialCurve, filter_on_grid
from vitreous.methods.matching.transfer import Lens, transfer_planes


@dataclass(frozen=True)
class TemplateMaker:
    """volume: prepared for projection. transfer: CTF times filters of each plane, its origin moved to the box centre.

    coordinates: (ky, kx) in Fourier pixels of the volume that each coefficient of the template reads. scales: of the
    volume, each with all planes: true voxel size over the assumed one.
    """

    volume: ProjectableVolume
    transfer: Tensor
    coordinates: Float[Tensor, "coefficients 2"]
    scales: tuple[float, ...] = (1.0,)

    @property
    def box(self) -> int:
        """Side of the templates in pixels."""
        return self.volume.box

    @property
    def n_planes(self) -> int:
        """Templates for each orientation: all defoci of the first scale, then of the second, ..."""
        return len(self.scales) * len(self.transfer)

    @property
    def has_twins(self) -> bool:
        """Whether the inversion of a template is the template at psi + 180 (not under odd aberrations)."""
        return not self.transfer.is_complex()

    def __call__(self, angles: Float[Tensor, "n 3"]) -> Float[Tensor, "n_planes_each box box"]:
        """Templates of n orientations (phi, theta, psi), all planes of the first, then of the second, ...

        Mean of the border taken off, first row and column zero, sum of squares 1: against white noise of variance 1 the
        correlation has variance 1.
        """
        box = self.box
        rotations = euler_to_matrix(*angles.to(torch.float64).unbind(1))
        rotations = rotations.to(self.volume.data.device)
        slices = torch.stack([project(self.volume, rotations, self.coordinates * scale) for scale in self.scales], 1)
        half = slices.reshape(len(angles), len(self.scales), 1, box, box // 2 + 1) * self.transfer
        return normalised(torch.fft.irfft2(half.flatten(0, 2), s=(box, box)))


def make_templates(
    density: Float[Tensor, "box box box"],
    lens: Lens,
    planes: Float[Tensor, "planes"],
    whitening: RadialCurve | None,
    filters: Filters,
    *,
    padding: int = 2,
    scales: tuple[float, ...] = (1.0,),
    corners: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> TemplateMaker:
    """Prepare a volume (z, y, x) for a micrograph's optics and filters.

    padding: oversampling of the volume's transform, 1 or 2. scales: true voxel sizes over the assumed one.
    corners: keep coefficients beyond Nyquist in the corners of Fourier space. dtype: float64 is the reference.
    """
    volume = prepare_volume(density.to(dtype), padding, corners=corners, dtype=dtype)
    volume = volume.to(device) if device else volume
    coordinates = read_coordinates(volume.box, lens.aberrations).to(device)
    return TemplateMaker(volume, centred_transfer(volume, lens, planes, whitening, filters), coordinates, scales)


def centred_transfer(
    volume: ProjectableVolume,
    lens: Lens,
    planes: Float[Tensor, "planes"],
    whitening: RadialCurve | None,
    filters: Filters,
) -> Tensor:
    """CTF of each plane times the filters, moving the origin to the centre; device and precision are the volume's."""
    box = volume.box
    transfer = transfer_planes(box, lens, planes) * filter_on_grid(whitening, filters, (box, box))
    ky, kx = (grid * box for grid in frequency_grid((box, box)))
    inner = (ky.abs() < box // 2) & (kx < box // 2)  # a Nyquist coefficient has no twin
    transfer = transfer * inner * torch.where((torch.round(ky + kx) % 2) == 0, 1.0, -1.0)
    kind = volume.data.dtype if transfer.is_complex() else volume.data.real.dtype
    return transfer.to(volume.data.device, kind)


def read_coordinates(box: int, aberrations: Aberrations, scale: float = 1.0) -> Float[Tensor, "coefficients 2"]:
    """(ky, kx) in the volume's Fourier pixels of each coefficient of the box's rfft grid."""
    ky, kx = torch.broadcast_tensors(*(grid * box for grid in frequency_grid((box, box))))
    ky, kx = aberrations.true_frequencies(ky, kx)
    return torch.stack([ky.reshape(-1), kx.reshape(-1)], 1) * scale


def normalised(templates: Float[Tensor, "m box box"]) -> Float[Tensor, "m box box"]:
    """Border mean taken off, first row and column zero, sum of squares 1 (in place)."""
    # The border is symmetric about the centre (row 1 and the last), so that twins lose the same mean.
    inner = templates[:, 1:, 1:]
    rim = inner[:, 0].sum(-1) + inner[:, -1].sum(-1) + inner[:, 1:-1, 0].sum(-1) + inner[:, 1:-1, -1].sum(-1)
    templates -= (rim / (4 * inner.shape[-1] - 4))[:, None, None]
    templates[:, 0] = 0.0
    templates[:, :, 0] = 0.0
    norm = torch.linalg.vector_norm(templates, dim=(-2, -1), keepdim=True)
    return templates.div_(norm.clamp(min=torch.finfo(templates.dtype).tiny))
