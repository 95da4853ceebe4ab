"""The single-particle road: movies in, a sharpened map out, each step a job, each choice between them with a reason."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.core.symmetry import canonical_name
from vitreous.io.relion import read_dataset
from vitreous.job import JobParameters, parameter
from vitreous.pipeline.map_steps import half_map_in_mask, make_mask, select_classes, sharpen
from vitreous.pipeline.project import Project
from vitreous.pipeline.recipe import Hooks, Road, Step, follow

# In Angstrom. A box of 1.5 diameters holds the particle and enough around it for the CTF's delocalisation.
_BOX_DIAMETERS = 1.5
_PIXEL_2D = 3.8  # classes to 8 A are as good as any, and small boxes are quick
_NYQUIST_MARGIN = 0.75  # the 3D pixel's Nyquist against the resolution to which Thon rings are seen
_START_DIAMETERS, _START_FINEST = 0.15, 20.0  # low-pass of the map that refinement starts from
_PARTICLES_PER_CLASS = 100
_FEWEST_CLASSES, _MOST_CLASSES = 5, 50


class SpaParameters(JobParameters):
    """What `vitreous spa` takes."""

    movies: str = parameter(help="movies: a pattern in quotes, e.g. 'movies/*.tiff'", aliases=("i",))
    pixel_size: float = parameter(help="pixel size of the movies", unit="A", aliases=("angpix",), gt=0)
    voltage: float = parameter(help="acceleration voltage", unit="kV", aliases=("kV",), gt=0)
    cs: float = parameter(2.7, help="spherical aberration", unit="mm", aliases=("Cs",), ge=0)
    amplitude_contrast: float = parameter(0.1, help="fraction of amplitude contrast", aliases=("Q0",), ge=0, le=1)
    dose: float = parameter(help="dose per frame", unit="e/A^2", aliases=("dose_per_frame",), gt=0)
    particle_diameter: float = parameter(help="longest diameter of the particle", unit="A", gt=0)
    symmetry: str = parameter("C1", help="point group (C1, D2, O...)", aliases=("sym",))
    gain: str | None = parameter(None, help="gain reference", aliases=("gainref",))
    gain_rotation: int = parameter(0, help="quarter turns of the gain", aliases=("gain_rot",), advanced=True)
    gain_flip: int = parameter(0, help="flip of the gain: 1 up-down, 2 left-right", advanced=True)
    defects: str | None = parameter(None, help="defect file of the camera", aliases=("defect_file",), advanced=True)
    mtf: str | None = parameter(None, help="MTF of the camera (STAR file)", advanced=True)
    pre_exposure: float = parameter(0.0, help="dose before the first frame", unit="e/A^2", advanced=True, ge=0)
    eer_grouping: int | None = parameter(None, help="EER: raw frames in a fraction", advanced=True, gt=0)
    box: int | None = parameter(None, help="box in micrograph pixels (default: 1.5 diameters)", unit="px", gt=0)
    max_box: int = parameter(256, help="largest box refined", unit="px", advanced=True, gt=0)
    pixel_size_3d: float | None = parameter(
        None, help="pixel size of the refinement (default: what the data support)", unit="A", advanced=True, gt=0
    )
    n_classes: int | None = parameter(
        None, help="2D classes (default: by the number of particles)", aliases=("K",), gt=0
    )
    class2d_iterations: int | None = parameter(None, help="iterations of 2D classification", advanced=True, gt=0)
    initial_model_iterations: int | None = parameter(
        None, help="mini-batches of the initial model", advanced=True, ge=5
    )
    threshold: float | None = parameter(None, help="threshold of the picker (default: its own)", advanced=True)


SpaRoad = Road[SpaParameters]


def run_spa(root: str | Path, settings: SpaParameters, hooks: Hooks | None = None) -> SpaRoad:
    """Take movies to a map in the project `root`; goes on where an earlier run stopped.

    Raises InputError before anything starts where movies, symmetry or files are wrong.
    """
    check(settings)
    project = Project(root).create()
    road = Road(project, settings)
    how = {name: getattr(settings, name) for name in JobParameters.model_fields}
    return follow(STEPS, road, how, hooks or Hooks())


def check(settings: SpaParameters) -> None:
    """What can be known to be wrong before anything starts. Raises InputError."""
    canonical_name(settings.symmetry)
    pattern = Path.cwd() / settings.movies
    if not any(pattern.parent.glob(pattern.name)):
        raise InputError(f"--movies {settings.movies}", "no file fits this pattern", "Quote it; check the directory")
    for name in ("gain", "defects", "mtf"):
        file = getattr(settings, name)
        if file and not Path(_absolute(file)).is_file():
            raise InputError(f"--{name} {file}", "there is no such file", "Check the name and the directory")
    if settings.box and settings.box * settings.pixel_size < settings.particle_diameter:
        size = settings.box * settings.pixel_size
        raise InputError("--box", f"is {size:.0f} A wide, less than the particle", "1.5 diameters are usual")


def link_movies(project: Project, pattern: str) -> str:
    """The movies' pattern as a path inside the project; a link `Movies` is made where they lie elsewhere.

    RELION's tools follow paths relative to the project, so what it works on must be reachable from there.
    """
    path = Path(pattern)
    absolute = path if path.is_absolute() else Path.cwd() / path
    folder = absolute.parent.resolve()
    if folder.is_relative_to(project.root):
        return str(folder.relative_to(project.root) / absolute.name)
    link = project.root / "Movies"
    if link.is_symlink() and link.resolve() != folder:
        raise InputError(link, f"links to {link.resolve()}, not to {folder}", "Use another project for other movies")
    if not link.exists():
        link.symlink_to(folder)
    return f"Movies/{absolute.name}"


def friendly_size(size: float) -> int:
    """The smallest even number >= size whose only prime factors are 2, 3 and 5: FFTs of it are quick."""
    n = max(2, 2 * math.ceil(size / 2 - 1e-9))
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2


def _import(road: SpaRoad) -> dict[str, Any]:
    settings = road.settings
    values = {
        "movies": link_movies(road.project, settings.movies),
        "pixel_size": settings.pixel_size,
        "voltage": settings.voltage,
        "cs": settings.cs,
        "amplitude_contrast": settings.amplitude_contrast,
    }
    return values | ({"mtf": _absolute(settings.mtf)} if settings.mtf else {})


def _motion(road: SpaRoad) -> dict[str, Any]:
    settings = road.settings
    values: dict[str, Any] = {
        "input": road.file("import", "movies.star"),
        "dose_per_frame": settings.dose,
        "pre_exposure": settings.pre_exposure,
    }
    if settings.gain:
        values |= {"gain": _absolute(settings.gain)}
        values |= {"gain_rotation": settings.gain_rotation, "gain_flip": settings.gain_flip}
    if settings.defects:
        values["defects"] = _absolute(settings.defects)
    if settings.eer_grouping:
        values["eer_grouping"] = settings.eer_grouping
    return values


def _ctf(road: SpaRoad) -> dict[str, Any]:
    return {"input": road.file("motion", "corrected_micrographs.star")}


def _pick(road: SpaRoad) -> dict[str, Any]:
    diameter = road.settings.particle_diameter
    low, high = round(0.8 * diameter), round(1.1 * diameter)
    road.decide("pick", "diameters searched", f"{low} to {high} A", f"the particle is said to be {diameter:g} A")
    values: dict[str, Any] = {
        "input": road.file("ctf", "micrographs_ctf.star"),
        "diameter_min": low,
        "diameter_max": high,
    }
    return values | ({"threshold": road.settings.threshold} if road.settings.threshold is not None else {})


def _box(road: SpaRoad) -> tuple[int, float]:
    """Box in micrograph pixels, and the micrographs' pixel size."""
    micrographs = read_dataset(road.path("ctf", "micrographs_ctf.star"))
    pixel = float(micrographs.optics["micrograph_pixel_size"][0])
    if road.settings.box:
        return road.settings.box, pixel
    return friendly_size(_BOX_DIAMETERS * road.settings.particle_diameter / pixel), pixel


