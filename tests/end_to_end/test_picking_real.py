"""Picking on real micrographs in ../shared/data, and choosing classes of the real beta-galactosidase."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from vitreous.io.mrc import read_image
from vitreous.io.relion import read_table
from vitreous.methods.picking.pick import PickingRecipe, find_candidates
from vitreous.methods.picking.selection import choose_cuts

pytestmark = pytest.mark.data


def picks(image: np.ndarray, pixel_size: float, recipe: PickingRecipe) -> np.ndarray:
    micrograph = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    found = find_candidates(micrograph, pixel_size, recipe)
    return found.coordinates[choose_cuts([found.scores], found.noise)[0].keeps(found.scores)]


def test_nothing_is_picked_in_the_ice_crystal(data_dir: Path) -> None:
    folder = data_dir / "more/micrographs/ice_contaminated"
    image, _ = read_image(folder / "Ucsf_stack_1142_DW.mrc")
    mask, _ = read_image(folder / "mask_MicrographCleaner.mrc")
    labels, _ = ndimage.label(mask > 0.5)
    crystal = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    # Its pixel size is not known; RELION's picks there have a spacing of particles some 40 pixels across.
    places = picks(image, 4.0, PickingRecipe(150.0, 200.0)).astype(int)
    assert len(places) >= 5
    assert not crystal[places[:, 1], places[:, 0]].any()
    theirs = read_table(folder / "Ucsf_stack_1142_DW_autopick.star")
    x, y = theirs["coordinate_x"].astype(int), theirs["coordinate_y"].astype(int)
    assert crystal[y, x].sum() > 5  # where a picker without exclusion ends


def test_particles_of_a_real_micrograph_stand_dark_in_their_windows(data_dir: Path) -> None:
    """The 300 kV micrograph of mrcfile's test data: particles some 130 A across, faint but visible."""
    image, pixel_size = read_image(data_dir / "more/micrographs/fei-extended.mrc.gz")
    places = picks(image, pixel_size, PickingRecipe(100.0, 150.0))
    assert 80 <= len(places) <= 200
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 15.0)
    flat = smooth - ndimage.gaussian_filter(smooth, 150.0)
    at_picks = flat[places[:, 1].astype(int), places[:, 0].astype(int)]
    assert np.median(at_picks) < -1.5 * flat.std()


def test_picks_of_relion_are_read(data_dir: Path) -> None:
    job = data_dir / "betagal_empiar10204/AutoPick/job008"
    listing = read_table(job / "autopick.star", "coordinate_files")
    assert listing.n_rows == 10
    here = [f for f in listing["coordinate_file"] if (data_dir / "betagal_empiar10204" / f).is_file()]
    assert here
    for file in here:
        table = read_table(data_dir / "betagal_empiar10204" / file)
        assert {"coordinate_x", "coordinate_y", "pick_score"} <= set(table)
