"""What the three simulation jobs share: parameters of sample and microscope, the model, the truth that is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from vitreous.core.ctf import Microscope
from vitreous.core.errors import InputError
from vitreous.core.rotations import matrix_to_euler
from vitreous.data.atoms import Atoms
from vitreous.data.table import Table
from vitreous.io.models import read_atoms
from vitreous.io.mrc import write_map
from vitreous.job import Context, JobParameters, parameter
from vitreous.methods.simulation.contamination import Dirt, DirtyField, scatter_dirt
from vitreous.methods.simulation.exposure import Acquisition
from vitreous.methods.simulation.ferritin import ferritin
from vitreous.methods.simulation.ice import Ice
from vitreous.methods.simulation.optics import Envelope, Focus
from vitreous.methods.simulation.potential import Projector, Scattering, potential_map, radius_of
from vitreous.methods.simulation.scene import Crowd, Scene
from vitreous.runtime.progress import track

BUILT_IN = "ferritin"
_BORDER = 12.0  # A around a projected particle: what the soft Fourier cut spreads
Result = TypeVar("Result")


class SampleParameters(JobParameters):
    """Sample and microscope: what every simulation takes."""

    model: str = parameter(
        BUILT_IN, help="atomic model (PDB or mmCIF), or 'ferritin': a 24-mer with symmetry O that needs no file"
    )
    assembly: str = parameter("", help="biological assembly to build from the model (its name, often 1)")
    pixel_size: float = parameter(1.5, help="pixel size", unit="A", aliases=("angpix",), gt=0)
    voltage: float = parameter(300.0, help="acceleration voltage", unit="kV", aliases=("kV",), ge=20, le=3000)
    cs: float = parameter(2.7, help="spherical aberration", unit="mm", aliases=("Cs",), ge=0)
    amplitude_contrast: float = parameter(0.1, help="fraction of amplitude contrast", aliases=("Q0",), ge=0, lt=1)
    dose: float = parameter(40.0, help="total exposure", unit="e/A^2", gt=0)
    pre_exposure: float = parameter(0.0, help="exposure before the first frame", unit="e/A^2", ge=0)
    damage: bool = parameter(True, help="let the signal fade with exposure, the fine detail first")
    defocus_min: float = parameter(8000.0, help="smallest underfocus", unit="A", gt=0)
    defocus_max: float = parameter(20000.0, help="largest underfocus", unit="A", gt=0)
    astigmatism: float = parameter(400.0, help="largest difference between the two defoci", unit="A", ge=0)
    phase_shift: float = parameter(0.0, help="phase shift of a phase plate", unit="deg", ge=0, le=180)
    b_factor: float = parameter(10.0, help="B factor of the imaging, beside the model's own", unit="A^2", ge=0)
    ice_thickness: float = parameter(250.0, help="thickness of the ice (0: no granular noise)", unit="A", ge=0)
    preferred_kappa: float = parameter(
        0.0, help="concentration of preferred orientation (von Mises-Fisher; 0: uniform)", ge=0
    )
    preferred_rot: float = parameter(0.0, help="preferred view: rot", unit="deg", advanced=True)
    preferred_tilt: float = parameter(0.0, help="preferred view: tilt", unit="deg", advanced=True)
    model_b_factor: float = parameter(0.0, help="added to the atoms' B factors", unit="A^2", advanced=True, ge=0)
    resolution: float = parameter(
        0.0, help="cut the potential at this resolution (0: Nyquist)", unit="A", advanced=True, ge=0
    )
    solvent: bool = parameter(True, help="take off the ice that the atoms displace", advanced=True)
    focal_spread: float = parameter(60.0, help="focal spread (1 sigma)", unit="A", advanced=True, ge=0)
    convergence: float = parameter(0.02, help="beam convergence half angle", unit="mrad", advanced=True, ge=0)
    truth_box: int = parameter(0, help="box of truth.mrc (0: 1.5 diameters)", unit="px", advanced=True, ge=0)


class FieldParameters(SampleParameters):
    """Fields of view full of particles: what micrographs and movies take besides."""

    size_x: int = parameter(1024, help="width", unit="px", ge=64)
    size_y: int = parameter(1024, help="height", unit="px", ge=64)
    particles: int = parameter(60, help="particles in each (fewer where they do not fit)", ge=0)
    min_distance: float = parameter(
        0.0, help="least distance of two centres (0: 1.1 diameters)", unit="A", advanced=True, ge=0
    )
    edge: float = parameter(
        0.0, help="least distance of a centre from the border (0: one diameter)", unit="A", advanced=True, ge=0
    )
    gold_beads: int = parameter(0, help="gold beads of 100 A in each", advanced=True, ge=0)
    ice_lumps: int = parameter(0, help="lumps of ice, 80 to 400 A across, in each", advanced=True, ge=0)
    carbon: float = parameter(0.0, help="share of the field that is carbon film", advanced=True, ge=0, le=0.9)


@dataclass(frozen=True)
class Sample:
    """The model with what follows from it: scattering settings, radius in A."""

    atoms: Atoms
    scattering: Scattering
    radius: float


@dataclass(frozen=True)
class FieldTruth:
    """What is known of one field of view. name: its file, relative to the project."""

    name: str
    scene: Scene
    focus: Focus


def load_sample(params: SampleParameters, context: Context) -> Sample:
    """Read or build the model, centred. Raises InputError for faults of model or defocus range."""
    if params.defocus_min > params.defocus_max:
        raise InputError("--defocus-min", "is larger than --defocus-max", "Exchange them.")
    if params.model == BUILT_IN:
        atoms = ferritin()
    else:
        atoms = read_atoms(context.project / params.model, assembly=params.assembly or None).centred()
    scattering = Scattering(solvent=params.solvent, b_factor=params.model_b_factor, resolution=params.resolution)
    return Sample(atoms, scattering, radius_of(atoms))


def make_projector(sample: Sample, pixel_size: float, margin_px: float = 0.0) -> Projector:
    """Projections of the model, in a box with a margin for offsets from its centre.

    Raises InputError where the model holds elements without form factors.
    """
    box = even(2.0 * ((sample.radius + _BORDER) / pixel_size + margin_px))
    try:
        return Projector(sample.atoms, box, pixel_size, sample.scattering)
    except ValueError as error:
        raise InputError("--model", str(error), "Remove these atoms from the model.") from error


def even(size: float) -> int:
    """The next multiple of 8 pixels: transforms are quick."""
    return int(-(-size // 8)) * 8


def acquisition(
    params: SampleParameters, shape: tuple[int, int], n_frames: int, *, dose_weighting: bool = True
) -> Acquisition:
    """Microscope and dose as the methods want them."""
    return Acquisition(
        shape,
        params.pixel_size,
        Microscope(params.voltage, params.cs, params.amplitude_contrast),
        dose=params.dose,
        n_frames=n_frames,
        pre_exposure=params.pre_exposure,
        envelope=Envelope(params.b_factor, params.focal_spread, params.convergence),
        ice=Ice(params.ice_thickness),
        damage=params.damage,
        dose_weighting=dose_weighting,
    )


def crowd(params: FieldParameters, sample: Sample) -> Crowd:
    """How the fields of view are filled."""
    diameter = 2.0 * sample.radius
    return Crowd(
        params.particles,
        params.min_distance or 1.1 * diameter,
        params.edge or diameter,
        ice_thickness=params.ice_thickness,
        diameter=diameter,
        preferred=(params.preferred_rot, params.preferred_tilt),
        kappa=params.preferred_kappa,
    )


def generators(seed: int, item: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Independent streams of one item: for what is drawn (the truth), and for its noise.

    They depend on seed and item alone, so an interrupted run goes on with the same bits.
    """
    drawn, noise = np.random.SeedSequence(seed, spawn_key=(1, item)).spawn(2)
    return np.random.default_rng(drawn), np.random.default_rng(noise)


