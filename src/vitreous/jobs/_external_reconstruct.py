"""A program of the user's as regulariser: sums out, command, map in."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from vitreous.io.external_reconstruct import Request, read_result, remove_sums, write_request
from vitreous.io.refinement_files import iteration_root
from vitreous.job import Context
from vitreous.methods.refinement.reconstruct import fourier_order
from vitreous.methods.refinement.regularise import Evidence, Regulariser
from vitreous.runtime.programs import command_of, run_together

VARIABLE = "RELION_EXTERNAL_RECONSTRUCT_EXECUTABLE"
DEFAULT = "relion_external_reconstruct"


def external_regulariser(given: str, context: Context, pixel_size: float) -> Regulariser:
    """Let the command `given` (else the environment's, else RELION's own) make the references.

    Both halves are asked for at the same time, as RELION's ranks do: some programs (SIDESPLITTER's script) wait in one
    call for what the other leaves.
    """
    command = command_of(given, VARIABLE, DEFAULT)

    def regularise(evidence: Evidence) -> list[torch.Tensor]:
        requests = [_request(evidence, index, context.directory, pixel_size) for index in range(len(evidence.sums))]
        stars = [context.relative(write_request(one, context.project)) for one in requests]
        run_together(command, stars, [one.file(".log") for one in requests], context.project)
        densities = [read_result(one, shlex.join(command)) for one in requests]
        for one in requests:
            remove_sums(one)
        return densities

    return regularise


def _request(evidence: Evidence, index: int, directory: Path, pixel_size: float) -> Request:
    sums = evidence.sums[index]
    data, weight = fourier_order(sums)
    root = iteration_root(directory, evidence.iteration, None if evidence.whole else index + 1)
    return Request(
        root=Path(f"{root}_class001"),
        data=data.numpy(),
        weight=weight.numpy(),
        tau2=evidence.tau2[index].numpy(),
        fsc=evidence.curve.numpy(),
        box=sums.box,
        max_shell=sums.max_radius,
        padding=sums.padding,
        tau2_fudge=evidence.how.tau2_fudge,
        pixel_size=pixel_size,
    )
