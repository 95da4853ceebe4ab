"""RELION's --gpu: which devices the threads of each rank work on. Arithmetic alone; no device is touched here.

RELION gives a rank several devices through its threads. One of our processes drives one device, so that a rank with
several becomes as many processes, which share its threads; the result is that of any other number of processes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from vitreous.core.errors import InputError


@dataclass(frozen=True)
class Worker:
    """A process. rank: as the user counts ranks, from 0; device: None for the CPU; threads: CPU threads."""

    rank: int
    device: int | None
    threads: int


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


def devices_of_ranks(text: str, ranks: int, available: int) -> list[list[int]]:
    """The devices of each rank, repeats kept (they ask for more threads).

    Nothing named: all there are, spread evenly. Else each rank takes its part; a list without colons goes to all, and
    ranks beyond those named take the named ones' devices in turn. Raises InputError for a device that is not there.
    """
    named = parse_gpu_map(text)
    highest = max((number for part in named for number in part), default=-1)
    if highest >= available:
        raise InputError(
            "--gpu",
            f"GPU {highest} is asked for, and this machine has {available or 'no'} CUDA GPU{'s' * (available > 1)}",
            "Give another number, or --cpu",
        )
    if named:
        return [named[rank % len(named)] for rank in range(ranks)]
    if not available:
        return [[] for _ in range(ranks)]
    if ranks >= available:
        return [[rank % available] for rank in range(ranks)]
    bounds = [-(-rank * available // ranks) for rank in range(ranks + 1)]  # the first ranks take what is left over
    return [list(range(first, last)) for first, last in itertools.pairwise(bounds)]


def devices_of_threads(devices: list[int], threads: int) -> list[int]:
    """The device of each of a rank's threads, as evenly as can be; a device that is named twice gets twice as many.

    Each device gets a thread at least: fewer threads than devices are raised to their number.
    """
    if threads < len(devices):
        devices = list(dict.fromkeys(devices))
        threads = max(threads, len(devices))
    return [devices[thread * len(devices) // threads] for thread in range(threads)]


def plan_workers(text: str, *, ranks: int, threads: int, available: int, cpu: bool = False) -> list[Worker]:
    """The processes of a run: one for each rank and device.

    threads: of a rank. available: devices of the machine. Raises InputError for what cannot be.
    """
    if cpu and parse_gpu_map(text):
        raise InputError("--cpu", "both --cpu and --gpu are given", "Leave one of them out")
    workers: list[Worker] = []
    for rank, devices in enumerate(devices_of_ranks(text, ranks, 0 if cpu else available)):
        if not devices:
            workers.append(Worker(rank, None, threads))
            continue
        of_threads = devices_of_threads(devices, threads)
        workers += [Worker(rank, device, of_threads.count(device)) for device in dict.fromkeys(of_threads)]
    return workers


def sharing(workers: list[Worker], worker: Worker) -> int:
    """How many processes work on the same device (or the same CPU) as this one."""
    return sum(one.device == worker.device for one in workers)
