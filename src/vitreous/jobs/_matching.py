"""What the matching jobs share: one micrograph from files to files, resumable."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vitreous.core.ctf import Microscope
from vitreous.core.errors import InputError
from vitreous.core.named_aberrations import Aberrations
from vitreous.core.search_grid import AngleLimits, search_orientations
from vitreous.data.volume import Volume
from vitreous.io.leopard import MAP_NAMES, LeopardMatch, LeopardOrientations
from vitreous.io.mrc import read_image, write_image
from vitreous.job import JobParameters, parameter
from vitreous.kernels.correlate import Statistics
from vitreous.methods.matching.filters import Filters, RadialCurve
from vitreous.methods.matching.hierarchical import hierarchical_search
from vitreous.methods.matching.match import (
    Hits,
    MatchSettings,
    Progress,
    Search,
    find_hits,
    prepare_search,
    run_search,
)
from vitreous.methods.matching.search import SearchMaps, finish
from vitreous.methods.matching.transfer import Lens
from vitreous.runtime.checkpoint import load_checkpoint, save_checkpoint


class FilterParameters(JobParameters):
    """How micrograph and template are filtered."""

    whiten: Literal["power", "amplitude", "none"] = parameter("power", help="spectrum that the noise is whitened by")
    low_frequency: float = parameter(
        0.0, help="band-pass: resolution above which nothing passes (0: no cut)", unit="A", ge=0
    )
    high_frequency: float = parameter(0.0, help="band-pass: finest resolution that passes (0: no cut)", unit="A", ge=0)
    falloff: float = parameter(0.05, help="width of the band-pass edges", unit="1/px", advanced=True, gt=0)
    randomise_from: float = parameter(
        0.0, help="randomise the micrograph's phases beyond this resolution (0: nowhere): a control", unit="A",
        advanced=True, ge=0,
    )  # fmt: skip


def filters_of(params: FilterParameters, pixel_size: float) -> Filters:
    """A resolution in A is pixel_size / resolution cycles a pixel."""
    return Filters(
        whiten="" if params.whiten == "none" else params.whiten,
        low=pixel_size / params.low_frequency if params.low_frequency else 0.0,
        high=pixel_size / params.high_frequency if params.high_frequency else 0.0,
        falloff=params.falloff,
        randomise_from=pixel_size / params.randomise_from if params.randomise_from else 0.0,
    )


@dataclass(frozen=True)
class PeakChoice:
    """How hits are chosen: see methods.matching.match.find_hits; min_distance in A."""

    false_positives: float = 1.0
    threshold: float = 0.0
    calibrated: bool = False
    p_value: float = 0.0
    min_distance: float = 10.0


@dataclass(frozen=True)
class Machine:
    """What a search may use. checkpoint_interval: seconds between saves of the running statistics.

    strategy: "full", or "hierarchical" (on the CPU, no checkpoints: it is short).
    """

    device: torch.device
    memory: float
    seed: int = 1
    checkpoint_interval: float = 600.0
    strategy: str = "full"


@dataclass(frozen=True)
class Matched:
    """One micrograph's results and the files of its maps."""

    maps: SearchMaps
    hits: Hits
    box: int
    shape: tuple[int, int]
    files: dict[str, Path]
    rate: float


def load_micrograph(path: Path, template: Volume, pixel_size: float) -> torch.Tensor:
    """A micrograph that goes with the template. Raises InputError."""
    image, stored = read_image(path)
    if image.ndim != 2 or image.dtype.kind == "c":
        raise InputError(path, "is no single image", "Give a motion-corrected micrograph.")
    if min(image.shape) < template.box:
        what = f"of {image.shape[1]} x {image.shape[0]} pixels is smaller than the template's box of {template.box}"
        raise InputError(path, what, "Crop the template.")
    for what, size in (("template's voxel", template.voxel_size), ("micrograph header's pixel", stored)):
        if size > 0 and abs(size / pixel_size - 1.0) > 0.02:
            raise InputError(
                path, f"its pixel size {pixel_size:g} A is not the {what} size {size:g} A",
                "Rescale one of them, or correct the value.",
            )  # fmt: skip
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))


