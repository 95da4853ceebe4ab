"""Images bent by the lens, reconstructed by relion_reconstruct and by ours from the same files: both are straight."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.aberrations import beam_tilt_phase, even_phase, odd_phase
from vitreous.core.ctf import Defocus, Microscope, phase_aberration
from vitreous.core.fourier import to_real
from vitreous.core.fsc import fsc
from vitreous.core.rotations import matrix_to_euler, random_rotations
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_map, write_image
from vitreous.io.relion import write_dataset
from vitreous.job import Context
from vitreous.jobs.reconstruct import ReconstructJob, ReconstructParameters
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="relion is not installed"),
]
BOX, PIXEL, N = 64, 2.0, 300
SCOPE = Microscope(300.0, 2.7, 0.1)
ODD = [0.5, 1.5, 40.0, -60.0, 80.0, 30.0]
EVEN = [0.2, 3.0, 2.0, -4.0, 100.0, -50.0, 80.0, 40.0, -90.0]
MAGNIFICATION = np.array([[1.03, 0.02], [0.01, 0.97]])


def text(values):
    return np.array(["[" + ",".join(map(str, values)) + "]"], dtype=object)


CASES = {
    "tilt": {"beam_tilt_x": np.array([3.0]), "beam_tilt_y": np.array([-1.5])},
    "odd": {"odd_zernike": text(ODD)},
    "even": {"even_zernike": text(EVEN)},
    "magnification": {
        "magnification_xx": MAGNIFICATION[:1, 0],
        "magnification_xy": MAGNIFICATION[:1, 1],
        "magnification_yx": MAGNIFICATION[1:, 0],
        "magnification_yy": MAGNIFICATION[1:, 1],
    },
}


def density(generator):
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = (torch.rand(30, 3, generator=generator, dtype=torch.float64) - 0.5) * 28
    return sum(torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / (2 * 0.9**2)) for c in centres)


def bent_images(volume, rotations, defocus, case):
    """Coefficient k of an image: the specimen's at M k, through the CTF there, its phase turned by the odd terms."""
    coefficients = Coefficients.within(BOX, BOX // 2)
    matrix = torch.from_numpy(MAGNIFICATION if case == "magnification" else np.eye(2))
    there = (coefficients.coordinates[:, [1, 0]] @ matrix.T)[:, [1, 0]]
    ky, kx = (there / (BOX * PIXEL)).unbind(1)
    phase = phase_aberration(ky**2 + kx**2, torch.atan2(ky, kx), SCOPE, defocus)
    odd = torch.zeros_like(ky)
    if case == "even":
        phase = phase - even_phase(EVEN, ky, kx)
    if case == "tilt":
        odd = beam_tilt_phase((3.0, -1.5), SCOPE.cs, SCOPE.wavelength, ky, kx)
    if case == "odd":
        odd = odd_phase(ODD, ky, kx)
    images_ft = project(prepare_volume(volume.float()), rotations, there) * torch.sin(phase)
    images_ft = images_ft * torch.polar(torch.ones_like(odd), odd)
    return to_real(coefficients.scatter(images_ft.to(torch.complex64)), (BOX, BOX))


@pytest.mark.parametrize("case", list(CASES))
def test_bent_images_make_a_straight_map(case, tmp_path: Path, generator):
    volume, rotations = density(generator), random_rotations(N, generator)
    # near focus: what the CTF spreads stays in the box, as the box of real particles is chosen
    u = 3000 + 3000 * torch.rand(N, generator=generator, dtype=torch.float64)
    defocus = Defocus(u + 900, u, 0 * u + 50, 0 * u)
    write_image(tmp_path / "particles.mrcs", bent_images(volume, rotations, defocus, case), PIXEL)
    rot, tilt, psi = (a.numpy() for a in matrix_to_euler(rotations))
    rows = Table(
        {
            "image_name": np.array([f"{i + 1:06d}@particles.mrcs" for i in range(N)], dtype=object),
            **{"rot": rot, "tilt": tilt, "psi": psi, "origin_x": 0 * rot, "origin_y": 0 * rot},
            **{"defocus_u": defocus.u.numpy(), "defocus_v": defocus.v.numpy(), "defocus_angle": defocus.angle.numpy()},
            "optics_group": np.ones(N, dtype=np.int64),
        }
    )
    optics = Table(
        {
            **{"optics_group_name": np.array(["one"], dtype=object), "optics_group": np.array([1])},
            **{"voltage": np.array([300.0]), "cs": np.array([2.7]), "amplitude_contrast": np.array([0.1])},
            **{"pixel_size": np.array([PIXEL]), "box": np.array([BOX]), "image_dimensionality": np.array([2])},
        }
    )
    dataset = Dataset("particles", optics.with_columns(**CASES[case]), rows)
    write_dataset(tmp_path / "particles.star", dataset)
    write_dataset(tmp_path / "unaware.star", replace(dataset, optics=optics))
    command = ["relion_reconstruct", "--i", "particles.star", "--o", "theirs.mrc", "--ctf", "--skip_gridding"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    context = Context(tmp_path, tmp_path / "Reconstruct", torch.device("cpu"), 1, 1, 1 << 30)
    maps = {"theirs": read_map(tmp_path / "theirs.mrc").density}
    for name in ("particles", "unaware"):
        ReconstructJob().run(ReconstructParameters(input=f"{name}.star"), context)
        maps[name] = read_map(tmp_path / "Reconstruct" / "map.mrc").density
    truth = {name: fsc(one, volume.float())[1:27] for name, one in maps.items()}

    assert float(truth["theirs"].min()) > 0.99
    assert float(truth["particles"].min()) > 0.99
    assert float(truth["unaware"].min()) < 0.9
    assert float(fsc(maps["particles"], maps["theirs"])[1:27].min()) > 0.99
