from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import from_shells, shell_mean, to_fourier, to_real
from vitreous.core.masks import soft_sphere
from vitreous.methods.maps.half_map_fsc import half_map_fsc, randomise_phases


def test_fsc_is_snr_over_one_plus_snr(generator):
    box = 64
    snr = torch.linspace(9.0, 0.05, box // 2 + 1, dtype=torch.float64)
    white = [torch.randn(box, box, box, generator=generator, dtype=torch.float64) for _ in range(3)]
    signal = to_fourier(white[0], 3) * from_shells(snr.sqrt(), box, 3)
    halves = [to_real(signal + to_fourier(w, 3), (box,) * 3, 3) for w in white[1:]]
    curve = half_map_fsc(halves[0], halves[1], 1.0).corrected
    assert torch.allclose(curve[8:], (snr / (1 + snr))[8:], atol=0.05)


@pytest.mark.parametrize("first", [0, 3])
def test_a_tight_mask_does_not_make_resolution_out_of_noise(first, generator):
    """Two halves share low frequencies only; a tight mask correlates the rest, the correction takes it off.

    Also where the lowest shells are noise as well, as beside the origin of a CTF.
    """
    box, shells = 64, torch.arange(64 // 2 + 1)
    band = ((shells >= first) & (shells < 8)).double() * 40
    white = [torch.randn(box, box, box, generator=generator, dtype=torch.float64) for _ in range(3)]
    signal = to_fourier(white[0], 3) * from_shells(band, box, 3)
    mask = soft_sphere(box, 10, edge=1, ndim=3, dtype=torch.float64)
    halves = [to_real(signal + to_fourier(w, 3), (box,) * 3, 3) for w in white[1:]]
    curves = half_map_fsc(halves[0], halves[1], 1.0, mask, generator=generator)
    assert curves.randomised_from == 8
    assert curves.masked[14:20].mean() > 0.3
    assert curves.corrected[14:20].mean().abs() < 0.15
    assert torch.equal(curves.corrected[: curves.randomised_from], curves.masked[: curves.randomised_from])


def test_randomised_phases_keep_amplitudes_and_low_shells(generator):
    box = 24
    x_ft = to_fourier(torch.randn(box, box, box, generator=generator, dtype=torch.float64), 3)
    y_ft = randomise_phases(x_ft, 5, generator)
    assert torch.allclose(shell_mean(x_ft.abs(), box, 3), shell_mean(y_ft.abs(), box, 3))
    assert torch.equal(x_ft[:3, :3, :3], y_ft[:3, :3, :3])
    # Hermitian: the map it stands for is real, so going there and back changes nothing
    again = to_fourier(to_real(y_ft, (box,) * 3, 3), 3)
    assert torch.allclose(again, y_ft, atol=1e-9)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        half_map_fsc(torch.zeros(8, 8, 8), torch.zeros(8, 8, 8), 1.0, torch.zeros(10, 10, 10))
