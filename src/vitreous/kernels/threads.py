"""Splitting a loop that leaves Python's lock over as many threads as torch may use here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def in_threads(work: Callable[[slice], None], n: int) -> None:
    """Call work on consecutive slices that together cover range(n), at once in `torch.get_num_threads()` threads."""
    count = max(1, min(n, torch.get_num_threads()))
    if count == 1:
        work(slice(0, n))
        return
    bounds = [n * i // count for i in range(count + 1)]
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, [slice(a, b) for a, b in itertools.pairwise(bounds)]))
