"""Simulate motion-corrected micrographs with all that is true about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import write_dataset
from vitreous.job import Context, Job, Outputs, parameter
from vitreous.jobs._simulation import (
    FieldParameters,
    FieldTruth,
    acquisition,
    crowd,
    draw_dirt,
    draw_focus,
    each,
    exposure_bytes,
    generators,
    load_sample,
    make_projector,
    micrograph_truth,
    optics_table,
    particle_truth,
    write_truth_map,
)
from vitreous.methods.simulation.exposure import Specimen, record_micrograph
from vitreous.methods.simulation.scene import random_scene

MICROGRAPHS_NODE = "MicrographGroupMetadata.star.relion"


class SimulateMicrographsParameters(FieldParameters):
    """What `simulate-micrographs` takes."""

    n_micrographs: int = parameter(8, help="micrographs to make", aliases=("n",), ge=1)
    dose_weighting: bool = parameter(True, help="signal as dose weighting leaves it (no: as a plain sum)")


class SimulateMicrographs(Job):
    """Micrographs of a specimen that stood still, on a perfect detector: electrons a pixel."""

    name = "simulate-micrographs"
    folder = "Simulate"
    relion_type = "vitreous.simulate.micrographs"
    help = "simulate micrographs of an atomic model, with their truth"
    Parameters = SimulateMicrographsParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write micrographs/*.mrc, micrographs.star and the truth_* files."""
        sample = load_sample(params, context)
        shape = (params.size_y, params.size_x)
        taken = acquisition(params, shape, 1, dose_weighting=params.dose_weighting)
        projector = make_projector(sample, params.pixel_size)
        filling = crowd(params, sample)

        def make(index: int) -> FieldTruth:
            path = context.directory / "micrographs" / f"micrograph_{index + 1:04d}.mrc"
            drawn, noise = generators(context.seed, index)
            focus = draw_focus(params, drawn)
            scene = random_scene(shape, params.pixel_size, filling, drawn)
            dirt = draw_dirt(params, context.seed, index)
            scene = scene if dirt is None else scene.without(dirt.covered)
            if not (context.resume and _is_whole(path, shape)):
                specimen = Specimen(projector, scene, focus, taken, noise)
                if dirt is not None:
                    specimen.contaminate(dirt, focus)
                write_image(path, record_micrograph(specimen, taken, noise), params.pixel_size)
            return FieldTruth(context.relative(path), scene, focus)

        memory = exposure_bytes(shape, 1)
        fields = list(each(make, params.n_micrographs, "simulating micrographs", context, memory))
        names = np.array([field.name for field in fields], dtype=object)
        rows = Table({"micrograph_name": names, "optics_group": np.ones(len(fields), dtype=np.int64)})
        optics = optics_table(params, micrograph_pixel_size=params.pixel_size)
        target = context.directory / "micrographs.star"
        write_dataset(target, Dataset("micrographs", optics, rows))
        truth = Dataset("micrographs", optics, micrograph_truth(fields))
        write_dataset(context.directory / "truth_micrographs.star", truth)
        particles = Dataset("particles", optics, particle_truth(fields))
        write_dataset(context.directory / "truth_particles.star", particles)
        write_truth_map(params, sample, context)
        return Outputs(
            nodes={context.relative(target): MICROGRAPHS_NODE},
            metrics={
                "n_micrographs": len(fields),
                "n_particles": len(particles),
                "n_atoms": len(sample.atoms),
                "particle_diameter_A": 2.0 * sample.radius,
            },
            summary=f"{len(fields)} micrographs with {len(particles)} particles of {2 * sample.radius:.0f} A",
        )


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    """Whether an earlier run wrote this micrograph and it reads back."""
    if not path.is_file():
        return False
    try:
        return read_image(path)[0].shape == shape
    except InputError:
        return False
