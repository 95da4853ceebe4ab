"""mask, postprocess and localres on half-maps with a known signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from vitreous.app.report.figures import localres as localres_figures
from vitreous.app.report.figures import mask as mask_figures
from vitreous.app.report.figures import postprocess as postprocess_figures
from vitreous.core.errors import InputError
from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.core.masks import distance_grid
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map, write_map
from vitreous.io.relion import read_table
from vitreous.job import Context, Job
from vitreous.jobs.localres import Localres
from vitreous.jobs.mask import Mask
from vitreous.jobs.postprocess import Postprocess

BOX, VOXEL = 48, 2.0


@pytest.fixture
def project(tmp_path: Path, generator: torch.Generator) -> Path:
    """Half-maps of a textured ball, correlated to 8 A and pure noise beyond."""
    shape = (BOX, BOX, BOX)
    texture = torch.randn(*shape, generator=generator, dtype=torch.float64)
    particle = (1.0 + texture) * (distance_grid(BOX, 3) < 14)
    signal = 2.0 * to_real(to_fourier(particle, 3) * lowpass(shape, VOXEL, 8.0, edge=1.0), shape, 3)
    for half in (1, 2):
        noise = torch.randn(*shape, generator=generator, dtype=torch.float64)
        write_map(tmp_path / f"run_half{half}_class001_unfil.mrc", Volume((signal + 0.2 * noise).float(), VOXEL))
    return tmp_path


def run(job: type[Job], project: Path, **values: object) -> Path:
    directory = project / job.name
    directory.mkdir()
    params = job.Parameters(**values)
    outputs = job().run(params, Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30))
    assert outputs.summary
    assert all((project / node).is_file() for node in outputs.nodes)
    (directory / "job.yaml").write_text(yaml.safe_dump({"parameters": params.model_dump()}))
    return directory


def test_from_half_maps_to_a_sharpened_map_with_local_resolution(project: Path) -> None:
    half = "run_half1_class001_unfil.mrc"
    made = run(Mask, project, input=half)
    post = run(Postprocess, project, input=half, mask="mask/mask.mrc")
    general = read_table(post / "postprocess.star", "general").row(0)
    assert 7.0 < general["final_resolution"] < 9.0
    assert read_table(post / "postprocess.star", "fsc").n_rows == BOX // 2 + 1
    inside = read_map(made / "mask.mrc").density.numpy() > 0.5
    local = run(Localres, project, input=half, mask="mask/mask.mrc", sampling=16.0)
    resolution = read_map(local / "relion_locres.mrc").density.numpy()[inside]
    assert 6.0 < np.median(resolution) < 11.0
    for module, directory in ((mask_figures, made), (postprocess_figures, post), (localres_figures, local)):
        for figure in module.figures(directory, project):
            assert figure.png.startswith(b"\x89PNG")


def test_a_mask_of_another_box_is_one_clear_line(project: Path) -> None:
    write_map(project / "small.mrc", Volume(torch.ones(16, 16, 16), VOXEL))
    with pytest.raises(InputError, match=r"small\.mrc.*box 16"):
        run(Postprocess, project, input="run_half1_class001_unfil.mrc", mask="small.mrc")


def test_a_threshold_above_everything_says_so(project: Path) -> None:
    with pytest.raises(InputError, match=r"no voxel lies above.*--threshold"):
        run(Mask, project, input="run_half1_class001_unfil.mrc", threshold=1e9)
