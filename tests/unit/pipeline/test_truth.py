"""Results made from the truth by known errors: the figures must say just those errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.core.fourier import shift_phases
from vitreous.core.rotations import axis_angle_to_matrix, euler_to_matrix, matrix_to_euler, random_rotations
from vitreous.data.dataset import Dataset
from vitreous.data.motion import Motion
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.motion import MotionRecord, write_motion
from vitreous.io.mrc import write_image, write_map
from vitreous.io.relion import read_dataset, write_dataset, write_tables
from vitreous.pipeline.truth import Results, Sample, compare_with_truth

PIXEL, FIELD, N = 2.0, 256, 12
SAMPLE = Sample(60.0)


def table(**columns: object) -> Table:
    return Table({name: np.asarray(values) for name, values in columns.items()})


def optics(**more: float) -> Table:
    return table(optics_group=[1], optics_group_name=["o"], **{name: [value] for name, value in more.items()})


def blobs(rotation: torch.Tensor) -> Volume:
    """An asymmetric map turned by a rotation."""
    generator = torch.Generator().manual_seed(3)
    spread = torch.tensor([10.0, 9.0, 14.0])
    centres = (torch.randn(30, 3, generator=generator, dtype=torch.float64) * spread + 3.0) @ rotation.T
    axis = (torch.arange(40, dtype=torch.float64) - 20) * 3.0
    x, y, z = (torch.exp(-0.5 * ((axis[None] - centres[:, i, None]) / 4.0) ** 2) for i in range(3))
    return Volume(torch.einsum("nz,ny,nx->zyx", z, y, x).float(), 3.0)


@pytest.fixture
def truth(tmp_path: Path, generator: torch.Generator) -> Path:
    folder = tmp_path / "Simulate"
    rng = np.random.default_rng(2)
    names = [f"Simulate/movies/m{i}.tiff" for i in (1, 2)]
    grid = np.stack(np.meshgrid([40.0, 100.0, 160.0, 220.0], [5.0, 90.0, 170.0]), -1).reshape(-1, 2)
    places = np.concatenate([grid + rng.uniform(-4, 4, grid.shape) for _ in names])
    rot, tilt, psi = (angle.numpy() for angle in matrix_to_euler(random_rotations(2 * N, generator)))
    particles = table(
        micrograph_name=np.repeat(np.array(names, dtype=object), N), optics_group=np.ones(2 * N, dtype=int),
        coordinate_x=places[:, 0], coordinate_y=places[:, 1], rot=rot, tilt=tilt, psi=psi,
        origin_x=np.zeros(2 * N), origin_y=np.zeros(2 * N),
    )  # fmt: skip
    group = optics(micrograph_pixel_size=PIXEL, movie_pixel_size=PIXEL)
    write_dataset(folder / "truth_particles.star", Dataset("particles", group, particles))
    defocus = {"defocus_u": [12000.0, 15000.0], "defocus_v": [11500.0, 14900.0], "defocus_angle": [30.0, -80.0]}
    rows = table(micrograph_name=names, optics_group=[1, 1], **defocus)
    write_dataset(folder / "truth_micrographs.star", Dataset("micrographs", group, rows))
    frames = np.arange(1, 6)
    shifts = table(
        movie_name=np.repeat(np.array(names, dtype=object), 5), frame_number=np.tile(frames, 2),
        shift_x=np.tile(frames * 0.5 - 0.5, 2), shift_y=np.tile(frames * -0.2 + 0.2, 2),
    )  # fmt: skip
    model = table(
        movie_name=np.repeat(np.array(names, dtype=object), 36), motion_coefficient_index=np.tile(np.arange(36), 2),
        motion_coefficient=np.zeros(72),
    )  # fmt: skip
    write_tables(folder / "truth_motion.star", {"global_shift": shifts, "local_motion_model": model})
    write_map(folder / "truth.mrc", blobs(torch.eye(3, dtype=torch.float64)))
    return folder


def test_defocus(tmp_path: Path, truth: Path) -> None:
    found = table(
        micrograph_name=["MotionCorr/job002/m2.mrc", "MotionCorr/job002/m1.mrc"], optics_group=[1, 1],
        defocus_u=[15030.0, 12000.0], defocus_v=[14930.0, 11500.0], defocus_angle=[0.0, 34.0],
    )  # fmt: skip
    path = tmp_path / "micrographs_ctf.star"
    write_dataset(path, Dataset("micrographs", optics(micrograph_pixel_size=PIXEL), found))
    figures = compare_with_truth(tmp_path, truth, Results(ctf=path), SAMPLE)
    assert figures["defocus_rms_error_A"] == pytest.approx(np.sqrt(30.0**2 / 2))
    assert figures["astigmatism_rms_error_A"] == pytest.approx(0.0)
    assert figures["astigmatism_angle_worst_error_deg"] == pytest.approx(4.0)
    assert figures["n_ctf_missing"] == 0


def test_motion(tmp_path: Path, truth: Path) -> None:
    frames = np.arange(5.0)
    for stem, error in (("m1", 0.0), ("m2", 0.3)):
        track = np.stack([frames * 0.5 + error * (frames == 4), frames * -0.2], 1)
        motion = Motion((FIELD, FIELD), track, None)
        write_motion(tmp_path / f"{stem}.star", MotionRecord(motion, f"movies/{stem}.tiff", PIXEL))
    rows = table(micrograph_name=["m1.mrc", "m2.mrc"], micrograph_metadata=["m1.star", "m2.star"], optics_group=[1, 1])
    path = tmp_path / "corrected_micrographs.star"
    write_dataset(path, Dataset("micrographs", optics(micrograph_pixel_size=PIXEL), rows))
    figures = compare_with_truth(tmp_path, truth, Results(motion=path), SAMPLE)
    # One of five frames off by 0.3 px, the movie's mean taken off: sqrt(1/5 - 1/25) 0.3 in one of two movies.
    assert figures["motion_rms_error_px"] == pytest.approx(0.3 * np.sqrt((0.2 - 0.04) / 2))
    assert figures["motion_rms_error_A"] == pytest.approx(0.3 * PIXEL * np.sqrt((0.2 - 0.04) / 2))


def test_picks(tmp_path: Path, truth: Path) -> None:
    """One micrograph never reached the picker: its particles count as missed. 4 of 12 lie at the edge."""
    rows = read_dataset(truth / "truth_particles.star").rows
    x, y = rows["coordinate_x"][:N] + 1.5, rows["coordinate_y"][:N].copy()
    keep = np.arange(N) != 7
    picks = table(coordinate_x=np.append(x[keep], 130.0), coordinate_y=np.append(y[keep], 130.0))
    write_tables(tmp_path / "m1_autopick.star", {"": picks})
    write_image(tmp_path / "m1.mrc", np.zeros((FIELD, FIELD), np.float32), PIXEL)
    listing = table(micrograph_name=["m1.mrc"], coordinate_file=["m1_autopick.star"])
    write_tables(tmp_path / "autopick.star", {"coordinate_files": listing})
    figures = compare_with_truth(tmp_path, truth, Results(picks=tmp_path / "autopick.star"), SAMPLE)
    assert figures["n_picks"] == N
    assert figures["pick_precision"] == pytest.approx(11 / 12)
    assert figures["pick_recall"] == pytest.approx(11 / 24)
    assert figures["pick_recall_inside"] == pytest.approx(7 / 8)
    assert figures["pick_centre_rms_error_A"] == pytest.approx(3.0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_map_and_poses(tmp_path: Path, truth: Path, mirrored: bool) -> None:
    """A map turned, moved by one voxel in x and perhaps mirrored, with poses that are off by 3 degrees about it."""
    rows = read_dataset(truth / "truth_particles.star").rows
    flip = torch.diag(torch.tensor([1.0, 1.0, -1.0 if mirrored else 1.0], dtype=torch.float64))
    turn = axis_angle_to_matrix(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64), torch.tensor(50.0).double())
    to_map = flip @ turn  # truth's coordinates to the map's
    moved = torch.fft.irfftn(
        torch.fft.rfftn(blobs(to_map).density) * shift_phases((40, 40), torch.tensor([0.0, 1.0]))[None], s=(40,) * 3
    )
    write_map(tmp_path / "map.mrc", Volume(moved, 3.0))
    axes = (torch.from_numpy(rows[name]) for name in ("rot", "tilt", "psi"))
    true = euler_to_matrix(*axes)
    off = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.0]).double(), torch.tensor(3.0).double())
    found = off @ (flip @ true @ to_map.T)
    rot, tilt, psi = (angle.numpy() for angle in matrix_to_euler(found))
    # The map's centre is the truth's point -(1 voxel in x of the map): particles are found there.
    centre = true @ (to_map.T @ torch.tensor([-3.0, 0.0, 0.0]).double())
    particles = table(
        micrograph_name=[str(name).replace(".tiff", ".mrc") for name in rows["micrograph_name"]],
        optics_group=np.ones(2 * N, dtype=int),
        coordinate_x=rows["coordinate_x"] + 2.0, coordinate_y=rows["coordinate_y"],
        origin_x=2.0 * PIXEL - centre[:, 0].numpy(), origin_y=-centre[:, 1].numpy(), rot=rot, tilt=tilt, psi=psi,
    )  # fmt: skip
    write_dataset(tmp_path / "run_data.star", Dataset("particles", optics(micrograph_pixel_size=PIXEL), particles))
    results = Results(refined=tmp_path / "run_data.star", density=tmp_path / "map.mrc")
    figures = compare_with_truth(tmp_path, truth, results, SAMPLE)
    assert figures["hand"] == ("mirrored" if mirrored else "true")
    assert figures["truth_fsc05_resolution_A"] < 6.7
    assert figures["refined_recall"] == 1.0
    assert figures["pose_median_error_deg"] == pytest.approx(3.0, abs=0.4)
    assert figures["offset_median_error_A"] < 0.4


def test_truth_of_another_project(tmp_path: Path, truth: Path) -> None:
    rows = table(micrograph_name=["other.mrc"], optics_group=[1], defocus_u=[1e4], defocus_v=[1e4], defocus_angle=[0.0])
    path = tmp_path / "micrographs_ctf.star"
    write_dataset(path, Dataset("micrographs", optics(micrograph_pixel_size=PIXEL), rows))
    with pytest.raises(InputError, match="nothing about other"):
        compare_with_truth(tmp_path, truth, Results(ctf=path), SAMPLE)
    with pytest.raises(InputError, match="not there"):
        compare_with_truth(tmp_path, tmp_path / "nowhere", Results(ctf=path), SAMPLE)
