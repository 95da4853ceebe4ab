"""A program of the user's in the place of the reconstruction: what it is given, what comes back, what goes wrong."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.core.rotations import random_rotations
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_image, read_map, write_map
from vitreous.io.relion import read_tables
from vitreous.job import Context
from vitreous.jobs._external_reconstruct import VARIABLE, external_regulariser
from vitreous.kernels.backproject import backproject, empty_volume
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.reconstruct import Reconstruction, complete, fourier_order, reconstruct
from vitreous.methods.refinement.regularise import Evidence

BOX, PIXEL = 16, 3.0
FIND = "result=$(awk '/rlnExtReconsResult / {print $2}' \"$1\")\n"


@pytest.fixture
def evidence(generator):
    """Noise in two halves of 200 slices."""
    halves = []
    for _ in range(2):
        rotations = random_rotations(200, generator)
        coefficients = Coefficients.within(BOX, 6)
        density = torch.randn(BOX, BOX, BOX, generator=generator)
        slices = project(prepare_volume(density, 2, 6), rotations, coefficients.coordinates)
        into = empty_volume(BOX, 2, 6)
        backproject(into, slices, torch.ones(slices.shape), rotations, coefficients.coordinates)
        halves.append(complete(into))
    curve = torch.linspace(1, 0, BOX // 2 + 1, dtype=torch.float64)
    maps = torch.stack([reconstruct(half) for half in halves])
    sums = (halves[0], halves[1])
    return Evidence(sums, (100 * curve, 200 * curve), (curve, curve), curve, maps, Reconstruction(1.5), iteration=7)


@pytest.fixture
def context(tmp_path):
    directory = tmp_path / "Refine3D" / "job001"
    directory.mkdir(parents=True)
    return Context(tmp_path, directory, torch.device("cpu"), 1, 1, 1 << 28)


def program(folder, body):
    path = folder / "program.sh"
    path.write_text("#!/bin/sh\n" + FIND + body)
    path.chmod(0o755)
    return str(path)


def test_what_the_program_is_given_and_what_comes_back(evidence, context, generator):
    answer = torch.randn(BOX, BOX, BOX, generator=generator)
    write_map(context.project / "answer.mrc", Volume(answer, PIXEL))
    keep = 'cp answer.mrc "$result"; for f in ${1%.star}_*.mrc; do cp $f kept_$(basename $f); done\n'
    results = external_regulariser(program(context.project, keep), context, PIXEL)(evidence)
    assert [torch.equal(one, answer) for one in results] == [True, True]
    for number, sums in enumerate(evidence.sums, 1):
        root = f"run_it007_half{number}_class001_external_reconstruct"
        tables = read_tables(context.directory / f"{root}.star")
        general, curves = tables["external_reconstruct_general"], tables["external_reconstruct_tau2"]
        assert general["rlnExtReconsResult"][0] == f"Refine3D/job001/{root}.mrc"
        assert general["rlnExtReconsDataReal"][0] == f"Refine3D/job001/{root}_data_real.mrc"
        assert (general["rlnOriginalImageSize"][0], general["rlnCurrentImageSize"][0]) == (BOX, 12)
        assert (general["rlnTau2FudgeFactor"][0], general["rlnPaddingFactor"][0]) == (1.5, 2.0)
        # RELION's transforms are divided by box^2: data by 1/box^-2, weights by 1/box^-4, powers by box^4
        assert np.allclose(curves["rlnReferenceTau2"], evidence.tau2[number - 1] / BOX**4, rtol=1e-5)
        assert np.allclose(curves["gold_standard_fsc"], evidence.curve)
        real, imaginary, weight = (
            read_image(context.project / f"kept_{root}_{part}.mrc")[0] for part in ("data_real", "data_imag", "weight")
        )
        data, weights = fourier_order(sums)
        assert real.shape == (2 * BOX, 2 * BOX, BOX + 1)
        assert np.allclose(real + 1j * imaginary, data.numpy() * BOX**2, rtol=1e-5)
        assert np.allclose(weight, weights.numpy() * BOX**4, rtol=1e-5)
        # they are large: none stays
        assert not list(context.directory.glob(f"{root}_*.mrc"))


def test_fourier_order_is_what_the_inverse_transform_wants(evidence):
    """Data over weights, transformed back as any program would, is our own map (before envelope and mask)."""
    sums = evidence.sums[0]
    data, weight = fourier_order(sums)
    squares = sum(
        axis.square()
        for axis in torch.meshgrid(
            *[torch.fft.fftfreq(2 * BOX) * BOX] * 2 + [torch.arange(BOX + 1) / 2.0], indexing="ij"
        )
    )
    inside = (weight > 0) & (torch.floor(squares.sqrt() + 0.5) <= 6)
    padded = torch.fft.irfftn(torch.where(inside, data / weight.clamp(min=1e-12), 0.0), s=(2 * BOX,) * 3)
    theirs = torch.fft.fftshift(padded)[BOX // 2 : -BOX // 2, BOX // 2 : -BOX // 2, BOX // 2 : -BOX // 2]
    middle = slice(BOX // 2 - 3, BOX // 2 + 4)
    ours = evidence.half_maps[0][middle, middle, middle]
    theirs = theirs[middle, middle, middle]
    assert float((ours * theirs).sum() / (ours.norm() * theirs.norm())) > 0.99


def test_the_whole_map_has_its_own_name(evidence, context):
    write_map(context.project / "answer.mrc", Volume(torch.ones(BOX, BOX, BOX), PIXEL))
    whole = replace(evidence, sums=evidence.sums[:1], tau2=evidence.tau2[:1], whole=True)
    results = external_regulariser(program(context.project, 'cp answer.mrc "$result"\n'), context, PIXEL)(whole)
    assert len(results) == 1
    assert (context.directory / "run_it007_class001_external_reconstruct.star").exists()


def test_both_halves_run_at_the_same_time(evidence, context):
    """Half 1 waits for what half 2 leaves, as SIDESPLITTER's script does: one after the other would never end."""
    write_map(context.project / "answer.mrc", Volume(torch.ones(BOX, BOX, BOX), PIXEL))
    wait = 'cp answer.mrc "$result"; touch done_$(basename $1)\n'
    wait += "for i in $(seq 50); do [ $(ls done_* | wc -l) = 2 ] && exit 0; sleep 0.1; done; exit 9\n"
    assert len(external_regulariser(program(context.project, wait), context, PIXEL)(evidence)) == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo no licence; exit 3\n", "exit code 3 on Refine3D/job001/run_it007_half1.*no licence"),
        ("true\n", "wrote no run_it007_half1_class001_external_reconstruct.mrc"),
        ('cp small.mrc "$result"\n', "12 x 12 x 12 voxels, not a cube of 16"),
        ('echo nonsense > "$result"\n', "external_reconstruct.mrc"),
    ],
)
def test_what_the_user_can_mend(evidence, context, body, message):
    write_map(context.project / "small.mrc", Volume(torch.ones(12, 12, 12), PIXEL))
    with pytest.raises(InputError, match=message) as raised:
        external_regulariser(program(context.project, body), context, PIXEL)(evidence)
    assert "\n" not in str(raised.value)


