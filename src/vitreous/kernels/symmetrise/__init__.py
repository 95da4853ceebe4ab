"""Sum a Fourier volume and its weights over the rotations of a point group.

Rotations that only permute and flip the axes map the grid onto itself and cost a copy each (all of O, D2, C4; 12 of
the 60 of I1 and I2); the rest of the group, one representative a coset, is interpolated linearly.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.kernels.symmetrise import cpu, reference

__all__ = ["symmetrise"]


def symmetrise(accumulator: VolumeAccumulator, group: Float[Tensor, "n 3 3"]) -> None:
    """Replace data and weight at each k by their sums over S k, S in the group (in place).

    The accumulator must be Hermitian on its plane x = 0. group: all rotations of a point group, the identity first.
    """
    exact, cosets = _split(group.to(torch.float64))
    if len(cosets) > 1:
        turn = cpu.turned if _on_fast_path(accumulator) else reference.turned
        data, weight = accumulator.data.clone(), accumulator.weight.clone()
        for rotation in cosets[1:]:
            more_data, more_weight = turn(accumulator, rotation)
            data += more_data
            weight += more_weight
        accumulator.data, accumulator.weight = data, weight
    for representatives in _chain_of(tuple(exact.flatten().tolist())):
        if _on_fast_path(accumulator):
            accumulator.data, accumulator.weight = cpu.permuted_sum(accumulator, representatives)
        else:
            data, weight = accumulator.data, accumulator.weight
            accumulator.data = sum((_permuted(data, rotation) for rotation in representatives[1:]), data)
            accumulator.weight = sum((_permuted(weight, rotation) for rotation in representatives[1:]), weight)


def _on_fast_path(accumulator: VolumeAccumulator) -> bool:
    return accumulator.data.dtype == torch.complex64 and not accumulator.data.is_cuda


def _split(group: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The subgroup of axis permutations with signs, and one representative of each of its cosets (identity first)."""
    is_exact = ((group - group.round()).abs() < 1e-9).all(-1).all(-1)
    exact = group[is_exact].round()
    cosets: list[Tensor] = []
    covered: list[Tensor] = []
    for rotation in group:
        if not any(bool((rotation - other).abs().amax() < 1e-6) for other in covered):
            cosets.append(rotation)
            # The representative is applied first and the exact rotations to its result: V(c h k) over h.
            covered.extend(rotation @ exact)
    return exact, cosets


@cache
def _chain_of(entries: tuple[float, ...]) -> list[Tensor]:
    return _chain(torch.tensor(entries, dtype=torch.float64).reshape(-1, 3, 3))


def _chain(group: Tensor) -> list[Tensor]:
    """A group as a chain of subgroups: for each, its right cosets' representatives in the next (identity first).

    Sums over the whole group are sums over each step's representatives in turn: 5 copies in place of 23 for O.
    """
    steps: list[Tensor] = []
    inner = group[:1]
    while len(inner) < len(group):
        outside = [rotation for rotation in group if not _contains(inner, rotation)]
        inner, representatives = min((_extend(inner, rotation) for rotation in outside), key=lambda pair: len(pair[0]))
        steps.append(representatives)
    return steps


def _extend(inner: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """The group that a subgroup and one more rotation generate, and representatives of the subgroup's right cosets."""
    representatives, whole = [inner[0]], inner
    waiting = [rotation]
    while waiting:
        candidate = waiting.pop()
        if _contains(whole, candidate):
            continue
        representatives.append(candidate)
        whole = torch.cat([whole, inner @ candidate])
        waiting.extend(other @ generator for other in whole for generator in (rotation, *inner))
    return whole, torch.stack(representatives)


def _contains(group: Tensor, rotation: Tensor) -> bool:
    return bool(((group - rotation).abs().amax((1, 2)) < 1e-6).any())


def _permuted(values: Tensor, rotation: Tensor) -> Tensor:
    """values at S k for a rotation that permutes axes with signs; (z, y, x >= 0) storage, Hermitian."""
    full = _full(values)
    # out(k) = in(S k): component i of S k is sign_i * k[source_i]; components are x, y, z, array axes z, y, x.
    source = rotation.abs().argmax(1).tolist()
    signs = rotation.sum(1).tolist()
    flips = [2 - i for i in range(3) if signs[i] < 0]
    turned = full.flip(flips) if flips else full
    where = {source[i]: i for i in range(3)}  # component of k -> component of S k that it feeds
    turned = turned.permute(*(2 - where[2 - axis] for axis in range(3)))
    return turned[:, :, values.shape[2] - 1 :]


def _full(values: Tensor) -> Tensor:
    """Both halves along x, centred: (size, size, size)."""
    mirrored = values[:, :, 1:].flip((0, 1, 2))
    return torch.cat([mirrored.conj() if values.is_complex() else mirrored, values], 2)