def match_file(
    micrograph: Path,
    template: Volume,
    lens: Lens,
    settings: MatchSettings,
    choice: PeakChoice,
    machine: Machine,
    files: dict[str, Path],
    checkpoint: Path,
    *,
    resume: bool = False,
    tick: Callable[[int, int], None] | None = None,
) -> Matched:
    """Search one micrograph and write its eight maps. A checkpoint of the same search is gone on from with resume."""
    image = load_micrograph(micrograph, template, lens.pixel_size)
    generator = torch.Generator().manual_seed(machine.seed)
    if machine.strategy == "hierarchical":
        start = time.monotonic()
        try:
            maps = hierarchical_search(
                image, template.density, lens, settings, memory=machine.memory, generator=generator
            )
        except ValueError as error:
            raise InputError(micrograph, str(error), "Use --strategy full.") from error
        rate = maps.n_correlations / max(time.monotonic() - start, 1e-9)
        return _written(maps, choice, template.box, image, lens.pixel_size, files, rate)
    try:
        search = prepare_search(image, template.density, lens, settings, device=machine.device, generator=generator)
    except ValueError as error:
        raise InputError(micrograph, str(error), "Look at the image and the template.") from error
    mark = _fingerprint(search, settings)
    progress = _load_progress(checkpoint, mark, machine.device) if resume else None
    before = progress.statistics.count if progress else 0
    start = time.monotonic()
    saver = _Saver(checkpoint, mark, machine.checkpoint_interval, tick)
    statistics = run_search(search, settings, memory=machine.memory, progress=progress, after_block=saver)
    rate = (statistics.count - before) / max(time.monotonic() - start, 1e-9)
    try:
        maps = finish(search.image, statistics, search.orientations.angles, search.planes, search.maker.scales)
    except ValueError as error:
        raise InputError(micrograph, str(error), "Look at the micrograph.") from error
    checkpoint.unlink(missing_ok=True)
    return _written(maps, choice, template.box, image, lens.pixel_size, files, rate)


def _written(
    maps: SearchMaps,
    choice: PeakChoice,
    box: int,
    image: torch.Tensor,
    pixel_size: float,
    files: dict[str, Path],
    rate: float,
) -> Matched:
    """Write the maps and choose the hits."""
    write_maps(files, maps, pixel_size)
    hits = find_hits(
        maps,
        false_positives=choice.false_positives,
        threshold=choice.threshold,
        calibrated=choice.calibrated,
        p_value=choice.p_value,
        min_distance=choice.min_distance / pixel_size,
    )
    return Matched(maps, hits, box, (int(image.shape[0]), int(image.shape[1])), files, rate)


class _Saver:
    """Saves the running statistics every so many seconds, and tells how far the search is."""

    def __init__(self, path: Path, mark: str, interval: float, tick: Callable[[int, int], None] | None) -> None:
        self._path, self._mark, self._interval, self._tick = path, mark, interval, tick
        self._last = time.monotonic()

    def __call__(self, progress: Progress, blocks: int) -> None:
        if self._tick is not None:
            self._tick(progress.next_block, blocks)
        if time.monotonic() - self._last >= self._interval and progress.next_block < blocks:
            arrays = progress.statistics.arrays()
            place = {"next_block": np.array(progress.next_block), "size": np.array(progress.size)}
            save_checkpoint(self._path, {**arrays, **place, "mark": np.array(self._mark)})
            self._last = time.monotonic()


def _load_progress(path: Path, mark: str, device: torch.device) -> Progress | None:
    """The state of an earlier run of the very same search; None where there is none."""
    arrays = load_checkpoint(path)
    if arrays is None or str(arrays.get("mark")) != mark:
        return None
    return Progress(Statistics.from_arrays(arrays, device), int(arrays["next_block"]), int(arrays["size"]))


def _fingerprint(search: Search, settings: MatchSettings) -> str:
    """A digest of image, templates and orientations: a checkpoint of another search must not be taken up."""
    digest = hashlib.sha256(repr((settings.trimmed, settings.scales)).encode())
    volume = torch.view_as_real(search.maker.volume.data)
    parts = (search.image.pixels, volume, torch.view_as_real(search.maker.transfer.to(torch.complex64)))
    for tensor in (*parts, search.orientations.angles, search.planes):
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()


def map_files(stem: Path) -> dict[str, Path]:
    """Names of the eight maps beside stem: STEM_mip.mrc, STEM_orientation_psi.mrc, ..."""
    return {name: stem.with_name(f"{stem.name}_{theirs}.mrc") for name, theirs in MAP_NAMES.items()}


