from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import hermitian_weights
from vitreous.kernels.alignment import leave_one_out, leave_one_out_reference, reference

SHAPE = (24, 30)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def problem(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    images = torch.randn(2, 5, *SHAPE, generator=generator)
    ky = torch.fft.fftfreq(SHAPE[0])
    kx = torch.fft.rfftfreq(SHAPE[1])
    k2 = ky[:, None] ** 2 + kx**2
    weights = torch.exp(-20 * k2) * hermitian_weights(SHAPE[1], dtype=torch.float32) * (k2 < 0.16)
    shifts = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)
    return torch.fft.rfft2(images), weights, ky, kx, shifts


@pytest.mark.parametrize("device", DEVICES)
def test_every_form_agrees_with_the_reference(generator, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    frames, *rest = problem(generator)
    got = leave_one_out(frames.to(device), *rest)
    wanted = leave_one_out_reference(frames, *rest)
    for name in ("value", "gradient", "hessian", "noise"):
        a, b = getattr(got, name), getattr(wanted, name)
        assert (a - b).abs().max() < 2e-5 * b.abs().max(), name


def test_the_form_for_gpus_agrees_on_the_cpu_too(generator):
    frames, weights, ky, kx, shifts = problem(generator)
    got = reference.sums(frames, weights, ky, kx, shifts)
    wanted = reference.sums(frames.to(torch.complex128), weights, ky, kx, shifts)
    assert (got - wanted).abs().max() < 2e-5 * wanted.abs().max()


def test_derivatives_are_those_of_the_value(generator):
    frames, weights, ky, kx, shifts = problem(generator)
    at = leave_one_out_reference(frames, weights, ky, kx, shifts)
    h = 1e-4
    for axis in range(2):
        values, gradients = [], []
        for sign in (1, -1):
            moved = shifts.clone()
            moved[0, 2, axis] += sign * h
            there = leave_one_out_reference(frames, weights, ky, kx, moved)
            values.append(there.value[0, 2])
            gradients.append(there.gradient[0, 2])
        assert (values[0] - values[1]).item() / (2 * h) == pytest.approx(at.gradient[0, 2, axis].item(), rel=1e-5)
        numeric = (gradients[0] - gradients[1]) / (2 * h)
        assert torch.allclose(numeric, at.hessian[0, 2, axis], rtol=1e-5)


def test_gradient_noise_is_what_random_phases_give(generator):
    shape, n = (16, 16), 400
    ky, kx = torch.fft.fftfreq(16), torch.fft.rfftfreq(16)
    weights = hermitian_weights(16, dtype=torch.float32) * torch.ones(16, 9)
    weights[0, :] = weights[:, 0] = weights[8, :] = weights[:, 8] = 0
    frames = torch.fft.rfft2(torch.randn(n, 2, *shape, generator=generator))
    got = leave_one_out_reference(frames, weights, ky, kx, torch.zeros(n, 2, 2, dtype=torch.float64))
    measured = got.gradient[:, 0].square().mean(0)
    assert torch.allclose(measured, got.noise[:, 0].mean(0).diagonal(), rtol=0.15)
