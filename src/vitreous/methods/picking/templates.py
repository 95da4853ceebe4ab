"""Template matching as a particle detector: 2D class averages, or a 3D map's projections, in every in-plane direction.

For white noise the filter that tells a known image from it best is the image itself, as the micrograph's CTF shows
it (matched filter). Roseman (2003) Ultramicroscopy 94, 225; Scheres (2015) J. Struct. Biol. 189, 114. The figure of
merit is the response over its own root mean square in this micrograph: templates and micrographs compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from scipy import fft
from torch import Tensor

from vitreous.core.fourier import frequency_grid, lowpass
from vitreous.core.masks import mask_images, soft_sphere
from vitreous.core.rotations import euler_to_matrix
from vitreous.core.sphere import n_pixels, pixel_angles
from vitreous.kernels.project import (
    ProjectableImages,
    ProjectableVolume,
    prepare_images,
    prepare_volume,
    project,
    project_2d,
)

_DIRECTIONS = (
    1  # HEALPix order of a map's views: 48, 29 degrees apart; opposite ones are mirror images, so all are kept
)


@dataclass(frozen=True, eq=False)
class Templates:
    """What is looked for, bright, ready to be turned: k images or one map; pixel_size in A.

    psi_step: degrees between in-plane directions. Compared by identity, so that results can be kept by it.
    """

    prepared: ProjectableImages | ProjectableVolume
    pixel_size: float
    psi_step: float = 5.0

    @property
    def n_classes(self) -> int:
        """Images, or directions of view of a map."""
        return len(self.prepared.data) if isinstance(self.prepared, ProjectableImages) else n_pixels(_DIRECTIONS)

    def psi(self) -> Float[Tensor, "n"]:
        """In-plane angles in degrees."""
        count = max(1, round(360.0 / self.psi_step))
        return torch.arange(count, dtype=torch.float64) * (360.0 / count)

    def transforms(self, coordinates: Float[Tensor, "m 2"]) -> Iterator[Complex[Tensor, "n m"]]:
        """For each class its coefficients at all in-plane angles; coordinates (ky, kx) in Fourier pixels of the box."""
        psi = self.psi()
        if isinstance(self.prepared, ProjectableImages):
            for data in self.prepared.data:
                one = ProjectableImages(data[None], self.prepared.box, self.prepared.padding, self.prepared.max_radius)
                yield project_2d(one, psi.to(torch.float32), coordinates)[0]
            return
        for rot, tilt in zip(*pixel_angles(_DIRECTIONS), strict=True):
            poses = euler_to_matrix(rot.expand_as(psi), tilt.expand_as(psi), psi).to(torch.float32)
            yield project(self.prepared, poses, coordinates)


def templates_of_images(
    images: Float[Tensor, "k box box"], pixel_size: float, diameter: float, *, psi_step: float = 5.0
) -> Templates:
    """From class averages with bright particles; what lies beyond the diameter (A) is masked off.

    Raises ValueError for an odd or non-square box, or where an image is constant.
    """
    mask = soft_sphere(images.shape[-1], 0.5 * diameter / pixel_size, device=images.device)
    masked = mask_images(images.to(torch.float32), mask)
    masked = masked - masked[:, :1, :1]  # the level that the mask leaves outside
    if bool((masked.flatten(1).std(1) == 0).any()):
        raise ValueError("one of the templates is empty")
    return Templates(prepare_images(masked), pixel_size, psi_step)


def templates_of_map(
    density: Float[Tensor, "box box box"], pixel_size: float, diameter: float, *, psi_step: float = 5.0
) -> Templates:
    """From a map with bright density, in 48 directions of view."""
    mask = soft_sphere(density.shape[-1], 0.5 * diameter / pixel_size, ndim=3)
    if float(density.std()) == 0.0:
        raise ValueError("the map is empty")
    return Templates(prepare_volume(density.to(torch.float32) * mask), pixel_size, psi_step)


def template_scores(
    image: Float[np.ndarray, "height width"],
    pixel_size: float,
    templates: Templates,
    *,
    max_resolution: float,
    contrast: Float[Tensor, "height half"] | None = None,
) -> tuple[Float[np.ndarray, "height width"], Int[np.ndarray, "height width"]]:
    """Greatest figure of merit at each place, and which template gave it: class times number of angles, plus angle.

    image: evened out, particles bright. contrast: the micrograph's CTF, None where it is not known. max_resolution: A.
    """
    shape = (int(image.shape[0]), int(image.shape[1]))
    resolution = max(max_resolution, 2.0 * pixel_size, 2.0 * templates.pixel_size)
    weight = lowpass(shape, pixel_size, resolution)
    weight = (weight if contrast is None else weight * contrast).to(torch.float32)
    used = weight.abs() > 1e-3
    used[0, 0] = False
    coordinates = _coordinates(shape, pixel_size, templates)[used]
    image_ft = torch.fft.rfft2(torch.from_numpy(image).to(torch.float32))[used] * weight[used]
    doubled = torch.full(weight.shape, 2.0)
    doubled[:, 0] = 1.0
    best, number = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
    product = np.zeros(weight.shape, np.complex64)
    where = used.numpy()
    count = 0
    for turned in templates.transforms(coordinates):
        responses = turned.conj() * image_ft
        # Parseval: mean square of the response, without its transform.
        spread = (responses.abs().square() * doubled[used]).sum(1).sqrt() / (shape[0] * shape[1])
        responses /= spread.clamp(min=1e-30)[:, None]
        for response in responses:
            product[where] = response.numpy()
            score = fft.irfft2(product, s=shape)
            better = score > best
            best[better] = score[better]
            number[better] = count
            count += 1
    return best.astype(np.float64), number


def _coordinates(shape: tuple[int, int], pixel_size: float, templates: Templates) -> Float[Tensor, "height half 2"]:
    """Frequencies of the micrograph's rfft in Fourier pixels of the templates' box."""
    ky, kx = frequency_grid(shape, pixel_size, dtype=torch.float64)
    scale = templates.prepared.box * templates.pixel_size
    return torch.stack(torch.broadcast_tensors(ky * scale, kx * scale), -1).to(torch.float32)


def template_scores_reference(
    image: Float[np.ndarray, "height width"], template: Float[np.ndarray, "box box"]
) -> Float[np.ndarray, "height width"]:
    """`template_scores` of one template as it stands, without low-pass or CTF, by its definition in real space."""
    height, width = image.shape
    half = len(template) // 2
    response = np.zeros((height, width))
    for dy in range(-half, half):
        for dx in range(-half, half):
            response += template[half + dy, half + dx] * np.roll(image, (-dy, -dx), (0, 1))
    response -= response.mean()
    return np.asarray(response / math.sqrt(float((response**2).mean())))
