"""The match-template job: STAR and YAML input, all outputs, resume after kill -9, quarantine, errors, the library."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from vitreous.app.report.figures import match_template as match_figures
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.leopard import MAP_NAMES, RESULT_COLUMNS, read_results
from vitreous.io.mrc import read_image, write_image, write_map
from vitreous.io.relion import read_dataset, read_table, write_dataset
from vitreous.job import Context, Outputs
from vitreous.jobs.match_template import MatchTemplate, MatchTemplateParameters
from vitreous.matching import MatchTemplate as MatchTemplateSearch

PARTICLE = (60, 84, (40.0, 72.0, 90.0), 200.0)
SEARCH = {"psi_step": 30.0, "theta_step": 36.0, "defocus_range": 200.0, "defocus_step": 200.0, "threshold": 2.5}


@pytest.fixture
def project(tmp_path: Path, molecule: Any, lens: Any) -> Path:
    write_map(tmp_path / "template.mrc", Volume(molecule.volume().float(), lens.pixel_size))
    image = molecule.micrograph((130, 151), lens, [PARTICLE], snr=0.1)
    write_image(tmp_path / "a.mrc", image, lens.pixel_size)
    write_image(tmp_path / "flat.mrc", np.zeros((130, 151), np.float32), lens.pixel_size)
    optics = {"optics_group": [1], "optics_group_name": ["o"], "voltage": [300.0], "cs": [2.7]}
    optics |= {"amplitude_contrast": [0.07], "micrograph_pixel_size": [lens.pixel_size]}
    rows = {"micrograph_name": ["a.mrc", "flat.mrc"], "optics_group": np.ones(2, np.int64)}
    rows |= {"defocus_u": [6000.0] * 2, "defocus_v": [5800.0] * 2, "defocus_angle": [25.0] * 2}
    write_dataset(tmp_path / "mics.star", Dataset("micrographs", Table(optics), Table(rows)))
    return tmp_path


def run(project: Path, resume: bool = False, **values: Any) -> Outputs:
    directory = project / "MatchTemplate/job001"
    directory.mkdir(parents=True, exist_ok=True)
    params = MatchTemplateParameters(**values)
    return MatchTemplate().run(params, Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30, resume=resume))


def leopard_config(project: Path, **changes: Any) -> Path:
    """The YAML that Leopard-EM 1.3.0 documents, every section present."""
    names = MAP_NAMES.values()
    config: dict[str, Any] = {
        "template_volume_path": str(project / "template.mrc"),
        "micrograph_path": str(project / "a.mrc"),
        "match_template_result": {
            "allow_file_overwrite": True, **{f"{name}_path": str(project / f"out/{name}.mrc") for name in names},
        },
        "optics_group": {
            "label": "one", "voltage": 300.0, "pixel_size": 2.0, "defocus_u": 6000.0, "defocus_v": 5800.0,
            "astigmatism_angle": 25.0, "spherical_aberration": 2.7, "amplitude_contrast_ratio": 0.07,
            "phase_shift": 0.0, "ctf_B_factor": 0.0,
        },
        "defocus_search_config": {"enabled": True, "defocus_min": -200.0, "defocus_max": 200.0, "defocus_step": 200.0},
        "orientation_search_config": {
            "base_grid_method": "uniform", "psi_step": 30.0, "theta_step": 36.0, "symmetry": "C1",
        },
        "preprocessing_filters": {
            "whitening_filter": {"enabled": True, "do_power_spectrum": True, "max_freq": 0.5, "num_freq_bins": None},
            "bandpass_filter": {"enabled": False, "falloff": None, "high_freq_cutoff": None, "low_freq_cutoff": None},
        },
        "computational_config": {"gpu_ids": "cpu", "num_cpus": 1, "backend": "batched"},
    }  # fmt: skip
    path = project / "config.yaml"
    path.write_text(yaml.safe_dump({**config, **changes}, sort_keys=False))
    return path


def test_a_micrograph_from_star_to_hits(project: Path) -> None:
    outputs = run(project, micrographs="mics.star", template="template.mrc", **SEARCH)
    assert outputs.nodes["MatchTemplate/job001/matches.star"] == "MicrographCoordsGroup.star.relion.autopick"
    assert [item.item for item in outputs.quarantined] == ["flat.mrc"]
    folder = project / "MatchTemplate/job001"
    for name in MAP_NAMES.values():
        image, pixel_size = read_image(folder / f"a_{name}.mrc")
        assert image.shape == (130 - 47, 151 - 47) and image.dtype == np.float32 and pixel_size == 2.0
    table = read_results(folder / "results.csv")
    with (folder / "results.csv").open() as stream:
        assert next(csv.reader(stream)) == ["", *RESULT_COLUMNS, "p_value"]
    assert table["pos_y"][0] + 24 == table["pos_y_img"][0]
    assert table["pos_y_img_angstrom"][0] == 2 * table["pos_y_img"][0]
    best = int(np.argmax(table["mip"]))  # so small a search has no background to make z-scores of
    assert abs(table["pos_y_img"][best] - PARTICLE[0]) <= 1 and abs(table["pos_x_img"][best] - PARTICLE[1]) <= 1
    variance, _ = read_image(folder / "a_correlation_variance.mrc")
    mean, _ = read_image(folder / "a_correlation_average.mrc")
    mip, _ = read_image(folder / "a_mip.mrc")
    score, _ = read_image(folder / "a_scaled_mip.mrc")
    np.testing.assert_allclose(score, (mip - mean) / np.sqrt(variance), atol=1e-3)
    hits = read_dataset(folder / "particles.star")
    assert hits.kind == "particles" and hits.rows["defocus_u"][0] == 6000.0 + table["relative_defocus"][0]
    listing = read_table(folder / "matches.star", "coordinate_files")
    picks = read_table(project / str(listing["coordinate_file"][0]))
    assert picks["coordinate_x"][0] == table["pos_x_img"][0]
    drawn = match_figures.figures(folder, project)
    assert drawn[0].png.startswith(b"\x89PNG")


def test_leopards_yaml_is_read_as_it_stands(project: Path) -> None:
    run(project, leopard_yaml=str(leopard_config(project)), threshold=2.5)
    from_yaml = read_results(project / "MatchTemplate/job001/results.csv")
    assert all((project / f"out/{name}.mrc").exists() for name in MAP_NAMES.values())
    run(project, micrographs="mics.star", template="template.mrc", corners=True, **SEARCH)
    from_star = read_results(project / "MatchTemplate/job001/results.csv")
    for name in ("pos_x", "pos_y", "phi", "theta", "psi", "relative_defocus"):
        np.testing.assert_array_equal(from_yaml[name], from_star[name])
    np.testing.assert_allclose(from_yaml["scaled_mip"], from_star["scaled_mip"], rtol=1e-5)


def test_the_library_runs_a_yaml(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = MatchTemplateSearch.from_yaml(leopard_config(project))
    with pytest.raises(RuntimeError, match="call run"):
        search.to_columns()
    search.run()
    columns = search.to_columns()
    assert list(columns) and set(RESULT_COLUMNS) <= set(columns)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        search.to_dataframe()


def test_phase_randomisation_is_applied(project: Path) -> None:
    """Leopard-EM 1.3.0 takes the section and never applies it."""
    filters = {"phase_randomization_filter": {"enabled": True, "cuton": 0.05}}
    run(project, leopard_yaml=str(leopard_config(project)))
    before, _ = read_image(project / "out/mip.mrc")
    run(project, leopard_yaml=str(leopard_config(project, preprocessing_filters=filters)))
    after, _ = read_image(project / "out/mip.mrc")
    assert after.max() < 0.6 * before.max()  # the particle is gone: its detail was in the phases


def test_bad_input_is_one_line(project: Path) -> None:
    good: dict[str, Any] = {"micrographs": "mics.star", "template": "template.mrc", **SEARCH}
    with pytest.raises(InputError, match="missing"):
        run(project, template="template.mrc")
    with pytest.raises(InputError, match="has no template_volume_path"):
        path = project / "bad.yaml"
        path.write_text("micrograph_path: a.mrc\n")
        run(project, leopard_yaml=str(path))
    with pytest.raises(InputError, match="random_fourier_dropout"):
        run(project, leopard_yaml=str(leopard_config(
            project, preprocessing_filters={"random_fourier_dropout": {"enabled": True}})))  # fmt: skip
    with pytest.raises(InputError, match="is no range"):
        run(project, **{**good, "phi_limits": [40.0, 20.0]})
    write_map(project / "odd.mrc", Volume(torch.rand(47, 47, 47), 2.0))
    with pytest.raises(InputError, match="odd box"):
        run(project, **{**good, "template": "odd.mrc"})
    write_map(project / "fine.mrc", Volume(torch.rand(48, 48, 48), 1.0))
    with pytest.raises(InputError, match="pixel size"):
        run(project, **{**good, "template": "fine.mrc"})


def test_existing_maps_are_not_overwritten_unless_allowed(project: Path) -> None:
    path = leopard_config(project)
    run(project, leopard_yaml=str(path))
    path.write_text(path.read_text().replace("allow_file_overwrite: true", "allow_file_overwrite: false"))
    with pytest.raises(InputError, match="exists"):
        run(project, leopard_yaml=str(path))


def shell(project: Path, *words: str, **options: str) -> subprocess.Popen[bytes]:
    """match-template as a program."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[3] / "src")
    command = [sys.executable, "-m", "vitreous", "match-template", "--cpu", *words]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_killed_and_resumed_is_never_killed(project: Path, molecule: Any, lens: Any) -> None:
    """kill -9 in the second micrograph; --continue leaves the first, takes up a checkpoint, ends with the same bits."""
    image = molecule.micrograph((130, 151), lens, [PARTICLE], snr=0.1, seed=2)
    write_image(project / "b.mrc", image, lens.pixel_size)
    listed = read_dataset(project / "mics.star")
    names = np.array(["a.mrc", "b.mrc"], dtype=object)
    write_dataset(
        project / "two.star", Dataset("micrographs", listed.optics, Table({**listed.rows, "micrograph_name": names}))
    )
    options = {
        "micrographs": "two.star", "template": "template.mrc", "psi_step": "9", "theta_step": "15",
        "defocus_range": "400", "checkpoint_interval": "0", "threads": "1", "max_memory": "0.4", "threshold": "4",
    }  # fmt: skip
    process = shell(project, "--o", "Match/killed", **options)
    folder = project / "Match/killed"
    deadline = time.monotonic() + 240.0
    while not (folder / "b_checkpoint.npz").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with np.load(folder / "b_checkpoint.npz") as saved:
        assert int(saved["next_block"]) >= 1
    assert not (folder / "b_mip.mrc").exists() and not (folder / "results.csv").exists()
    first = {path: path.stat().st_mtime_ns for path in folder.glob("a_*.mrc")}
    assert len(first) == 8
    for words in (["--o", "Match/killed", "--continue"], ["--o", "Match/whole"]):
        assert shell(project, *words, **options).wait() == 0
    assert {path: path.stat().st_mtime_ns for path in first} == first
    said = (folder / "run.log").read_text()
    assert "a.mrc was searched before" in said and "b.mrc: going on" in said
    for name in (f"{one}_{which}.mrc" for one in "ab" for which in MAP_NAMES.values()):
        resumed, whole = (read_image(project / f"Match/{job}/{name}")[0] for job in ("killed", "whole"))
        np.testing.assert_array_equal(resumed, whole, err_msg=name)
    hits, other = (read_results(project / f"Match/{job}/results.csv") for job in ("killed", "whole"))
    assert set(hits["micrograph_path"]) and all(
        np.array_equal(hits[name], other[name]) for name in hits if not name.endswith("path")
    )
    assert not list(folder.glob("*_checkpoint.npz"))


