"""Render a micrograph or the frames of a movie: scene, optics, damage, ice, motion, shot noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.ctf import Microscope
from vitreous.core.fourier import frequency_grid, radius_grid
from vitreous.data.motion import Motion
from vitreous.methods.simulation.contamination import DirtyField
from vitreous.methods.simulation.detector import Detector
from vitreous.methods.simulation.ice import Ice, IceNoise
from vitreous.methods.simulation.motion import displacement_model
from vitreous.methods.simulation.optics import Envelope, Focus, contrast_transfer, damage, damage_of_sum
from vitreous.methods.simulation.potential import Projector
from vitreous.methods.simulation.scene import Scene
from vitreous.methods.simulation.warp import spline_prefilter, warp

_MARGIN = 48  # pixels around the frame, so that motion brings in ice and not the other side
_PROJECTION_BATCH = 16


@dataclass(frozen=True)
class Acquisition:
    """How a movie is taken: shape (y, x) in pixels, pixel_size (A), dose (e/A^2 in all), n_frames.

    pre_exposure: e/A^2 before the first frame. damage: whether the signal fades with dose.
    """

    shape: tuple[int, int]
    pixel_size: float
    microscope: Microscope
    dose: float = 40.0
    n_frames: int = 16
    pre_exposure: float = 0.0
    envelope: Envelope = field(default_factory=Envelope)
    ice: Ice = field(default_factory=Ice)
    damage: bool = True
    dose_weighting: bool = True

    @property
    def frame_dose(self) -> float:
        """e/A^2 a frame."""
        return self.dose / self.n_frames

    @property
    def exposures(self) -> NDArray[np.float64]:
        """Exposure (e/A^2) at the middle of each frame, pre-exposure included."""
        return self.pre_exposure + self.frame_dose * (np.arange(self.n_frames, dtype=np.float64) + 0.5)


def summed_damage(acquisition: Acquisition, shape: tuple[int, int]) -> Tensor:
    """What a sum over the whole exposure keeps of the signal, on the rfft grid of an image of `shape`."""
    a = acquisition
    k = radius_grid(shape, a.pixel_size)
    return damage_of_sum(k, a.pre_exposure, a.pre_exposure + a.dose, a.microscope.voltage, weighted=a.dose_weighting)


def _even_fast_length(size: int) -> int:
    return 2 * int(scipy.fft.next_fast_len((size + 1) // 2, real=True))


class Specimen:
    """One field of view, ready to be exposed: the contrast that its particles and its ice make."""

    def __init__(
        self, projector: Projector, scene: Scene, focus: Focus, acquisition: Acquisition, rng: np.random.Generator
    ) -> None:
        self._acquisition = acquisition
        height, width = acquisition.shape
        self._canvas = (_even_fast_length(height + 2 * _MARGIN), _even_fast_length(width + 2 * _MARGIN))
        self._margin = ((self._canvas[0] - height) // 2, (self._canvas[1] - width) // 2)
        self._radius = radius_grid(self._canvas, acquisition.pixel_size)
        self._signal_ft = self._particles(projector, scene, focus)
        self._ice = IceNoise(self._canvas, acquisition.pixel_size, acquisition.ice, rng)
        self._ice_transfer = self._transfer(focus)
        self._prefilter = spline_prefilter(self._canvas)

    def add(self, projector: Projector, scene: Scene, focus: Focus) -> None:
        """Put particles of another kind into the field of view."""
        self._signal_ft = self._signal_ft + self._particles(projector, scene, focus)

    def contaminate(self, dirt: DirtyField, focus: Focus) -> None:
        """Put dirt into the field of view."""
        before = [margin - dirt.border for margin in self._margin]
        after = [n - have - b for n, have, b in zip(self._canvas, dirt.potential.shape, before, strict=True)]
        potential = np.pad(dirt.potential.astype(np.float32), list(zip(before, after, strict=True)), mode="edge")
        self._signal_ft = self._signal_ft + torch.fft.rfft2(torch.from_numpy(potential)) * self._transfer(focus)

    def _transfer(self, focus: Focus) -> Tensor:
        a = self._acquisition
        return contrast_transfer(self._canvas, a.pixel_size, a.microscope, focus, a.envelope)

    def _particles(self, projector: Projector, scene: Scene, focus: Focus) -> Tensor:
        """Transform of the undamaged contrast of all particles, each at the defocus of its height."""
        total = torch.zeros(self._canvas[0], self._canvas[1] // 2 + 1, dtype=torch.complex64)
        for height in np.unique(scene.heights):
            here = np.flatnonzero(scene.heights == height)
            potential = np.zeros(self._canvas, np.float32)
            for start in range(0, len(here), _PROJECTION_BATCH):
                self._place(potential, projector, scene, here[start : start + _PROJECTION_BATCH])
            total += torch.fft.rfft2(torch.from_numpy(potential)) * self._transfer(focus.raised(float(height)))
        return total

    def _place(
        self, potential: NDArray[np.float32], projector: Projector, scene: Scene, rows: NDArray[np.int64]
    ) -> None:
        """Add particles to the canvas; what reaches past its border is cut."""
        centres = scene.coordinates[rows] + np.array([self._margin[1], self._margin[0]])
        whole = np.floor(centres + 0.5).astype(np.int64)
        images = projector(scene.rotations[torch.from_numpy(rows)], torch.from_numpy(centres - whole)).numpy()
        box = projector.box
        for image, (x, y) in zip(images, whole - box // 2, strict=True):
            top, left = max(y, 0), max(x, 0)
            bottom, right = min(y + box, self._canvas[0]), min(x + box, self._canvas[1])
            if bottom > top and right > left:
                potential[top:bottom, left:right] += image[top - y : bottom - y, left - x : right - x]

    def _frame(self, start: float, end: float, blur: NDArray[np.float64]) -> Tensor:
        """Transform of the mean contrast between two exposures (e/A^2), moving by blur (x, y) pixels meanwhile."""
        a = self._acquisition
        signal = self._signal_ft
        if a.damage:
            signal = signal * damage(self._radius, start, end, a.microscope.voltage).to(torch.float32)
        total = signal + self._ice.expose(end - start) * self._ice_transfer
        if np.any(blur):
            ky, kx = frequency_grid(self._canvas)
            total = total * torch.special.sinc(kx * blur[0] + ky * blur[1]).to(torch.float32)
        return total

    def micrograph(self) -> NDArray[np.float32]:
        """Noise-free intensity of the whole exposure, standing still: mean 1 but for absorption (y, x)."""
        a = self._acquisition
        contrast = self._signal_ft
        if a.damage:
            contrast = contrast * summed_damage(a, self._canvas).to(torch.float32)
        contrast = contrast + self._ice.expose(a.dose) * self._ice_transfer
        image = scipy.fft.irfft2(contrast.numpy(), s=self._canvas)
        (top, left), (height, width) = self._margin, a.shape
        return np.asarray(1.0 + image[top : top + height, left : left + width], dtype=np.float32)

    def frames(self, motion: Motion) -> Iterator[NDArray[np.float32]]:
        """Noise-free intensities of the frames, moved (y, x)."""
        a = self._acquisition
        track = motion.global_shifts
        speed = np.gradient(track, axis=0) if motion.n_frames > 1 else np.zeros_like(track)
        for frame in range(a.n_frames):
            start = a.pre_exposure + frame * a.frame_dose
            contrast = self._frame(start, start + a.frame_dose, speed[frame]) / self._prefilter
            coefficients = scipy.fft.irfft2(contrast.numpy(), s=self._canvas)
            yield 1.0 + warp(coefficients, a.shape, self._margin, displacement_model(motion, frame))


def record_movie(
    specimen: Specimen, motion: Motion, acquisition: Acquisition, detector: Detector, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Counts (n_frames, y, x) of a movie, as the detector gives them: not gain-corrected."""
    electrons = acquisition.frame_dose * acquisition.pixel_size**2
    movie = np.empty((acquisition.n_frames, *acquisition.shape), np.uint16)
    for index, frame in enumerate(specimen.frames(motion)):
        movie[index] = detector.count(frame * np.float32(electrons), rng)
    return movie


def record_micrograph(specimen: Specimen, acquisition: Acquisition, rng: np.random.Generator) -> NDArray[np.float32]:
    """Electrons a pixel (y, x) of a motionless micrograph on a perfect detector."""
    electrons = acquisition.dose * acquisition.pixel_size**2
    return rng.poisson(np.maximum(specimen.micrograph(), 0.0) * electrons).astype(np.float32)
