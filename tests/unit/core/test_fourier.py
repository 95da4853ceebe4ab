from __future__ import annotations

import pytest
import torch

from vitreous.core import fourier


@pytest.mark.parametrize("box", [8, 9, 32])
@pytest.mark.parametrize("ndim", [2, 3])
def test_round_trip(box, ndim, generator):
    x = torch.randn((2,) + (box,) * ndim, generator=generator, dtype=torch.float64)
    back = fourier.to_real(fourier.to_fourier(x, ndim), (box,) * ndim, ndim)
    assert torch.allclose(x, back)


@pytest.mark.parametrize("box", [8, 9])
def test_a_point_at_the_centre_has_a_flat_transform(box):
    x = torch.zeros(box, box, dtype=torch.float64)
    x[box // 2, box // 2] = 1.0
    assert torch.allclose(fourier.to_fourier(x), torch.ones(box, box // 2 + 1, dtype=torch.complex128))


@pytest.mark.parametrize("box", [8, 9])
def test_shells_hold_parseval(box, generator):
    x = torch.randn(box, box, generator=generator, dtype=torch.float64)
    power = fourier.to_fourier(x).abs().square()
    total = (power * fourier.hermitian_weights(box)).sum() / box**2
    assert torch.allclose(total, x.square().sum())


def test_shell_index_rounds_half_away_from_zero():
    shells = fourier.shell_indices(16)
    assert shells[0, 3] == 3
    assert shells[1, 1] == 1  # 1.41
    assert shells[2, 2] == 3  # 2.83
    # |(1.5, 2)| = 2.5 has no grid point, but (3, 4) / 2 scaled does: radius 5 exactly
    assert shells[3, 4] == 5


def test_shift_moves_content_forward(generator):
    x = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    moved = fourier.shift_images(x, torch.tensor([2.0, -3.0]))
    assert torch.allclose(moved, torch.roll(x, (2, -3), (0, 1)), atol=1e-10)


@pytest.mark.parametrize(("old", "new"), [(16, 8), (8, 16), (15, 9), (9, 15), (16, 9), (9, 16)])
def test_rescale_keeps_a_smooth_image(old, new):
    def blob(box):
        r = torch.stack(torch.meshgrid(*(2 * [(torch.arange(box) - box // 2) / box]), indexing="ij")).double()
        return torch.exp(-r.square().sum(0) / (2 * 0.15**2))

    assert torch.allclose(fourier.rescale(blob(old), (new, new)), blob(new), atol=2e-2)


@pytest.mark.parametrize("box", [8, 9])
@pytest.mark.parametrize("ndim", [2, 3])
def test_shell_mean_and_from_shells_are_inverse(box, ndim):
    curve = torch.arange(box // 2 + 1, dtype=torch.float64)
    assert torch.allclose(fourier.shell_mean(fourier.from_shells(curve, box, ndim), box, ndim), curve)
