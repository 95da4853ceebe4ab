"""All forms of the comparison and of the weighted sums agree with the written-out ones."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from vitreous.kernels import compare, weighted_sums
from vitreous.kernels.compare import Samples, WhitenedImages
from vitreous.kernels.compare import cpu as compare_cpu
from vitreous.kernels.compare import cuda as compare_cuda
from vitreous.kernels.compare import reference as compare_reference
from vitreous.kernels.weighted_sums import WeightedSamples
from vitreous.kernels.weighted_sums import cpu as sums_cpu
from vitreous.kernels.weighted_sums import cuda as sums_cuda
from vitreous.kernels.weighted_sums import reference as sums_reference

N, M, ROWS, SHIFTS = 3, 17, 6, 8
SHELL_STARTS = torch.tensor([0, 1, 5, 11, 17])


def _complex(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.complex(torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator))


def _images(generator: torch.Generator) -> WhitenedImages:
    return WhitenedImages(_complex(N, M, generator=generator), torch.rand(N, M, generator=generator))


def _phases(generator: torch.Generator) -> torch.Tensor:
    angle = 6.0 * torch.rand(SHIFTS, M, generator=generator)
    return torch.polar(torch.ones_like(angle), angle)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


def test_dense_agrees_with_the_written_out_form(generator: torch.Generator, device: torch.device) -> None:
    images, p, phases = _images(generator), _complex(ROWS, M, generator=generator), _phases(generator)
    expected = compare_reference.dense(images, p, phases)
    there = WhitenedImages(images.data.to(device), images.half_power.to(device))
    found = compare.compare_dense(there, compare.prepare_rows(p.to(device)), phases.to(device)).total().cpu()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", [compare_cpu, compare_cuda], ids=["numba", "torch"])
@pytest.mark.parametrize("children", [(1, 1), (2, 4), (3, 2)])
def test_sparse_agrees_with_the_written_out_form(
    generator: torch.Generator, form: ModuleType, children: tuple[int, int]
) -> None:
    images, phases = _images(generator), _phases(generator)
    p = _complex(ROWS, M, generator=generator)
    coarse_rows, coarse_shifts = ROWS // children[0], SHIFTS // children[1]
    rng = np.random.default_rng(5)
    samples = Samples(
        np.array([0, 0, 2, 2]),
        np.array([0, coarse_rows - 1, 1, 0]),
        np.array([0, 2, 3, 3, 7]),
        rng.integers(0, coarse_shifts, 7),
        *children,
    )
    expected = compare_reference.sparse(images, p, phases, samples)
    torch.testing.assert_close(form.sparse(images, p, phases, samples).double(), expected, rtol=1e-5, atol=1e-4)


def test_all_shifts_agree_with_the_written_out_form(generator: torch.Generator, device: torch.device) -> None:
    images, p, phases = _images(generator), _complex(ROWS, M, generator=generator), _phases(generator)
    pairs = np.array([0, 0, 1, 2, 2]), np.array([5, 1, 3, 0, 5])
    there = WhitenedImages(images.data.to(device), images.half_power.to(device))
    found = compare.compare_all_shifts(there, p.to(device), phases.to(device), *pairs).cpu()
    expected = compare_reference.sparse(images, p, phases, Samples.at_all_shifts(*pairs, SHIFTS))
    torch.testing.assert_close(found.double(), expected.reshape(5, SHIFTS), rtol=1e-5, atol=1e-4)


def test_all_shifts_in_many_blocks_are_those_in_one(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, p, phases = _images(generator), _complex(ROWS, M, generator=generator), _phases(generator)
    pairs = np.array([0, 0, 1, 2, 2]), np.array([5, 1, 3, 0, 5])
    whole = compare.compare_all_shifts(images, p, phases, *pairs)
    monkeypatch.setattr(compare_cpu, "_PRODUCTS", 4 * M)
    torch.testing.assert_close(compare.compare_all_shifts(images, p, phases, *pairs), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", [sums_cpu, sums_cuda], ids=["numba", "torch"])
def test_weighted_sums_agree_with_the_written_out_form(generator: torch.Generator, form: ModuleType) -> None:
    masked, unmasked, phases = _images(generator), _images(generator), _phases(generator)
    p = _complex(ROWS, M, generator=generator)
    rng = np.random.default_rng(6)
    samples = WeightedSamples(
        np.array([0, 2, 1, 2, 0]),
        np.array([1, 1, 2, 5, 5]),
        np.array([0, 2, 3, 6, 7, 9]),
        rng.integers(0, SHIFTS, 9),
        rng.random(9).astype(np.float32),
    )
    expected = sums_reference.sums(masked, unmasked, p, phases, samples, SHELL_STARTS)
    found = form.sums(masked, unmasked, p, phases, samples, SHELL_STARTS)
    np.testing.assert_array_equal(found.rows, expected.rows)
    torch.testing.assert_close(found.data.to(torch.complex128), expected.data, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.power.double(), expected.power, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.gains, expected.gains, rtol=1e-5, atol=1e-4)


def test_gain_is_largest_for_the_true_shift_and_reference(generator: torch.Generator) -> None:
    """X = shift(-t) CTF P without noise: the sample (P, t) gains sum CTF^2 |P|^2 / (2 sigma2), and no other more."""
    p, phases = _complex(ROWS, M, generator=generator), _phases(generator)
    ctf, sigma2 = torch.rand(M, generator=generator) + 0.2, torch.full((M,), 0.3)
    x = p[4] * ctf * phases[3].conj()
    images = WhitenedImages((x * ctf / sigma2)[None], (ctf.square() / (2 * sigma2))[None])
    gains = compare.compare_dense(images, compare.prepare_rows(p), phases).total()[0]
    assert divmod(int(gains.argmax()), SHIFTS) == (4, 3)
    expected = (ctf.square() * p[4].abs().square() / (2 * sigma2)).sum()
    torch.testing.assert_close(gains[4, 3], expected, rtol=1e-5, atol=1e-5)


def test_sums_are_the_same_twice(generator: torch.Generator) -> None:
    masked, unmasked, phases = _images(generator), _images(generator), _phases(generator)
    p = _complex(ROWS, M, generator=generator)
    samples = WeightedSamples(np.arange(3), np.arange(3), np.arange(4), np.arange(3), np.full(3, 0.3, np.float32))
    a = weighted_sums.weighted_sums(masked, unmasked, p, phases, samples, SHELL_STARTS)
    b = weighted_sums.weighted_sums(masked, unmasked, p, phases, samples, SHELL_STARTS)
    assert torch.equal(a.data, b.data)
    assert torch.equal(a.gains, b.gains)


def test_low_precision_keeps_the_significant_samples() -> None:
    """Projections whose gains differ as real ones do (SNR 0.05): what bf16 loses of the weight stays under 1%."""
    generator = torch.Generator().manual_seed(3)
    m, rows = 400, 500
    p = _complex(rows, m, generator=generator) * 0.15
    noise = _complex(24, m, generator=generator)
    images = WhitenedImages(p[:24] + noise, torch.full((24, m), 0.5))
    phases = torch.ones(1, m, dtype=torch.complex64)
    prepared = compare.prepare_rows(p)
    exact = torch.softmax(compare.compare_dense(images, prepared, phases).total()[..., 0].double(), -1)
    low = compare.compare_dense(images, prepared, phases, low_precision=True).total()
    coarse = torch.softmax(low[..., 0].double(), -1)
    ordered, index = coarse.sort(dim=-1, descending=True)
    kept = (ordered.cumsum(-1) - ordered) < 0.999
    assert torch.all((exact.gather(1, index) * kept).sum(-1) > 0.99)
