from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from vitreous.core.errors import InputError
from vitreous.core.rotations import euler_to_matrix
from vitreous.data.motion import Motion
from vitreous.io.defects import read_defects
from vitreous.io.gain import read_gain
from vitreous.io.movies import open_movie
from vitreous.io.mrc import read_image, read_map
from vitreous.io.relion import read_dataset, read_tables
from vitreous.io.stacks import ParticleStack
from vitreous.job import Context, Job, Outputs, find
from vitreous.methods.simulation.ferritin import ferritin
from vitreous.methods.simulation.potential import Projector

SMALL = dict(pixel_size=3.0, size_x=272, size_y=256, particles=6, b_factor=20.0)


def run(name: str, project: Path, *, resume: bool = False, seed: int = 1, **parameters: object) -> Outputs:
    job: type[Job] = find(name)
    directory = project / "Simulate" / "job001"
    directory.mkdir(parents=True, exist_ok=True)
    context = Context(project, directory, torch.device("cpu"), 2, seed, 10**9, resume)
    return job().run(job.Parameters(**parameters), context)


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outputs]:
    project = tmp_path_factory.mktemp("movies")
    return project, run("simulate-movies", project, n_movies=3, frames=5, dose=30.0, **SMALL)


def test_movies_and_their_truth_fit_together(movies: tuple[Path, Outputs]) -> None:
    project, outputs = movies
    job = project / "Simulate/job001"
    listed = read_dataset(job / "movies.star")
    assert len(listed) == outputs.metrics["n_movies"] == 3
    particles = read_dataset(job / "truth_particles.star")
    assert len(particles) == outputs.metrics["n_particles"]
    micrographs = read_dataset(job / "truth_micrographs.star")
    tables = read_tables(job / "truth_motion.star")
    for row, name in enumerate(listed.rows["movie_name"]):
        movie = open_movie(project / name)
        assert movie.shape == (256, 272)
        assert movie.n_frames == 5
        assert movie.pixel_size == pytest.approx(3.0, rel=1e-3)
        mine = particles.rows["micrograph_name"] == name
        assert mine.sum() >= 4
        points = np.stack([particles.rows["coordinate_x"][mine], particles.rows["coordinate_y"][mine]], 1)
        assert pdist(points).min() * 3.0 > outputs.metrics["particle_diameter_A"]
        heights = particles.rows["defocus_u"][mine] - micrographs.rows["defocus_u"][row]
        assert np.abs(heights).max() <= 150
        assert (tables["global_shift"]["movie_name"] == name).sum() == 5
        assert (tables["local_motion_model"]["movie_name"] == name).sum() == 36


def test_gain_corrected_sum_along_the_true_motion_shows_the_particles(movies: tuple[Path, Outputs]) -> None:
    """Everything that is written, read back and put together: orientation of TIFF and gain, signs, coordinates."""
    project, _ = movies
    job = project / "Simulate/job001"
    name = str(read_dataset(job / "movies.star").rows["movie_name"][0])
    gain = read_gain(job / "gain.mrc")
    bad = read_defects(job / "defects.txt", gain.shape) | (gain == 0)
    frames = open_movie(project / name).frames(0, 5) * gain
    frames[:, bad | (frames.mean(0) > 5 * np.median(frames))] = np.median(frames)
    tables = read_tables(job / "truth_motion.star")
    shifts = tables["global_shift"]
    mine = shifts["movie_name"] == name
    motion = Motion(gain.shape, np.stack([shifts["shift_x"][mine], shifts["shift_y"][mine]], 1))
    # The shift is what brings a frame back onto the first.
    moved = [
        np.roll(f, np.rint(s[::-1]).astype(int), (0, 1)) for f, s in zip(frames, motion.global_shifts, strict=True)
    ]
    micrograph = np.mean(moved, axis=0)
    particles = read_dataset(job / "truth_particles.star").rows
    projector = Projector(ferritin(), 64, 3.0)
    scores = []
    for i in np.flatnonzero(particles["micrograph_name"] == name):
        angles = (torch.tensor([float(particles[a][i])], dtype=torch.float64) for a in ("rot", "tilt", "psi"))
        view = projector(euler_to_matrix(*angles))[0].numpy()
        x, y = round(particles["coordinate_x"][i]), round(particles["coordinate_y"][i])
        window = micrograph[y - 32 : y + 32, x - 32 : x + 32]
        far = (
            micrograph[y - 32 : y + 32, x - 8 : x + 56] if x + 56 < 272 else micrograph[y - 32 : y + 32, x - 56 : x + 8]
        )
        scores.append((np.corrcoef(window.ravel(), view.ravel())[0, 1], np.corrcoef(far.ravel(), view.ravel())[0, 1]))
    here, elsewhere = np.array(scores).T
    assert (here < -0.2).all()  # protein is dark
    assert (here < elsewhere - 0.1).all()


def names_of(job: str, project: Path) -> list[str]:
    module = importlib.import_module(f"vitreous.app.report.figures.{job}")
    drawn = module.figures(project / "Simulate/job001", project)
    assert all(figure.png.startswith(b"\x89PNG") and figure.caption for figure in drawn)
    return [figure.name for figure in drawn]


def test_figures_of_movies(movies: tuple[Path, Outputs]) -> None:
    assert names_of("simulate_movies", movies[0]) == ["micrograph", "motion", "views", "truth"]


