from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.core.masks import soft_sphere
from vitreous.methods.maps.local_resolution import (
    Window,
    crossing_resolution,
    filter_locally,
    local_resolution,
    window_centres,
)


def two_halves(box: int, voxel: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Left of the middle the common signal reaches 6 A, right of it 15 A."""
    shape = (box,) * 3
    signal = 2 * torch.randn(shape, generator=generator)
    s_ft = to_fourier(signal, 3)
    sharp = to_real(s_ft * lowpass(shape, voxel, 6.0), shape, 3)
    blurred = to_real(s_ft * lowpass(shape, voxel, 15.0), shape, 3)
    common = torch.where(torch.arange(box) < box // 2, sharp, blurred)
    return tuple(common + torch.randn(shape, generator=generator) for _ in range(2))


def test_each_side_gets_its_own_resolution(generator):
    box, voxel = 64, 2.0
    half1, half2 = two_halves(box, voxel, generator)
    mask = soft_sphere(box, 26, ndim=3)
    window = Window(sampling=16.0, randomise_at=20.0, radius=16.0, edge=12.0)
    result = local_resolution(half1, half2, voxel, mask, 0.5 * (half1 + half2), window)
    left, right = result.resolution[32, 32, 16].item(), result.resolution[32, 32, 48].item()
    assert left == pytest.approx(6.0, abs=1.5)
    assert right == pytest.approx(15.0, abs=4.5)  # the window smears a spectrum over a shell or so, 15 -> 11 A
    # and the filtered map has no detail on the right
    detail = result.filtered - to_real(to_fourier(result.filtered, 3) * lowpass((box,) * 3, voxel, 11.0), (box,) * 3, 3)
    assert detail[20:44, 20:44, 44:56].std() < 0.4 * detail[20:44, 20:44, 8:20].std()


def test_windows_lie_on_a_grid_around_the_centre():
    mask = soft_sphere(32, 9, edge=0, ndim=3)
    centres = window_centres(mask, 8)
    assert [16, 16, 16] in centres.tolist()
    assert set(np.unique((centres - 16) % 8)) == {0}
    assert len(centres) == 7  # the centre and its six neighbours at 8; the next are at 11.3, outside


def test_crossing_is_read_between_shells():
    curves = torch.tensor([[1.0, 0.8, 0.243, 0.043, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    found = crossing_resolution(curves, 100.0)
    assert found[0].item() == pytest.approx(100 / 2.5)
    assert found[1].item() == pytest.approx(100 / 4)


def test_a_uniform_resolution_is_a_plain_low_pass(generator):
    density = torch.randn(32, 32, 32, generator=generator)
    uniform = torch.full((32, 32, 32), 8.0)
    filtered = filter_locally(density, uniform, 2.0, best=8.0, worst=50.0)
    expected = to_real(to_fourier(density.double(), 3) * lowpass((32,) * 3, 2.0, 8.0), (32,) * 3, 3)
    assert torch.allclose(filtered.double(), expected, atol=1e-4)


def test_an_empty_mask_is_said():
    zeros = torch.zeros(16, 16, 16)
    with pytest.raises(ValueError, match="no window"):
        local_resolution(zeros, zeros, 1.0, zeros, zeros)
