"""What particles are compared with, in two and in three dimensions."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.rotations import matrix_to_euler
from vitreous.kernels.project import ProjectableImages, ProjectableVolume, prepare_images, prepare_volume, project
from vitreous.kernels.project import project_2d as rotate_images


class References(Protocol):
    """K classes of which slices can be had at any pose."""

    @property
    def n_classes(self) -> int:
        """K."""
        ...

    def slices(
        self,
        class_index: int,
        rotations: Float[Tensor, "r 3 3"],
        coordinates: Float[Tensor, "m 2"],
        *,
        out: Complex[Tensor, "r m"] | None = None,
    ) -> Complex[Tensor, "r m"]:
        """Coefficients of the projections (complex64) at (ky, kx) in Fourier pixels; out: where to write them."""
        ...


class ClassAverages:
    """2D references (k, y, x), turned in their plane by poses with rot = tilt = 0."""

    def __init__(self, images: Float[Tensor, "k box box"], max_radius: int, padding: int = 2) -> None:
        self._prepared: ProjectableImages = prepare_images(images.to(torch.float32), padding, max_radius)

    @property
    def n_classes(self) -> int:
        """Number of averages."""
        return int(self._prepared.data.shape[0])

    def slices(
        self,
        class_index: int,
        rotations: Float[Tensor, "r 3 3"],
        coordinates: Float[Tensor, "m 2"],
        *,
        out: Complex[Tensor, "r m"] | None = None,
    ) -> Complex[Tensor, "r m"]:
        """See References."""
        whole = self._prepared
        one = ProjectableImages(whole.data[class_index : class_index + 1], whole.box, whole.padding, whole.max_radius)
        turned = rotate_images(one, psi_of(rotations), coordinates)[0]
        return turned if out is None else out.copy_(turned)


class Maps:
    """3D references, one density (z, y, x) a class."""

    def __init__(self, densities: list[Float[Tensor, "box box box"]], max_radius: int, padding: int = 2) -> None:
        self._prepared: list[ProjectableVolume] = [
            prepare_volume(density.to(torch.float32), padding, max_radius) for density in densities
        ]

    @property
    def n_classes(self) -> int:
        """Number of maps."""
        return len(self._prepared)

    def slices(
        self,
        class_index: int,
        rotations: Float[Tensor, "r 3 3"],
        coordinates: Float[Tensor, "m 2"],
        *,
        out: Complex[Tensor, "r m"] | None = None,
    ) -> Complex[Tensor, "r m"]:
        """See References."""
        return project(self._prepared[class_index], rotations, coordinates, out=out)


def psi_of(rotations: Float[Tensor, "r 3 3"]) -> Float[Tensor, "r"]:
    """In-plane angle (degrees) of poses with rot = tilt = 0."""
    return matrix_to_euler(rotations)[2]
