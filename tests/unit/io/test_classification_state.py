"""A 3D classification's files read back, as RELION 3.1 and as later versions lay them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.classification_state import read_classification
from vitreous.io.mrc import write_map
from vitreous.io.relion import write_tables

BOX, SHELLS = 8, 5


def _write(folder: Path, *, noise: dict[str, Table], dimensions: int = 3, halves: int = 0, iteration: int = 2) -> Path:
    curve = np.arange(SHELLS) + 1.0
    general = {"rlnReferenceDimensionality": dimensions, "rlnOriginalImageSize": BOX, "rlnCurrentResolution": 16.0}
    general |= {"rlnCurrentImageSize": 6, "rlnSigmaOffsetsAngst": 3.0, "rlnLogLikelihood": -7.0}
    blocks: dict[str, object] = {
        "model_general": general,
        "model_classes": Table({"reference_image": ["a.mrc", "b.mrc"], "class_distribution": [0.75, 0.25]}),
        "model_groups": Table({"group_number": [1, 2], "rlnGroupNrParticles": [30, 10]}),
        **noise,
    }
    for k in (1, 2):
        curves = {"rlnSsnrMap": k * curve, "rlnReferenceSigma2": curve, "rlnReferenceTau2": 2 * curve}
        blocks[f"model_class_{k}"] = Table(curves)
        write_map(folder / f"{'ab'[k - 1]}.mrc", Volume(torch.full((BOX, BOX, BOX), float(k)), 2.0))
    write_tables(folder / "run_it002_model.star", blocks)  # type: ignore[arg-type]
    optimiser = {"rlnCurrentIteration": iteration, "rlnDoSplitRandomHalves": halves}
    optimiser |= {"rlnModelStarFile": "run_it002_model.star", "rlnExperimentalDataStarFile": "data.star"}
    optimiser |= {f"rlnChangesOptimal{name}": 0.5 for name in ("Classes", "Orientations", "Offsets")}
    write_tables(folder / "run_it002_optimiser.star", {"optimiser_general": optimiser})
    return folder / "run_it002_optimiser.star"


def _noise(kind: str, *levels: float) -> dict[str, Table]:
    return {f"model_{kind}_{i}": Table({"rlnSigma2Noise": np.full(SHELLS, v)}) for i, v in enumerate(levels, 1)}


def test_what_is_there_in_our_units(tmp_path: Path) -> None:
    files = read_classification(_write(tmp_path, noise=_noise("optics_group", 1.0, 2.0)), tmp_path)
    assert (files.iteration, files.data, files.max_shell, files.resolution) == (2, "data.star", 3, 16.0)
    assert files.distribution.tolist() == [0.75, 0.25]
    np.testing.assert_allclose(files.noise, np.outer([1.0, 2.0], np.full(SHELLS, BOX**4)))
    np.testing.assert_allclose(files.tau2[1], 2 * BOX**4 * (np.arange(SHELLS) + 1.0))
    np.testing.assert_allclose(files.ssnr[1], 2 * (np.arange(SHELLS) + 1.0))
    assert [float(one.density.mean()) for one in files.maps] == [1.0, 2.0]
    assert files.directions is None


def test_noise_by_micrograph_is_averaged_by_particles(tmp_path: Path) -> None:
    files = read_classification(_write(tmp_path, noise=_noise("group", 1.0, 5.0)), tmp_path)
    np.testing.assert_allclose(files.noise, np.full((1, SHELLS), 2.0 * BOX**4))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"dimensions": 2}, "2D classes"), ({"halves": 1}, "in halves"), ({"iteration": 0}, "of no iteration yet")],
)
def test_what_is_no_3d_classification(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    path = _write(tmp_path, noise=_noise("group", 1.0, 1.0), **wrong)
    with pytest.raises(InputError, match=message):
        read_classification(path, tmp_path)
