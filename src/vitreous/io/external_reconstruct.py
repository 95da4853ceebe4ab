"""The files by which a program of the user's makes the maps: RELION 3.1's external reconstruction.

A STAR file names three MRC files with the sums (real and imaginary part of the data, and the weights: transforms on
the padded grid in FFT order, half along x) and the map that is to be written. RELION's transforms are divided by the
number of pixels of an image, ours are not: so are the sums on the way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Complex, Float

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import write_tables

_PARTS = ("data_real", "data_imag", "weight")


@dataclass(frozen=True)
class Request:
    """One map that is to be made.

    root: path without _external_reconstruct (run_it005_half1_class001). data, weight: sums of unnormalised
    transforms; tau2, fsc: by shell; max_shell: half the current size; pixel_size in A.
    """

    root: Path
    data: Complex[np.ndarray, "padded padded half"]
    weight: Float[np.ndarray, "padded padded half"]
    tau2: Float[np.ndarray, "n_shells"]
    fsc: Float[np.ndarray, "n_shells"]
    box: int
    max_shell: int
    padding: int
    tau2_fudge: float
    pixel_size: float

    def file(self, ending: str) -> Path:
        """ROOT_external_reconstruct + ending."""
        return self.root.with_name(f"{self.root.name}_external_reconstruct{ending}")


def write_request(request: Request, project: Path) -> Path:
    """Write the sums and, last, the STAR file that names them by their paths in the project; returns its path."""
    request.file(".mrc").unlink(missing_ok=True)  # an old result must not pass for the new one
    pixels = float(request.box) ** 2
    parts = (request.data.real * pixels, request.data.imag * pixels, request.weight * pixels**2)
    for part, values in zip(_PARTS, parts, strict=True):
        write_image(request.file(f"_{part}.mrc"), values.astype(np.float32), request.pixel_size)
    general = {
        "rlnExtReconsDataReal": _within(project, request.file("_data_real.mrc")),
        "rlnExtReconsDataImag": _within(project, request.file("_data_imag.mrc")),
        "rlnExtReconsWeight": _within(project, request.file("_weight.mrc")),
        "rlnExtReconsResult": _within(project, request.file(".mrc")),
        "rlnExtReconsResultStarfile": _within(project, request.file("_out.star")),
        "rlnTau2FudgeFactor": request.tau2_fudge,
        "rlnPaddingFactor": float(request.padding),
        "rlnReferenceDimensionality": 3,
        "rlnOriginalImageSize": request.box,
        "rlnCurrentImageSize": min(request.box, 2 * request.max_shell),
    }
    curves = Table(
        {
            "rlnSpectralIndex": np.arange(len(request.tau2)),
            "rlnReferenceTau2": request.tau2 / pixels**2,
            "gold_standard_fsc": request.fsc,
        }
    )
    star = request.file(".star")
    write_tables(star, {"external_reconstruct_general": general, "external_reconstruct_tau2": curves})
    return star


def read_result(request: Request, program: str) -> Float[torch.Tensor, "box box box"]:
    """The map that the program made. Raises InputError where there is none, or one of another box.

    The header's voxel size is not asked for: RELION's own program writes none.
    """
    path = request.file(".mrc")
    if not path.is_file():
        raise InputError(program, f"ended well but wrote no {path.name}", "It must write the map rlnExtReconsResult.")
    density, _ = read_image(path)
    if density.shape != (request.box,) * 3:
        size = " x ".join(str(side) for side in reversed(density.shape))
        raise InputError(path, f"is {size} voxels, not a cube of {request.box}", f"{program} must keep the box.")
    return torch.from_numpy(np.ascontiguousarray(density, dtype=np.float32))


def remove_sums(request: Request) -> None:
    """Delete the sums, which are many times larger than a map; STAR file and result stay."""
    for part in _PARTS:
        request.file(f"_{part}.mrc").unlink(missing_ok=True)


def _within(project: Path, path: Path) -> str:
    return str(path.resolve().relative_to(project.resolve()))