def _extract_2d(road: SpaRoad) -> dict[str, Any]:
    box, pixel = _box(road)
    diameter = road.settings.particle_diameter
    if not road.settings.box:
        why = f"1.5 x {diameter:g} A at {pixel:g} A, the next size that FFTs like"
        road.decide("extract-2d", "box", f"{box} px", why)
    rescale = min(box, friendly_size(box * pixel / max(pixel, _PIXEL_2D)))
    binned = box * pixel / rescale
    road.decide(
        "extract-2d", "pixel size of the 2D classes", f"{binned:.2f} A", f"box {rescale}: quick, and fine enough"
    )
    return _extraction(road, box, rescale) | {"coordinates": road.file("pick", "autopick.star")}


def _extraction(road: SpaRoad, box: int, rescale: int) -> dict[str, Any]:
    background = 1.2 * road.settings.particle_diameter / _box(road)[1]
    return {
        "micrographs": road.file("ctf", "micrographs_ctf.star"),
        "box": box,
        "rescale": rescale,
        "bg_diameter": round(min(background, 0.95 * box), 1),
    }


def _classes(road: SpaRoad) -> dict[str, Any]:
    settings = road.settings
    n_particles = len(read_dataset(road.path("extract-2d", "particles.star")))
    n_classes = settings.n_classes
    if n_classes is None:
        n_classes = max(_FEWEST_CLASSES, min(_MOST_CLASSES, round(n_particles / _PARTICLES_PER_CLASS)))
        bounds = f"between {_FEWEST_CLASSES} and {_MOST_CLASSES}"
        why = f"{n_particles} particles, about {_PARTICLES_PER_CLASS} a class, {bounds}"
        road.decide("classes", "2D classes", n_classes, why)
    values = {
        "input": road.file("extract-2d", "particles.star"),
        "n_classes": n_classes,
        "particle_diameter": _mask_diameter(road),
    }
    return values | ({"iterations": settings.class2d_iterations} if settings.class2d_iterations else {})