def write_maps(files: dict[str, Path], maps: SearchMaps, pixel_size: float) -> None:
    """Write the eight maps; correlation_variance is a variance."""
    for name, path in files.items():
        write_image(path, getattr(maps, name).numpy(), pixel_size)
    if maps.scale is not None and (mip := files.get("mip")) is not None:
        write_image(
            mip.with_name(mip.name.replace("_mip", "_pixel_size")), (pixel_size / maps.scale).numpy(), pixel_size
        )


def lens_of_leopard(config: LeopardMatch) -> Lens:
    """The optics group as ours."""
    optics = config.optics
    matrix = optics.get("mag_matrix") or [1.0, 0.0, 0.0, 1.0]
    tilt = (float(optics.get("beam_tilt_x") or 0.0), float(optics.get("beam_tilt_y") or 0.0))
    aberrations = Aberrations(
        tilt,
        {str(name): float(value) for name, value in (optics.get("odd_zernikes") or {}).items()},
        {str(name): float(value) for name, value in (optics.get("even_zernikes") or {}).items()},
        ((float(matrix[0]), float(matrix[1])), (float(matrix[2]), float(matrix[3]))),
    )
    microscope = Microscope(
        float(optics["voltage"]), float(optics["spherical_aberration"]), float(optics["amplitude_contrast_ratio"])
    )
    return Lens(
        float(optics["pixel_size"]),
        microscope,
        float(optics["defocus_u"]),
        float(optics["defocus_v"]),
        float(optics["astigmatism_angle"]),
        float(optics["phase_shift"]),
        float(optics["ctf_B_factor"]),
        aberrations,
    )


def settings_of_leopard(config: LeopardMatch, where: Path) -> MatchSettings:
    """Orientations, defoci and filters of a Leopard-EM configuration as ours."""
    low, high, step = config.defocus or (0.0, 0.0, 0.0)
    grids = [_angles(grid) for grid in config.orientations]
    first = config.orientations[0]
    return MatchSettings(
        psi_step=first.psi_step,
        theta_step=first.theta_step,
        symmetry=first.symmetry,
        angles=torch.cat(grids),
        defocus_min=low,
        defocus_max=high,
        defocus_step=step,
        filters=_filters(config.filters, where),
        corners=True,
    )


def _angles(grid: LeopardOrientations) -> torch.Tensor:
    method: Any = grid.method
    limits = None
    if any(value is not None for value in grid.limits.values()):
        given = {name: value for name, value in grid.limits.items() if value is not None}
        limits = AngleLimits(
            (given.get("phi_min", 0.0), given.get("phi_max", 360.0)),
            (given.get("theta_min", 0.0), given.get("theta_max", 180.0)),
            (given.get("psi_min", 0.0), given.get("psi_max", 360.0)),
        )
    return search_orientations(grid.psi_step, grid.theta_step, grid.symmetry, method=method, limits=limits)


def _filters(sections: dict[str, dict[str, Any]], where: Path) -> Filters:
    known = {"whitening_filter", "bandpass_filter", "phase_randomization_filter", "arbitrary_curve_filter"}
    for name, section in sections.items():
        if name not in known and section.get("enabled"):
            raise InputError(where, f"{name} is not offered", "Disable it.")
    white = {"enabled": True, **sections.get("whitening_filter", {})}
    band, random, curve = (
        sections.get(f"{n}_filter", {}) for n in ("bandpass", "phase_randomization", "arbitrary_curve")
    )
    power = white.get("do_power_spectrum")
    return Filters(
        whiten="" if not white["enabled"] else "amplitude" if power is False else "power",
        n_bins=int(white.get("num_freq_bins") or 0),
        max_frequency=float(white.get("max_freq") or 0.5),
        low=float(band.get("low_freq_cutoff") or 0.0) if band.get("enabled") else 0.0,
        high=float(band.get("high_freq_cutoff") or 0.0) if band.get("enabled") else 0.0,
        falloff=float(band.get("falloff") or 0.05),
        curve=_curve(curve, where) if curve.get("enabled") else None,
        randomise_from=float(random.get("cuton") or 0.0) if random.get("enabled") else 0.0,
    )


def _curve(section: dict[str, Any], where: Path) -> RadialCurve:
    frequencies = np.asarray(section.get("frequencies") or [], dtype=np.float64)
    amplitudes = np.asarray(section.get("amplitudes") or [], dtype=np.float64)
    if len(frequencies) < 2 or len(frequencies) != len(amplitudes) or (np.diff(frequencies) <= 0).any():
        raise InputError(
            where, "its arbitrary_curve_filter is no curve", "Give rising frequencies, one amplitude each."
        )
    return RadialCurve(frequencies, amplitudes)
