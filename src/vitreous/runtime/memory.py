"""Memory plans: how much there is, how many items fit, and what to do when the plan was wrong."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch

log = logging.getLogger(__name__)

_USABLE_FRACTION = 0.8
_CGROUP = Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of mallopt, in glibc's malloc.h


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def cgroup_free(root: Path = _CGROUP) -> int | None:
    """Bytes left under the container's memory limit (cgroup v2 or v1); None where there is no limit.

    Page cache counts as used by the kernel's figure but is given back on demand, so it counts as free here.
    """
    for limit_name, used_name, stat_name, cache_key in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        limit, used = _read_number(root / limit_name), _read_number(root / used_name)
        if limit is None or used is None or limit >= 1 << 60:
            continue
        cache = 0
        try:
            for line in (root / stat_name).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == cache_key:
                    cache = int(value)
        except (OSError, ValueError):
            cache = 0
        return max(0, limit - used + cache)
    return None


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that can be had now: of the GPU, or of RAM within the container's limit."""
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    free = int(psutil.virtual_memory().available)
    limit = cgroup_free()
    return free if limit is None else min(free, limit)


def budget(max_memory_gb: float = 0.0, device: torch.device | None = None, *, free_gpu_mb: float = 0.0) -> int:
    """Bytes to plan for: what the user said, or 80% of what is free; more than is free is cut down with a warning.

    free_gpu_mb: megabytes of a GPU to leave to others (RELION's rule: where that is more than is free, 30% stay free).
    """
    free = free_memory(device)
    if free_gpu_mb and device is not None and device.type == "cuda":
        free = _less_kept(free, free_gpu_mb)
    if not max_memory_gb:
        return int(_USABLE_FRACTION * free)
    asked = int(max_memory_gb * 1e9)
    if asked > free:
        log.warning(
            "--max-memory %.1f GB is more than the %.1f GB that are free: planning for 70%%", asked / 1e9, free / 1e9
        )
        return int(0.7 * free)
    return asked


def use_large_pages() -> None:
    """Let torch ask for large pages (Linux; to be called before the first tensor is made).

    Memory of a movie's size is otherwise had in pages of 4 kB: making them costs more than a pass over the data.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _less_kept(free: int, keep_mb: float) -> int:
    keep = int(keep_mb * 1e6)
    if keep < free:
        return free - keep
    log.warning("--free-gpu-memory %.0f MB is more than the %.0f MB that are free: keeping 30%%", keep_mb, free / 1e6)
    return int(0.7 * free)


def batch_memory(budget: int) -> int:
    """Bytes that one batch of particles may take: 1 GiB, or the largest power of two within a third of the budget.

    Steps, not a share of what happens to be free: the size of a batch moves the last bits of a matrix product, and a
    run that is started again beside other jobs must end with the same bits.
    """
    most = 1 << 30
    while most > max(1, budget // 3) and most > 1 << 20:
        most //= 2
    return most


def keep_freed_memory() -> bool:
    """Have the C library keep up to 512 MB of what is freed for the next batch; whether it could be told (glibc only).

    By default it gives each large array back to the system and takes it anew, zeroed page by page: a sixth of the
    time of a refinement in small boxes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    # One arena: that of a thread of its own holds no more than 64 MB, and what is larger goes back at once.
    options = ((_M_MMAP_THRESHOLD, 1 << 28), (_M_TRIM_THRESHOLD, 1 << 29), (_M_ARENA_MAX, 1))
    return all(bool(mallopt(*option)) for option in options)


def plan(bytes_per_item: float, *, fixed: float = 0.0, budget: float, most: int | None = None) -> int:
    """How many items to work on at once so that fixed + n * bytes_per_item stays within the budget; at least 1."""
    n = int((budget - fixed) // max(bytes_per_item, 1.0))
    n = max(1, n)
    return n if most is None else max(1, min(n, most))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out (host or GPU)."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and (
        "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower()
    )


def in_batches(n_items: int, batch: int, work: Callable[[int, int], None]) -> int:
    """Call work(start, stop) over all items; when memory runs out, halve the batch and do that stretch again.

    work must leave nothing half done when it raises (add its result up at its end). Returns the batch size at the
    end. Raises the original error when a single item does not fit.
    """
    start, size = 0, max(1, batch)
    while start < n_items:
        stop = min(start + size, n_items)
        try:
            work(start, stop)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or size == 1:
                raise
            size = max(1, size // 2)
            log.warning("out of memory: going on with batches of %d", size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        start = stop
    return size


def batches(n_items: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive batches."""
    for start in range(0, n_items, max(1, size)):
        yield start, min(start + size, n_items)


def peak_rss() -> int:
    """Bytes: the largest resident set this process has had, since `reset_peak_rss` where the system can tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        log.debug("no /proc: taking the peak of the whole run")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def peak_on_device(device: torch.device) -> int:
    """Bytes: the most that torch has held of a GPU; 0 on the CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def reset_peak_rss() -> None:
    """Start counting the peak anew (Linux; elsewhere the peak stays that of the whole run)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        log.debug("the peak of memory cannot be reset here")