def _mask_diameter(road: SpaRoad) -> float:
    """The circular mask of alignments: a tenth wider than the particle, and inside the box."""
    box, pixel = _box(road)
    return round(min(1.1 * road.settings.particle_diameter, 0.95 * box * pixel), 1)


def _initial_model(road: SpaRoad) -> dict[str, Any]:
    kept = len(read_dataset(road.path("select", "particles.star")))
    road.decide("select", "particles kept", kept, road.done["select"].summary or "by the classes' resolution and size")
    iterations = road.settings.initial_model_iterations
    values = {
        "input": road.file("select", "particles.star"),
        "symmetry": road.settings.symmetry,
        "particle_diameter": _mask_diameter(road),
    }
    return values | ({"iterations": iterations} if iterations else {})


def _extract_3d(road: SpaRoad) -> dict[str, Any]:
    box, pixel = _box(road)
    fine = _pixel_3d(road, pixel)
    rescale = min(box, friendly_size(box * pixel / fine))
    if rescale > road.settings.max_box:
        rescale = 2 * (road.settings.max_box // 2)
        road.decide("extract-3d", "refinement box", rescale, f"no more than --max-box {road.settings.max_box}")
    road.decide("extract-3d", "pixel size of the refinement", f"{box * pixel / rescale:.3f} A", f"box {rescale}")
    return _extraction(road, box, rescale) | {"particles": road.file("select", "particles.star"), "recenter": True}


def _pixel_3d(road: SpaRoad, pixel: float) -> float:
    """A pixel whose Nyquist lies well beyond the resolution to which the micrographs' Thon rings are seen."""
    if road.settings.pixel_size_3d:
        return max(pixel, road.settings.pixel_size_3d)
    rows = read_dataset(road.path("ctf", "micrographs_ctf.star")).rows
    if "ctf_resolution" not in rows:
        return pixel
    seen = float(np.median(rows["ctf_resolution"].astype(float)))
    wanted = _NYQUIST_MARGIN * seen / 2
    why = f"Thon rings are seen to {seen:.1f} A in half of the micrographs"
    road.decide("extract-3d", "pixel size wanted", f"{max(pixel, wanted):.2f} A", why)
    return max(pixel, wanted)


def _refine(road: SpaRoad) -> dict[str, Any]:
    # The initial model comes from these very particles, so its detail to here is theirs. Starting much lower, a
    # particle of high symmetry may settle on mirrored poses, which half-maps do not show.
    diameter = road.settings.particle_diameter
    start = round(max(_START_FINEST, _START_DIAMETERS * diameter))
    road.decide(
        "refine", "starting low-pass", f"{start} A", f"{_START_DIAMETERS} of {diameter:g} A, at least {_START_FINEST:g}"
    )
    return {
        "ini_high": float(start),
        "input": road.file("extract-3d", "particles.star"),
        "reference": road.file("initial-model", "initial_model.mrc"),
        "symmetry": road.settings.symmetry,
        "particle_diameter": _mask_diameter(road),
    }


def _postprocess(road: SpaRoad) -> dict[str, Any]:
    values = sharpen(road)
    if road.settings.mtf:
        values |= {"mtf": _absolute(road.settings.mtf), "mtf_pixel_size": str(road.settings.pixel_size)}
    return values


def _absolute(path: str | None) -> str:
    """A file that the user named from where they are."""
    return str((Path.cwd() / (path or "")).resolve())


STEPS: tuple[Step[SpaParameters], ...] = (
    Step("import", "import", "import the movies", _import),
    Step("motion", "motioncorr", "correct beam-induced motion", _motion),
    Step("ctf", "ctf", "fit the CTF", _ctf),
    Step("pick", "autopick", "pick particles", _pick),
    Step("extract-2d", "extract", "cut particles out, coarse", _extract_2d),
    Step("classes", "class2d", "classify in 2D", _classes),
    Step("select", "select", "choose the good classes", select_classes),
    Step("initial-model", "initial-model", "make an initial model", _initial_model),
    Step("extract-3d", "extract", "cut the chosen particles out, fine and centred", _extract_3d),
    Step("refine", "refine3d", "refine in 3D with independent halves", _refine),
    Step("mask", "mask", "make a solvent mask", make_mask),
    Step("postprocess", "postprocess", "sharpen, measure the resolution", _postprocess),
    Step("localres", "localres", "measure the resolution in each place", half_map_in_mask),
)
