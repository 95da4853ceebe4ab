"""An iteration's files read back, as RELION 3.1 and as later versions lay them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.refinement_reading import data_of_optimiser, read_run
from vitreous.io.relion import write_tables

BOX, SHELLS = 8, 5


def _write(folder: Path, noise: dict[str, Table], groups: tuple[int, ...] = (1, 1, 1, 2)) -> Path:
    """A 3D classification in two classes of four particles in two groups, one optics group."""
    curve = np.arange(SHELLS) + 1.0
    general = {"rlnReferenceDimensionality": 3, "rlnOriginalImageSize": BOX, "rlnPixelSize": 2.0}
    one = {"class_distribution": [0.75, 0.25], "accuracy_rotations": [1.0, 1.0], "accuracy_translations": [0.5, 0.5]}
    blocks: dict[str, object] = {
        "model_general": general,
        "model_classes": Table({"reference_image": ["a.mrc", "b.mrc"], **one}),
        "model_groups": Table({"group_number": [1, 2], "rlnGroupNrParticles": [30, 10]}),
        **noise,
    }
    for k in (1, 2):
        curves = {"rlnSsnrMap": k * curve, "rlnReferenceSigma2": curve, "rlnReferenceTau2": 2 * curve}
        blocks[f"model_class_{k}"] = Table({**curves, "gold_standard_fsc": 0 * curve})
    write_tables(folder / "run_it002_model.star", blocks)  # type: ignore[arg-type]
    write_tables(folder / "run_it002_sampling.star", {"sampling_general": {"rlnOffsetRange": 6.0}})
    optics = Table({"optics_group": [1], "rlnImagePixelSize": [2.0], "voltage_kv": [300.0]})
    rows = Table({"optics_group": [1] * len(groups), "group_number": list(groups)})
    write_tables(folder / "data.star", {"optics": optics, "particles": rows})
    optimiser = {"rlnCurrentIteration": 2, "rlnExperimentalDataStarFile": "data.star"}
    optimiser |= {"rlnModelStarFile": "run_it002_model.star", "rlnOrientSamplingStarFile": "run_it002_sampling.star"}
    write_tables(folder / "run_it002_optimiser.star", {"optimiser_general": optimiser})
    return folder / "run_it002_optimiser.star"


def _noise(kind: str, *levels: float) -> dict[str, Table]:
    return {f"model_{kind}_{i}": Table({"rlnSigma2Noise": np.full(SHELLS, v)}) for i, v in enumerate(levels, 1)}


def test_what_is_there_in_our_units(tmp_path: Path) -> None:
    path = _write(tmp_path, _noise("optics_group", 3.0))
    run = read_run(path, tmp_path)
    (model,) = run.models
    assert (run.iteration, run.pixel_size, len(run.dataset)) == (2, 2.0, 4)
    assert data_of_optimiser(path, tmp_path) == str(tmp_path / "data.star")
    assert model.distribution.tolist() == [0.75, 0.25]
    np.testing.assert_allclose(model.noise, np.full((1, SHELLS), 3.0 * BOX**4))
    np.testing.assert_allclose(model.tau2[1], 2 * BOX**4 * (np.arange(SHELLS) + 1.0))
    np.testing.assert_allclose(model.ssnr[1], 2 * (np.arange(SHELLS) + 1.0))
    assert model.directions is None


def test_noise_by_micrograph_is_averaged_over_the_particles(tmp_path: Path) -> None:
    """3 of the 4 particles in the group of noise 1, one in that of 5: mean 2."""
    (model,) = read_run(_write(tmp_path, _noise("group", 1.0, 5.0)), tmp_path).models
    np.testing.assert_allclose(model.noise, np.full((1, SHELLS), 2.0 * BOX**4))


def test_noise_of_unknown_groups_is_that_of_the_whole_run(tmp_path: Path) -> None:
    """The model's own numbers, 30 and 10 particles, give the same mean."""
    (model,) = read_run(_write(tmp_path, _noise("group", 1.0, 5.0), groups=(7, 8)), tmp_path).models
    np.testing.assert_allclose(model.noise, np.full((1, SHELLS), 2.0 * BOX**4))


def test_shares_of_directions(tmp_path: Path) -> None:
    shares = {f"model_pdf_orient_class_{k}": Table({"rlnOrientationDistribution": [0.1 * k] * 12}) for k in (1, 2)}
    (model,) = read_run(_write(tmp_path, _noise("optics_group", 1.0) | shares), tmp_path).models
    np.testing.assert_allclose(model.directions, np.outer([0.1, 0.2], np.ones(12)))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path, _noise("optics_group", 1.0))
    (tmp_path / "run_it002_model.star").unlink()
    with pytest.raises(InputError, match=r"run_it002_model\.star, which is not there"):
        read_run(path, tmp_path)
