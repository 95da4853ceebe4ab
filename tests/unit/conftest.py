"""A globular molecule of Gaussian atoms, projected in closed form: truth for template matching."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Microscope
from vitreous.core.rotations import euler_to_matrix
from vitreous.methods.matching.transfer import Lens, transfer_planes


@dataclass(frozen=True)
class Molecule:
    """atoms (n, 3): x, y, z in pixels from the centre. sigma: of each atom, pixels."""

    atoms: np.ndarray
    box: int
    sigma: float = 1.0

    def volume(self) -> torch.Tensor:
        """Density (z, y, x), float64."""
        grid = np.arange(self.box) - self.box // 2
        x, y, z = (np.exp(-0.5 * ((grid[None] - self.atoms[:, i, None]) / self.sigma) ** 2) for i in range(3))
        return torch.from_numpy(np.einsum("az,ay,ax->zyx", z, y, x))

    def projection(self, angles: tuple[float, float, float], centre: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """(box, box), the line integral at (phi, theta, psi), its centre moved by (y, x) pixels."""
        pose = euler_to_matrix(*(torch.tensor(a, dtype=torch.float64) for a in angles)).numpy()
        turned = self.atoms @ pose.T
        grid = np.arange(self.box) - self.box // 2
        x = np.exp(-0.5 * ((grid[None] - centre[1] - turned[:, 0, None]) / self.sigma) ** 2)
        y = np.exp(-0.5 * ((grid[None] - centre[0] - turned[:, 1, None]) / self.sigma) ** 2)
        return math.sqrt(2.0 * math.pi) * self.sigma * np.einsum("ay,ax->yx", y, x)

    def micrograph(
        self,
        shape: tuple[int, int],
        lens: Lens,
        particles: list[tuple[int, int, tuple[float, float, float], float]],
        snr: float,
        seed: int = 1,
    ) -> np.ndarray:
        """Particles (y, x of the centre, angles, relative defocus) seen through the lens (protein dark), in noise.

        The noise has more power at low frequencies, so that whitening has work to do.
        """
        rng = np.random.default_rng(seed)
        signal = np.zeros(shape)
        half = self.box // 2
        for y, x, angles, defocus in particles:
            image = np.zeros(shape)
            image[y - half : y + half, x - half : x + half] = self.projection(angles)
            signal += through(image, lens, defocus)
        radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
        colour = np.sqrt(1.0 + 0.05 / np.maximum(radius, 1.0 / max(shape)))
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * colour, s=shape)
        reference = through(self.projection((30.0, 40.0, 50.0)), lens, 0.0)
        scale = math.sqrt(snr / reference.var()) * noise.std() if particles else 0.0
        return (noise + scale * signal).astype(np.float32)


def through(image: np.ndarray, lens: Lens, defocus: float) -> np.ndarray:
    """An image as the lens transfers it; written out here, square or not."""
    square = max(image.shape)
    padded = np.zeros((square, square))
    padded[: image.shape[0], : image.shape[1]] = image
    transfer = transfer_planes(square, lens, torch.tensor([defocus]))[0].numpy()
    seen = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=padded.shape)
    return np.asarray(seen[: image.shape[0], : image.shape[1]])


def make_molecule(box: int, n_atoms: int = 150, seed: int = 7) -> Molecule:
    """A lopsided ball that fills six tenths of the box."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((n_atoms, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lobe = 0.7 + 0.3 * np.sign(np.sin(3.1 * directions[:, 0] + 1) * np.cos(2.3 * directions[:, 1]))
    radius = 0.28 * box * rng.random(n_atoms) ** (1 / 3) * lobe
    return Molecule(directions * radius[:, None], box)


@pytest.fixture(scope="session")
def molecule() -> Molecule:
    return make_molecule(48)


@pytest.fixture(scope="session")
def lens() -> Lens:
    return Lens(2.0, Microscope(300.0, 2.7, 0.07), 6000.0, 5800.0, 25.0)
