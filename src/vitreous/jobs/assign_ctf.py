"""Give particles the CTF of the micrographs that they lie on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.job import Context, Job, JobParameters, Outputs, Quarantined, parameter

_COLUMNS = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "astigmatism",
    "phase_shift",
    "ctf_b_factor",
    "ctf_figure_of_merit",
    "ctf_resolution",
)
_NEEDED = _COLUMNS[:3]


class AssignCtfParameters(JobParameters):
    """What `assign-ctf` takes."""

    input: str = parameter(help="STAR file of particles", aliases=("i",))
    micrographs: str = parameter(
        help="STAR file of micrographs with their CTF (micrographs_ctf.star)", aliases=("ctf",)
    )


class AssignCtf(Job):
    """Join particles and micrographs by the micrograph's name; a newer fit replaces what the particles carry."""

    name = "assign-ctf"
    folder = "AssignCtf"
    relion_type = "relion.external"
    help = "give particles the CTF of their micrographs"
    Parameters = AssignCtfParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write particles.star; particles of micrographs without a fit are left out. Fails when none is left."""
        particles = read_dataset(context.project / params.input)
        micrographs = read_dataset(context.project / params.micrographs)
        _check(particles, micrographs, params)
        rows = match(particles.rows["micrograph_name"], micrographs.rows["micrograph_name"])
        found = rows >= 0
        if not found.any():
            raise InputError(
                context.project / params.micrographs,
                f"has none of the micrographs of {params.input}",
                "Both must name them alike",
            )
        kept = particles.take(found)
        new = {name: micrographs.rows[name][rows[found]] for name in _COLUMNS if name in micrographs.rows}
        stale = [name for name in _COLUMNS if name in kept.rows and name not in new and name not in _UNLESS_FITTED]
        result = Dataset("particles", kept.optics, kept.rows.without(*stale).with_columns(**new))
        output = context.directory / "particles.star"
        write_dataset(output, result)
        missing = _missing(particles, found)
        change = _change(kept, new["defocus_u"])
        return Outputs(
            nodes={context.relative(output): "ParticleGroupMetadata.star.relion"},
            metrics={"n_particles": len(result), "n_left_out": int((~found).sum()), "defocus_change_A": change},
            quarantined=missing,
            summary=f"{len(result)} particles; their defocus changed by {change:.0f} A (median)",
        )


# A particle's own phase shift and B factor stay where the micrographs say nothing of them.
_UNLESS_FITTED = frozenset({"phase_shift", "ctf_b_factor"})


def match(names: Any, known: Any) -> Any:
    """For each name, its row in `known`: by full path, else by file stem where that is unique, else -1."""
    by_path = {str(name): row for row, name in enumerate(known)}
    by_stem: dict[str, int] = {}
    for row, name in enumerate(known):
        stem = Path(str(name)).stem
        by_stem[stem] = -1 if stem in by_stem else row
    unique, inverse = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    found = np.array([by_path.get(name, by_stem.get(Path(name).stem, -1)) for name in unique], dtype=np.int64)
    return found[inverse]


def _check(particles: Dataset, micrographs: Dataset, params: AssignCtfParameters) -> None:
    if "micrograph_name" not in particles.rows or not len(particles):
        raise InputError(params.input, "its particles do not say which micrograph they lie on", "Extract them anew")
    missing = [name for name in _NEEDED if name not in micrographs.rows]
    if "micrograph_name" not in micrographs.rows or missing:
        raise InputError(
            params.micrographs, "holds no micrographs with a CTF", "Give the ctf job's micrographs_ctf.star"
        )


def _missing(particles: Dataset, found: Any) -> list[Quarantined]:
    names, counts = np.unique(particles.rows["micrograph_name"][~found].astype(str), return_counts=True)
    return [
        Quarantined(str(name), f"no CTF is known for it ({count} particles left out)")
        for name, count in zip(names, counts, strict=True)
    ]


def _change(kept: Dataset, defocus_u: Any) -> float:
    """Median change of the defocus in A; 0 where the particles had none."""
    if "defocus_u" not in kept.rows:
        return 0.0
    return float(np.median(np.abs(defocus_u.astype(float) - kept.rows["defocus_u"].astype(float))))
