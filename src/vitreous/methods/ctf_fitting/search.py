"""The search for a CTF: every defocus, astigmatism and phase shift on a grid, then local refinement of the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from vitreous.core.microscope import Microscope
from vitreous.methods.ctf_fitting.correlation import (
    Band,
    Correlator,
    Lens,
    Points,
    flatten_band,
    lens_rings,
    rings,
)
from vitreous.methods.ctf_fitting.spectrum import PolarSpectrum

Array = NDArray[np.float64]

B_FACTORS = (0.0, 40.0, 100.0, 250.0, 600.0)  # A^2, envelopes of the rings that are tried
_WIDE_SECTORS = 8
_AMPLITUDES = (100.0, 250.0, 500.0, 1000.0)  # A, half of defocus_u - defocus_v
_CANDIDATES = 3


@dataclass(frozen=True)
class SearchSettings:
    """Where to look. defocus_* in A; phase_* in degrees (equal: that phase shift, no search).

    astigmatism_expected: standard deviation in A of the prior on defocus_u - defocus_v. astigmatism_known:
    (defocus_u - defocus_v in A, angle in degrees), which is then not searched; None where it is not known.
    thickness_max: A, greatest thickness of the sample that is looked for (0: taken as thin).
    """

    defocus_min: float = 5000.0
    defocus_max: float = 50000.0
    defocus_step: float = 100.0
    phase_min: float = 0.0
    phase_max: float = 0.0
    phase_step: float = 10.0
    astigmatism_expected: float = 1000.0
    astigmatism_known: tuple[float, float] | None = None
    thickness_max: float = 0.0

    @property
    def searches_phase(self) -> bool:
        """Whether the phase shift is a free parameter."""
        return self.phase_max > self.phase_min

    def astigmatisms(self) -> list[tuple[float, float]]:
        """(half of the astigmatism in A, axis in radians) of every trial, coarse."""
        if self.astigmatism_known is not None:
            amount, angle = self.astigmatism_known
            return [(0.5 * amount, float(np.deg2rad(angle)))]
        axes = np.arange(_WIDE_SECTORS) * np.pi / _WIDE_SECTORS
        return [(0.0, 0.0), *((amplitude, float(axis)) for amplitude in _AMPLITUDES for axis in axes)]

    def defoci(self) -> Array:
        """The grid of defoci in A."""
        count = max(2, round((self.defocus_max - self.defocus_min) / self.defocus_step) + 1)
        return np.linspace(self.defocus_min, self.defocus_max, count)

    def phases(self) -> Array:
        """The grid of phase shifts in radians."""
        count = round((self.phase_max - self.phase_min) / self.phase_step) + 1 if self.searches_phase else 1
        return np.deg2rad(np.linspace(self.phase_min, self.phase_max, count))


@dataclass(frozen=True)
class Candidate:
    """A CTF with the B factor (A^2) of its rings and its score (correlation)."""

    lens: Lens
    b_factor: float
    score: float


def grid_search(polar: PolarSpectrum, band: Band, microscope: Microscope, settings: SearchSettings) -> list[Candidate]:
    """The best few separate solutions over the whole grid of defocus, astigmatism, axis and phase shift.

    Each of eight sectors is correlated with the rings of every defocus; the score of an astigmatic CTF is then the
    mean over the sectors of their scores at the defocus it has there, a look-up instead of a model.
    """
    defoci, phases = settings.defoci(), settings.phases()
    points = flatten_band(merge_sectors(polar, _WIDE_SECTORS), band)
    angles = np.unique(points.angle)
    sectors = [select(points, points.angle == angle) for angle in angles]
    tables = np.stack([sector_scores(sector, band, microscope, defoci, phases) for sector in sectors], axis=1)
    best = int(tables.mean(1).max((1, 2)).argmax())
    return peaks(tables[best], angles, settings, B_FACTORS[best])


def merge_sectors(polar: PolarSpectrum, n_sectors: int) -> PolarSpectrum:
    """Average neighbouring sectors of a polar spectrum down to n_sectors."""
    shape = (n_sectors, polar.power.shape[0] // n_sectors, -1)
    count = polar.count.reshape(shape)
    total = count.sum(1)
    safe = np.maximum(total, 1.0)
    power = (polar.power.reshape(shape) * count).sum(1) / safe
    k_squared = (polar.k_squared.reshape(shape) * count).sum(1) / safe
    angle = polar.angle.reshape(n_sectors, -1).mean(1)
    return PolarSpectrum(power, total, k_squared, angle, polar.shell, polar.length)


def select(points: Points, mask: NDArray[np.bool_]) -> Points:
    """The points where mask holds."""
    return Points(points.value[mask], points.weight[mask], points.k_squared[mask], points.angle[mask], points.length)


def sector_scores(sector: Points, band: Band, microscope: Microscope, defoci: Array, phases: Array) -> Array:
    """Correlation of a sector with the rings of each B factor, phase shift and defocus: (n_b, n_phases, n_defoci)."""
    table = np.empty((len(B_FACTORS), len(phases), len(defoci)))
    correlate = Correlator(sector, band)
    envelopes = [np.exp(-0.25 * b_factor * sector.k_squared) for b_factor in B_FACTORS]
    for number, phase in enumerate(phases):
        model = rings(sector.k_squared, defoci[:, None], microscope, sector.length, phase)
        for index, envelope in enumerate(envelopes):
            table[index, number] = correlate(model * envelope)
    return table


def peaks(table: Array, angles: Array, settings: SearchSettings, b_factor: float) -> list[Candidate]:
    """The highest scores over defocus, astigmatism, axis and phase shift, no two closer than 5% in defocus.

    table: (n_sectors, n_phases, n_defoci); angles (rad) of the sectors.
    """
    defoci, phases = settings.defoci(), settings.phases()
    step = defoci[1] - defoci[0]
    index = np.arange(len(defoci))
    scores, lenses = [], []
    for amplitude, axis in settings.astigmatisms():
        shift = np.round(amplitude * np.cos(2.0 * (angles - axis)) / step).astype(np.int64)
        at = np.clip(index + shift[:, None], 0, len(defoci) - 1)
        scores.append(np.take_along_axis(table, at[:, None, :], 2).mean(0))
        lenses.append((amplitude * np.cos(2 * axis), amplitude * np.sin(2 * axis)))
    volume = np.stack(scores)  # (astigmatisms, phases, defoci)
    found: list[Candidate] = []
    for _ in range(_CANDIDATES):
        astigmatism, phase, defocus = np.unravel_index(int(volume.argmax()), volume.shape)
        lens = Lens(float(defoci[defocus]), *lenses[astigmatism], float(phases[phase]))
        found.append(Candidate(lens, b_factor, float(volume[astigmatism, phase, defocus])))
        volume[:, :, np.abs(defoci - defoci[defocus]) < 0.05 * defoci[defocus]] = -np.inf
        if not np.isfinite(volume).any():
            break
    return found


def refine(
    start: Candidate,
    correlate: Correlator,
    microscope: Microscope,
    settings: SearchSettings,
    *,
    spread: float = 1.0,
    free_envelope: bool = False,
) -> Candidate:
    """Climb from a candidate to the nearest maximum of the posterior (Nelder and Mead, all parameters at once).

    The likelihood of n points at correlation c is -n/2 log(1 - c^2); the prior on astigmatism is a Gaussian, so
    weak spectra stay round and strong ones are not held back. spread: scale of the first simplex. A start that has
    a thickness keeps it free. free_envelope: so is the B factor, which is the start's otherwise.
    """
    scale = np.array([100.0, 100.0, 100.0, 0.2, 100.0, 80.0]) * spread
    astigmatic, thick = settings.astigmatism_known is None, start.lens.thickness > 0
    free = np.flatnonzero([True, astigmatic, astigmatic, settings.searches_phase, thick, free_envelope])
    lens = start.lens
    origin = np.array([lens.defocus, lens.cosine, lens.sine, lens.phase, lens.thickness, start.b_factor])

    def candidate_at(step: Array) -> Candidate:
        values = origin.copy()
        values[free] += step * scale[free]
        *lens_values, b_factor = (float(value) for value in values)
        lens = Lens(*lens_values)
        return Candidate(lens, b_factor, float(correlate(lens_rings(lens, correlate.points, microscope, b_factor))))

    def cost(step: Array) -> float:
        trial = candidate_at(step)
        # A known astigmatism makes this a constant.
        prior = 0.5 * (2.0 * np.hypot(trial.lens.cosine, trial.lens.sine) / settings.astigmatism_expected) ** 2
        wall = bounds_cost(trial.lens, settings) + max(-trial.b_factor, 0.0)
        return -evidence(trial.score, len(correlate.points.value)) + prior + wall

    simplex = np.vstack([np.zeros(len(free)), np.eye(len(free))])
    result = minimize(
        cost,
        np.zeros(len(free)),
        method="Nelder-Mead",
        options={
            "initial_simplex": simplex,
            "xatol": 5e-3 / max(spread, 0.1),
            "fatol": 1e-3,
            "maxiter": 90 * len(free),
        },
    )
    return candidate_at(result.x)


def evidence(score: float, n_points: int) -> float:
    """Log-likelihood ratio of rings against none; signed, so that half-ring errors (negative) are never chosen."""
    return float(-0.5 * n_points * np.log(max(1.0 - score * score, 1e-12)) * np.sign(score))


def bounds_cost(lens: Lens, settings: SearchSettings) -> float:
    """A steep wall around the range of defocus and phase shift asked for."""
    beyond = max(settings.defocus_min - lens.defocus, 0.0) + max(lens.defocus - settings.defocus_max, 0.0)
    beyond += max(-lens.thickness, 0.0) + max(lens.thickness - max(settings.thickness_max, 0.0), 0.0)
    if not settings.searches_phase:
        return beyond
    low, high = np.deg2rad(settings.phase_min), np.deg2rad(settings.phase_max)
    return beyond + 1e3 * (max(low - lens.phase, 0.0) + max(lens.phase - high, 0.0))


def best_b_factor(candidate: Candidate, correlate: Correlator, microscope: Microscope) -> Candidate:
    """The candidate with the envelope that fits it best."""
    options = []
    for b_factor in B_FACTORS:
        score = float(correlate(lens_rings(candidate.lens, correlate.points, microscope, b_factor)))
        options.append(Candidate(candidate.lens, b_factor, score))
    return max(options, key=lambda option: option.score)