def test_only_the_very_same_search_is_not_done_again(project: Path) -> None:
    good: dict[str, Any] = {"micrographs": "mics.star", "template": "template.mrc", **SEARCH}
    path = project / "MatchTemplate/job001/a_mip.mrc"
    run(project, **good)
    before = path.stat().st_mtime_ns
    fewer = run(project, resume=True, **{**good, "threshold": 100.0})
    assert path.stat().st_mtime_ns == before and fewer.metrics["n_hits"] == 0  # hits are chosen anew
    run(project, resume=True, **{**good, "defocus_range": 0.0})
    assert path.stat().st_mtime_ns > before


def test_the_hierarchical_strategy_writes_the_same_files(project: Path) -> None:
    quick = {**SEARCH, "psi_step": 15.0, "theta_step": 18.0, "threshold": 0.5}
    run(project, micrographs="mics.star", template="template.mrc", strategy="hierarchical", **quick)
    folder = project / "MatchTemplate/job001"
    assert all((folder / f"a_{name}.mrc").exists() for name in MAP_NAMES.values())
    assert read_results(folder / "results.csv").n_rows > 0
    with pytest.raises(InputError, match="--robust: does not go with"):
        run(project, micrographs="mics.star", template="template.mrc", strategy="hierarchical", robust=True)