def test_a_program_that_is_not_there(evidence, context):
    with pytest.raises(InputError, match=r"no-such-program: cannot be run"):
        external_regulariser("no-such-program", context, PIXEL)(evidence)


def test_an_old_result_does_not_pass_for_the_new_one(evidence, context):
    old = context.directory / "run_it007_half1_class001_external_reconstruct.mrc"
    write_map(old, Volume(torch.ones(BOX, BOX, BOX), PIXEL))
    with pytest.raises(InputError, match="wrote no"):
        external_regulariser(program(context.project, "true\n"), context, PIXEL)(evidence)


def test_the_program_comes_from_relion_s_variable(evidence, context, monkeypatch):
    write_map(context.project / "answer.mrc", Volume(torch.ones(BOX, BOX, BOX), PIXEL))
    monkeypatch.setenv(VARIABLE, program(context.project, 'cp answer.mrc "$result"\n'))
    assert len(external_regulariser("", context, PIXEL)(evidence)) == 2
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv(
        "PATH", os.defpath if shutil.which("relion_external_reconstruct", path=os.defpath) is None else ""
    )
    with pytest.raises(InputError, match="relion_external_reconstruct"):
        external_regulariser("", context, PIXEL)(evidence)


def test_map_written_by_the_program_is_read_without_a_voxel_size(evidence, context):
    """RELION's own program writes none."""
    write_map(context.project / "answer.mrc", Volume(torch.ones(BOX, BOX, BOX), PIXEL))
    raw = bytearray((context.project / "answer.mrc").read_bytes())
    raw[40:52] = bytes(12)  # cella
    (context.project / "answer.mrc").write_bytes(raw)
    with pytest.raises(InputError, match="voxel size"):
        read_map(context.project / "answer.mrc")
    assert (
        len(external_regulariser(program(context.project, 'cp answer.mrc "$result"\n'), context, PIXEL)(evidence)) == 2
    )