def test_same_seed_same_bits_and_resume_makes_only_what_is_missing(
    movies: tuple[Path, Outputs], tmp_path: Path
) -> None:
    project, _ = movies
    first = sorted((project / "Simulate/job001/movies").iterdir())
    run("simulate-movies", tmp_path, n_movies=3, frames=5, dose=30.0, **SMALL)
    second = sorted((tmp_path / "Simulate/job001/movies").iterdir())
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    truth = (tmp_path / "Simulate/job001/truth_particles.star").read_bytes()
    second[0].unlink()
    second[1].write_bytes(
        second[1].read_bytes()[:1000]
    )  # killed while writing, by a program that does not do it atomically
    kept = second[2].stat().st_mtime_ns
    run("simulate-movies", tmp_path, resume=True, n_movies=3, frames=5, dose=30.0, **SMALL)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert second[2].stat().st_mtime_ns == kept
    assert (tmp_path / "Simulate/job001/truth_particles.star").read_bytes() == truth


def test_another_seed_gives_other_particles(movies: tuple[Path, Outputs], tmp_path: Path) -> None:
    run("simulate-movies", tmp_path, seed=2, n_movies=1, frames=2, **SMALL)
    mine = read_dataset(tmp_path / "Simulate/job001/truth_particles.star").rows["rot"]
    theirs = read_dataset(movies[0] / "Simulate/job001/truth_particles.star").rows["rot"]
    assert not np.isin(mine, theirs).any()


def test_micrographs(tmp_path: Path) -> None:
    outputs = run("simulate-micrographs", tmp_path, n_micrographs=2, dose=20.0, **SMALL)
    job = tmp_path / "Simulate/job001"
    listed = read_dataset(job / "micrographs.star")
    assert listed.kind == "micrographs"
    image, pixel_size = read_image(tmp_path / listed.rows["micrograph_name"][1])
    assert image.shape == (256, 272)
    assert pixel_size == pytest.approx(3.0)
    assert image.mean() == pytest.approx(20.0 * 9.0, rel=0.02)
    assert len(read_dataset(job / "truth_particles.star")) == outputs.metrics["n_particles"]
    assert outputs.nodes == {"Simulate/job001/micrographs.star": "MicrographGroupMetadata.star.relion"}
    assert names_of("simulate_micrographs", tmp_path) == ["micrograph", "views", "truth"]


def test_particles_without_noise_are_the_projected_truth(tmp_path: Path) -> None:
    parameters = dict(n_particles=6, per_micrograph=4, pixel_size=3.0, noise=False, box=64, offset=3.0)
    run("simulate-particles", tmp_path, **parameters)
    job = tmp_path / "Simulate/job001"
    dataset = read_dataset(job / "particles.star")
    assert "rot" not in dataset.rows
    truth = read_dataset(job / "truth_particles.star").rows
    stack = ParticleStack(dataset, tmp_path)
    images = stack[np.arange(6)]
    assert images.shape == (6, 64, 64)
    assert len(np.unique(truth["defocus_u"])) == 2
    density = read_map(job / "truth.mrc")
    assert density.voxel_size == pytest.approx(3.0)
    # RELION: the origin brings the particle to the centre, so it lies at minus the origin. Protein is white.
    rotations = euler_to_matrix(*(torch.from_numpy(truth[name]) for name in ("rot", "tilt", "psi")))
    origins = torch.from_numpy(np.stack([truth["origin_x"], truth["origin_y"]], 1)) / 3.0
    projector = Projector(ferritin(), 64, 3.0)
    right, wrong = (
        [
            np.corrcoef(image.ravel(), view.ravel())[0, 1]
            for image, view in zip(images.numpy(), projector(rotations, sign * origins).numpy(), strict=True)
        ]
        for sign in (-1.0, 1.0)
    )
    assert min(right) > 0.6
    assert (np.array(right) > wrong).all()


def test_noisy_particles_resume(tmp_path: Path) -> None:
    parameters = dict(n_particles=5, per_micrograph=3, pixel_size=4.0, box=48)
    run("simulate-particles", tmp_path, **parameters)
    stacks = sorted((tmp_path / "Simulate/job001/Particles").iterdir())
    before = [p.read_bytes() for p in stacks]
    stacks[1].unlink()
    run("simulate-particles", tmp_path, resume=True, **parameters)
    assert [p.read_bytes() for p in stacks] == before
    assert names_of("simulate_particles", tmp_path) == ["gallery", "views", "truth"]


def test_faults_are_the_users(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="defocus"):
        run("simulate-movies", tmp_path, defocus_min=20000, defocus_max=10000)
    with pytest.raises(InputError, match="not there"):
        run("simulate-micrographs", tmp_path, model="missing.pdb")
    with pytest.raises(InputError, match="even"):
        run("simulate-particles", tmp_path, box=33)


@pytest.mark.data
@pytest.mark.parametrize(
    ("model", "n_atoms"), [("6z6u_apoferritin.pdb.gz", 30_000), ("1xnr_30S_subunit.cif.gz", 25_000)]
)
def test_real_models(tmp_path: Path, data_dir: Path, model: str, n_atoms: int) -> None:
    path = str(data_dir / "models" / model)
    outputs = run("simulate-particles", tmp_path, model=path, n_particles=2, pixel_size=4.0, noise=False)
    assert outputs.metrics["n_atoms"] > n_atoms
    density = read_map(tmp_path / "Simulate/job001/truth.mrc").density
    # Protein and RNA stand out of the ice by a few volts on average, and nothing reaches the border of the box.
    assert density[density > 1.0].mean() > 2.0
    assert density[:2].abs().max() < 0.02 * density.max()
