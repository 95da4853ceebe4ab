"""Real beta-galactosidase (EMPIAR-10204): power spectra and particles of a RELION project, taken to a map in D2.

The project's own defocus is wrong (its CTF program was given clashing options): the spectra are fitted anew and the
particles get what the fit says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitreous.core.errors import InputError
from vitreous.data.graph import Process
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.io.relion_project import write_graph
from vitreous.job import JobParameters, parameter
from vitreous.pipeline.map_steps import half_map_in_mask, make_mask, select_classes, sharpen
from vitreous.pipeline.project import Project
from vitreous.pipeline.recipe import Hooks, Road, Step, follow

_FOLDER = "betagal_empiar10204"
_GIVEN = {
    "MotionCorr/job002": ("relion.motioncorr.own", "corrected_micrographs.star", "MicrographGroupMetadata.star.relion"),
    "Extract/job009": ("relion.extract", "particles.star", "ParticleGroupMetadata.star.relion"),
}
_MASK_DIAMETER = 200.0  # the tetramer is 180 A long
_SYMMETRY = "D2"
_MTF_PIXEL = 0.885


class BetagalParameters(JobParameters):
    """What `vitreous demo-real` takes."""

    data: str = parameter(help="directory of the real data (it holds betagal_empiar10204/)")
    n_classes: int = parameter(24, help="2D classes", aliases=("K",), gt=0)
    class2d_iterations: int | None = parameter(None, help="iterations of 2D classification", advanced=True, gt=0)
    initial_model_iterations: int | None = parameter(
        None, help="mini-batches of the initial model", advanced=True, ge=5
    )


BetagalRoad = Road[BetagalParameters]


def run_betagal(root: str | Path, settings: BetagalParameters, hooks: Hooks | None = None) -> BetagalRoad:
    """From the real power spectra and particles to a map; goes on where an earlier run stopped."""
    data = Path(settings.data).resolve() / _FOLDER
    if not data.is_dir():
        raise InputError(data, "is not there", "Give the directory of the real data: --data, or VITREOUS_DATA")
    project = Project(root).create()
    _bring_in(project, data)
    road = Road(project, settings)
    how = {name: getattr(settings, name) for name in JobParameters.model_fields}
    return follow(STEPS, road, how, hooks or Hooks())


def _bring_in(project: Project, data: Path) -> None:
    """Link the jobs of the old project that this one starts from, and enter them in the pipeline.

    The micrographs themselves are not there: those whose power spectrum is are listed in micrographs.star.
    """
    graph = project.graph()
    for place, (kind, file, node) in _GIVEN.items():
        link = project.root / place
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(data / place)
        if graph.find(place) is None:
            graph = graph.with_process(Process(f"{place}/", kind, "Succeeded"))
            graph = graph.with_outputs(f"{place}/", {f"{place}/{file}": node})
    write_graph(project.pipeline, graph)
    micrographs = read_dataset(project.root / "MotionCorr/job002/corrected_micrographs.star")
    there = [(project.root / str(name)).exists() for name in micrographs.rows["power_spectrum_name"]]
    write_dataset(project.root / "micrographs.star", micrographs.take(there))


def _ctf(road: BetagalRoad) -> dict[str, Any]:
    road.decide("ctf", "source of the CTF", "power spectra", "the micrographs are not there, their spectra are")
    return {"input": "micrographs.star", "use_power_spectra": True}


def _assign(road: BetagalRoad) -> dict[str, Any]:
    return {"input": "Extract/job009/particles.star", "micrographs": road.file("ctf", "micrographs_ctf.star")}


def _classes(road: BetagalRoad) -> dict[str, Any]:
    values = {
        "input": road.file("assign-ctf", "particles.star"),
        "n_classes": road.settings.n_classes,
        "particle_diameter": _MASK_DIAMETER,
    }
    iterations = road.settings.class2d_iterations
    return values | ({"iterations": iterations} if iterations else {})


def _initial_model(road: BetagalRoad) -> dict[str, Any]:
    road.decide("select", "particles kept", _kept(road), road.done["select"].summary)
    values = {
        "input": road.file("select", "particles.star"),
        "symmetry": _SYMMETRY,
        "particle_diameter": _MASK_DIAMETER,
    }
    iterations = road.settings.initial_model_iterations
    return values | ({"iterations": iterations} if iterations else {})


def _kept(road: BetagalRoad) -> int:
    return len(read_dataset(road.path("select", "particles.star")))


def _refine(road: BetagalRoad) -> dict[str, Any]:
    return {
        "input": road.file("select", "particles.star"),
        "reference": road.file("initial-model", "initial_model.mrc"),
        "symmetry": _SYMMETRY,
        "particle_diameter": _MASK_DIAMETER,
    }


def _postprocess(road: BetagalRoad) -> dict[str, Any]:
    mtf = Path(road.settings.data).resolve() / _FOLDER / "mtf_k2_200kV.star"
    return sharpen(road) | {"mtf": str(mtf), "mtf_pixel_size": _MTF_PIXEL}


STEPS: tuple[Step[BetagalParameters], ...] = (
    Step("ctf", "ctf", "fit the CTF of ten real power spectra", _ctf),
    Step("assign-ctf", "assign-ctf", "give the particles their true defocus", _assign),
    Step("classes", "class2d", "classify in 2D", _classes),
    Step("select", "select", "choose the good classes", select_classes),
    Step("initial-model", "initial-model", "make an initial model from nothing", _initial_model),
    Step("refine", "refine3d", "refine in D2 with independent halves", _refine),
    Step("mask", "mask", "make a solvent mask", make_mask),
    Step("postprocess", "postprocess", "sharpen, measure the resolution", _postprocess),
    Step("localres", "localres", "measure the resolution in each place", half_map_in_mask),
)
