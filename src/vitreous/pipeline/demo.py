"""The demonstration: simulate movies, take them down the whole road, compare what comes out with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitreous.core.errors import InputError
from vitreous.core.symmetry import canonical_name
from vitreous.job import JobParameters, parameter
from vitreous.pipeline import spa
from vitreous.pipeline.project import Project
from vitreous.pipeline.recipe import Hooks, Road, Step, follow
from vitreous.pipeline.spa import SpaParameters
from vitreous.pipeline.summary import road_figures

BUILT_IN = "ferritin"


class DemoParameters(JobParameters):
    """What `vitreous demo` takes."""

    model: str = parameter(BUILT_IN, help="atomic model (PDB or mmCIF), or 'ferritin': a cage built here, symmetry O")
    symmetry: str | None = parameter(None, help="its point group (default: O for ferritin, else C1)", aliases=("sym",))
    assembly: str = parameter("", help="biological assembly to build from the model (its name, often 1)", advanced=True)
    particle_diameter: float | None = parameter(None, help="diameter (default: the model's)", unit="A", gt=0)
    n_movies: int = parameter(10, help="movies to simulate", ge=1)
    particles: int = parameter(60, help="particles in each movie, at most", ge=1)
    size: int = parameter(1024, help="side of the movies", unit="px", ge=256)
    pixel_size: float = parameter(1.5, help="pixel size", unit="A", gt=0)
    frames: int = parameter(16, help="frames a movie", ge=2)
    dose: float = parameter(40.0, help="total dose", unit="e/A^2", gt=0)
    voltage: float = parameter(300.0, help="acceleration voltage", unit="kV", advanced=True, gt=0)
    n_classes: int | None = parameter(
        None, help="2D classes (default: by the number of particles)", aliases=("K",), gt=0
    )
    class2d_iterations: int | None = parameter(None, help="iterations of 2D classification", advanced=True, gt=0)
    initial_model_iterations: int | None = parameter(40, help="mini-batches of the initial model", advanced=True, ge=5)
    pixel_size_3d: float | None = parameter(
        1.8, help="pixel size of the refinement (none: what the data support)", unit="A", advanced=True, gt=0
    )


def run_demo(
    root: str | Path, settings: DemoParameters, hooks: Hooks | None = None
) -> tuple[Road[SpaParameters], Path]:
    """Simulate and process; returns the road and the simulation's directory. Goes on where an earlier run stopped."""
    hooks = hooks or Hooks()
    symmetry = canonical_name(settings.symmetry or ("O" if settings.model == BUILT_IN else "C1"))
    if settings.model != BUILT_IN and not Path(settings.model).is_file():
        raise InputError(f"--model {settings.model}", "there is no such file", f"Give a PDB or mmCIF, or '{BUILT_IN}'")
    project = Project(root).create()
    how = {name: getattr(settings, name) for name in JobParameters.model_fields}
    simulated = follow(SIMULATION, Road(project, settings), how, hooks).done["simulate"]
    diameter = settings.particle_diameter or float(simulated.metrics["particle_diameter_A"])
    road = Road(project, _spa_settings(settings, simulated.directory, diameter, symmetry))
    road.done["simulate"] = simulated
    road.decide(
        "simulate",
        "particle diameter",
        f"{diameter:.0f} A",
        "the model's" if not settings.particle_diameter else "given",
    )
    return follow(spa.STEPS, road, how, hooks), simulated.directory


def _simulate(road: Road[DemoParameters]) -> dict[str, Any]:
    settings = road.settings
    return {
        "model": settings.model if settings.model == BUILT_IN else str(Path(settings.model).resolve()),
        "assembly": settings.assembly,
        "n_movies": settings.n_movies,
        "particles": settings.particles,
        "size_x": settings.size,
        "size_y": settings.size,
        "pixel_size": settings.pixel_size,
        "frames": settings.frames,
        "dose": settings.dose,
        "voltage": settings.voltage,
    }


def _spa_settings(settings: DemoParameters, simulated: Path, diameter: float, symmetry: str) -> SpaParameters:
    defects = simulated / "defects.txt"
    shared = ("n_classes", "class2d_iterations", "initial_model_iterations", "pixel_size_3d", "pixel_size", "voltage")
    return SpaParameters(
        movies=str(simulated / "movies" / "*.tiff"),
        gain=str(simulated / "gain.mrc"),
        defects=str(defects) if defects.exists() and defects.read_text().strip() else None,
        dose=settings.dose / settings.frames,
        particle_diameter=round(diameter, 1),
        symmetry=symmetry,
        **{name: getattr(settings, name) for name in (*shared, *JobParameters.model_fields)},
    )


def demo_figures(road: Road[SpaParameters], simulated: Path, truth: dict[str, Any]) -> dict[str, Any]:
    """What summary.json holds: the run's own figures, and those that the truth says."""
    return {
        "model": road.done["simulate"].metrics.get("n_atoms"),
        "symmetry": road.settings.symmetry,
        "n_movies": road.done["simulate"].metrics.get("n_movies"),
        **road_figures(road),
        **truth,
    }


SIMULATION: tuple[Step[DemoParameters], ...] = (Step("simulate", "simulate-movies", "simulate movies", _simulate),)
