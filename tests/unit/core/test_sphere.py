from __future__ import annotations

import numpy as np
import pytest
import torch
from astropy_healpix import HEALPix

from vitreous.core import sphere


@pytest.mark.parametrize("order", [0, 1, 2, 3, 5])
def test_pixel_centres_are_healpix(order):
    longitude, latitude = HEALPix(nside=2**order, order="nested").healpix_to_lonlat(np.arange(12 * 4**order))
    ours_longitude, ours_colatitude = sphere.pixel_angles(order)
    assert np.allclose(ours_longitude.numpy(), longitude.deg, atol=1e-9)
    assert np.allclose(ours_colatitude.numpy(), 90 - latitude.deg, atol=1e-9)


def test_high_order_pixels():
    pixels = torch.tensor([0, 12345678901, 12 * 4**18 - 1])
    longitude, latitude = HEALPix(nside=2**18, order="nested").healpix_to_lonlat(pixels.numpy())
    ours_longitude, ours_colatitude = sphere.pixel_angles(18, pixels)
    assert np.allclose(ours_longitude.numpy(), longitude.deg, atol=1e-9)
    assert np.allclose(ours_colatitude.numpy(), 90 - latitude.deg, atol=1e-6)


def test_children_surround_their_parent():
    parents = torch.arange(sphere.n_pixels(3))
    mean = sphere.pixel_directions(4, sphere.child_pixels(parents).reshape(-1)).reshape(-1, 4, 3).mean(1)
    cosine = (mean / mean.norm(dim=1, keepdim=True) * sphere.pixel_directions(3)).sum(1)
    assert float(torch.rad2deg(torch.acos(cosine.clamp(max=1.0))).max()) < 1.5  # a pixel is 7.3 degrees wide


def test_order_out_of_range():
    with pytest.raises(ValueError, match="order"):
        sphere.n_pixels(30)
