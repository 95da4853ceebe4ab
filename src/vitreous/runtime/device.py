"""Which device does the work: decided here and nowhere else, and said in the log."""

from __future__ import annotations

import logging
import os

import torch

from vitreous.core.errors import InputError

log = logging.getLogger(__name__)


def parse_gpu_map(text: str) -> list[list[int]]:
    """RELION's --gpu syntax: colons between ranks, commas within one ("0,1:2" gives rank 0 GPUs 0 and 1, rank 1 GPU 2).

    Raises InputError for anything but numbers, commas and colons. An empty text gives an empty list.
    """
    if not text.strip():
        return []
    try:
        ranks = [[int(number) for number in part.split(",")] for part in text.strip().split(":")]
    except ValueError:
        raise InputError(
            "--gpu", f"cannot read {text!r} as a list of GPUs", "Give numbers, e.g. --gpu 0 or --gpu 0:1"
        ) from None
    if any(number < 0 for part in ranks for number in part):
        raise InputError("--gpu", f"{text!r} holds a negative GPU number", "GPUs are numbered from 0")
    return ranks


def resolve(gpu: str = "", *, cpu: bool = False, rank: int = 0) -> torch.device:
    """The device of this rank, and a log line that names it.

    gpu: RELION's map (empty: the GPUs there are, ranks taking turns). A GPU that is asked for by number and is not
    there is the user's fault (InputError), never a silent fall-back to the CPU.
    """
    wanted = parse_gpu_map(gpu)
    if cpu:
        if wanted:
            raise InputError("--cpu", "both --cpu and --gpu are given", "Leave one of them out")
        log.info("device: CPU (asked for)")
        return torch.device("cpu")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not wanted:
        if not available:
            log.info("device: CPU (no CUDA GPU on this machine)")
            return torch.device("cpu")
        index = rank % available
    else:
        mine = wanted[rank % len(wanted)]
        index = mine[0]
        if index >= available:
            raise InputError(
                "--gpu",
                f"GPU {index} is asked for, and this machine has {available or 'no'} CUDA GPU{'s' * (available > 1)}",
                "Give another number, or --cpu",
            )
    log.info("device: GPU %d (%s)", index, torch.cuda.get_device_name(index))
    return torch.device("cuda", index)


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
    torch.set_num_threads(count)
    import numba

    most = int(vars(numba.config)["NUMBA_NUM_THREADS"])  # numba refuses more than it started with
    numba.set_num_threads(min(count, most))
    return count