def draw_dirt(params: FieldParameters, seed: int, item: int) -> DirtyField | None:
    """Gold, ice and carbon of one field of view, from a stream of their own; None where there are none."""
    dirt = Dirt(params.gold_beads, params.ice_lumps, params.carbon)
    if not dirt:
        return None
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, item)))
    return scatter_dirt((params.size_y, params.size_x), params.pixel_size, dirt, rng)


def draw_focus(params: SampleParameters, rng: np.random.Generator) -> Focus:
    """Defocus of one micrograph: uniform in its range, astigmatism up to its limit in any direction."""
    mean = rng.uniform(params.defocus_min, params.defocus_max)
    half = 0.5 * rng.uniform(0.0, params.astigmatism)
    return Focus(mean + half, mean - half, rng.uniform(-90.0, 90.0), params.phase_shift)


def each(work: Callable[[int], Result], count: int, what: str, context: Context, bytes_each: float) -> Iterator[Result]:
    """work(0) .. work(count - 1) in order, as many at once as threads and memory allow.

    Threads are enough: the kernels, transforms and random numbers all let go of the interpreter.
    """
    workers = max(1, min(context.threads, count, int(context.memory // max(bytes_each, 1.0))))
    pool = ThreadPoolExecutor(workers)
    try:
        yield from track(pool.map(work, range(count)), what, total=count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def exposure_bytes(shape: tuple[int, int], n_frames: int) -> float:
    """Memory (bytes) that one field of view takes while it is rendered."""
    pixels = (shape[0] + 128.0) * (shape[1] + 128.0)
    return 60.0 * pixels + 4.0 * n_frames * shape[0] * shape[1]


def write_truth_map(params: SampleParameters, sample: Sample, context: Context) -> str:
    """truth.mrc: the potential (V) at the pixel size, without CTF; its path relative to the project."""
    target = context.directory / "truth.mrc"
    box = params.truth_box or even(3.0 * sample.radius / params.pixel_size)
    if not (context.resume and target.is_file()):
        write_map(target, potential_map(sample.atoms, box, params.pixel_size, sample.scattering))
    return context.relative(target)


def optics_table(params: SampleParameters, **more: Any) -> Table:
    """One optics group."""
    return Table(
        {
            "optics_group_name": ["opticsGroup1"],
            "optics_group": [1],
            "movie_pixel_size": [params.pixel_size],
            "voltage": [params.voltage],
            "cs": [params.cs],
            "amplitude_contrast": [params.amplitude_contrast],
            **{name: [value] for name, value in more.items()},
        }
    )


def focus_columns(foci: Iterable[Focus]) -> dict[str, np.ndarray]:
    """Defocus columns, one row a focus."""
    rows = list(foci)
    return {
        "defocus_u": np.array([focus.u for focus in rows]),
        "defocus_v": np.array([focus.v for focus in rows]),
        "defocus_angle": np.array([focus.angle for focus in rows]),
        "phase_shift": np.array([focus.phase_shift for focus in rows]),
    }


def pose_columns(rotations: Any) -> dict[str, np.ndarray]:
    """rot, tilt and psi of rotations (n, 3, 3)."""
    angles = (angle.numpy() for angle in matrix_to_euler(rotations))
    return dict(zip(("rot", "tilt", "psi"), angles, strict=True))


def particle_truth(fields: list[FieldTruth]) -> Table:
    """Truth of all particles: where they are (pixels of the first frame), pose, defocus at their height."""
    tables = []
    for field in fields:
        n = len(field.scene)
        columns = {
            "micrograph_name": np.full(n, field.name, dtype=object),
            "coordinate_x": field.scene.coordinates[:, 0],
            "coordinate_y": field.scene.coordinates[:, 1],
            **pose_columns(field.scene.rotations),
            "origin_x": np.zeros(n),
            "origin_y": np.zeros(n),
            **focus_columns(field.focus.raised(float(height)) for height in field.scene.heights),
            "class_number": np.ones(n, dtype=np.int64),
            "optics_group": np.ones(n, dtype=np.int64),
        }
        tables.append(Table(columns))
    table = Table.concatenate(tables)
    return table.with_columns(half_set=1 + np.arange(table.n_rows) % 2)


def micrograph_truth(fields: list[FieldTruth]) -> Table:
    """Truth of all micrographs: the defocus of their middle plane."""
    return Table(
        {
            "micrograph_name": np.array([field.name for field in fields], dtype=object),
            **focus_columns(field.focus for field in fields),
            "astigmatism": np.array([field.focus.u - field.focus.v for field in fields]),
            "optics_group": np.ones(len(fields), dtype=np.int64),
        }
    )
