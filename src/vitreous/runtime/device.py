"""Which device does the work: decided here and nowhere else, and said in the log."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vitreous.runtime.gpu_map import plan_workers

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def available_gpus() -> int:
    """CUDA devices of this machine. Where the system has no device of the kind, torch is not asked."""
    if "torch" not in sys.modules and not any(Path("/dev").glob("nvidia*")) and not Path("/dev/kfd").exists():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def resolve(gpu: str = "", *, cpu: bool = False, rank: int = 0, ranks: int = 1) -> torch.device:
    """The device of this rank of `ranks`, and a log line that names it.

    gpu: RELION's map (empty: the GPUs there are). A GPU that is asked for by number and is not there is the user's
    fault (InputError), never a silent fall-back to the CPU.
    """
    import torch

    workers = plan_workers(gpu, ranks=max(ranks, rank + 1), threads=1, available=available_gpus(), cpu=cpu)
    mine = [one.device for one in workers if one.rank == rank]
    if mine[0] is None:
        log.info("device: CPU (%s)", "asked for" if cpu else "no CUDA GPU on this machine")
        return torch.device("cpu")
    log.info("device: GPU %d (%s)", mine[0], torch.cuda.get_device_name(mine[0]))
    if len(mine) > 1:
        log.info("this process drives one GPU of %d: --ranks (or torchrun) uses more", len(mine))
    return torch.device("cuda", mine[0])


def available_cores() -> int:
    """Cores this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpu_quota()
    return max(1, min(cores, quota)) if quota else max(1, cores)


def _cgroup_cpu_quota() -> int | None:
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()[:2]
        return None if quota == "max" else max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return None


def threads_of_environment() -> int:
    """OMP_NUM_THREADS, for programs that have no option for it; 0 where it is not set or no number."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() else 0


def set_threads(threads: int, *, sharing: int = 1) -> int:
    """Use this many CPU threads (0: all there are, shared out among `sharing` ranks) in torch and numba; the number."""
    cores = available_cores()
    count = min(threads, cores) if threads else max(1, cores // sharing)
    import numba
    import torch

    torch.set_num_threads(count)

    most = int(vars(numba.config)["NUMBA_NUM_THREADS"])  # numba refuses more than it started with
    numba.set_num_threads(min(count, most))
    return count
