"""Start a program as several ranks on this machine: the same variables as torchrun's, and a plain exit code."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from vitreous.core.errors import LOST
from vitreous.runtime.gpu_map import Worker, sharing

ONE_GPU = "VITREOUS_SHARED_GPU"  # set where ranks share a GPU, which NCCL refuses
_NOTED = "VITREOUS_NOTED"  # the file in which the first rank notes the job's directory
_FINAL = (2, 130, 143)  # exit codes after which another start makes no sense
_PLACE = "VITREOUS_PLACE"  # "device threads sharing", for a rank that `run_ranks` started
_GRACE_S = 30.0  # for the others to write what they have when one has ended badly
_SAME_FAULT_S = 2.0  # ranks that see the same fault end about together: then the first one's words are enough


@dataclass(frozen=True)
class _Started:
    """A rank's process, and what it wrote to stderr (the first rank's goes to the terminal)."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes] | None


def run_ranks(command: Sequence[str], workers: Sequence[Worker], *, spared: bool = False, restarts: int = 0) -> int:
    """Run copies of a command, one a worker, that find each other through torch.distributed; the exit code.

    Each learns its device, its threads and who shares them from its environment (`placement`). The first rank talks
    to the terminal. Where one rank fails the others are told to stop (SIGTERM, then SIGKILL), and its exit code is the
    run's; the last line it wrote is shown if the first rank has not failed as well. spared: only the first rank counts,
    the others may come to grief. restarts: how often all start again, from where the job was, after a rank was killed.
    """
    with tempfile.TemporaryDirectory(prefix="vitreous_") as folder:
        noted = Path(folder) / "place"
        for attempt in range(restarts + 1):
            code, killed = _run_once(command, workers, noted, spared=spared)
            if not killed or attempt == restarts or not noted.exists():
                return code
            sys.stderr.write(f"{killed}: all ranks start again ({attempt + 1} of at most {restarts} times)\n")
    return code


def _run_once(command: Sequence[str], workers: Sequence[Worker], noted: Path, *, spared: bool) -> tuple[int, str]:
    """The exit code, and which rank was killed, in words, if one was. noted: the job's directory, if known already."""
    size = len(workers)
    shared = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        _NOTED: str(noted),
    }
    started: list[_Started] = []
    try:
        for rank, worker in enumerate(workers):
            env = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **_placed(worker, workers)}
            started.append(_start(command, env, talks=rank == 0))
        code = _wait(started[:1] if spared else started)
        return code, _killed([one.process.poll() for one in (started[:1] if spared else started)])
    finally:
        _end(started)


def _killed(codes: Sequence[int | None]) -> str:
    """Which rank was killed or lost the others, where the run is worth another start; empty where it is not."""
    if any(code is not None and (code in _FINAL or -code in (signal.SIGINT, signal.SIGTERM)) for code in codes):
        return ""
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            return f"rank {rank} was killed by {signal.Signals(-code).name}"
    return next((f"rank {rank} lost the others" for rank, code in enumerate(codes) if code == LOST), "")


def note_place(directory: Path) -> None:
    """Tell the launcher, where there is one, which directory the job has: should it be started again, it is there."""
    if _NOTED in os.environ:
        Path(os.environ[_NOTED]).write_text(str(directory))


def noted_place() -> Path | None:
    """The job's directory in ranks that were started again; None at the first start."""
    noted = Path(os.environ.get(_NOTED, ""))
    return Path(noted.read_text()) if noted.is_file() else None


@dataclass(frozen=True)
class Placement:
    """Where this process works. gpu: as --gpu names it; threads: of the CPU (0: its share of the cores).

    sharing: how many processes have to share the device's memory. By `run_ranks`, or what torchrun's variables say.
    """

    gpu: str
    threads: int
    sharing: int


def placement(gpu: str, threads: int) -> Placement:
    """Where this process works, by its launcher, else as --gpu and --j say."""
    given = os.environ.get(_PLACE)
    if given is None:
        return Placement(gpu, threads, local_ranks())
    device, count, sharing = given.split()
    return Placement("" if device == "cpu" else device, int(count), int(sharing))


def _placed(worker: Worker, workers: Sequence[Worker]) -> dict[str, str]:
    device = "cpu" if worker.device is None else str(worker.device)
    variables = {_PLACE: f"{device} {worker.threads} {sharing(list(workers), worker)}"}
    if any(one.device is not None and sharing(list(workers), one) > 1 for one in workers):
        variables[ONE_GPU] = "1"
    return variables


def adopt_srun() -> None:
    """Take srun's variables as torchrun's, where a program was started by `srun -n N` alone.

    The first node of the step is where ranks meet; the port follows from the job's number.
    """
    env = os.environ
    if "WORLD_SIZE" in env or "SLURM_STEP_ID" not in env or int(env.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return
    here = env.get("SLURM_STEP_TASKS_PER_NODE", "1").split(",")
    env["RANK"], env["WORLD_SIZE"] = env["SLURM_PROCID"], env["SLURM_STEP_NUM_TASKS"]
    env["LOCAL_RANK"] = env.get("SLURM_LOCALID", "0")
    env["LOCAL_WORLD_SIZE"] = str(_tasks_of_node(here, int(env.get("SLURM_NODEID", "0"))))
    env.setdefault("MASTER_ADDR", first_host(env.get("SLURM_STEP_NODELIST", "127.0.0.1")))
    env.setdefault("MASTER_PORT", str(20000 + (int(env["SLURM_JOB_ID"]) * 7 + int(env["SLURM_STEP_ID"])) % 20000))


def first_host(hosts: str) -> str:
    """The first of SLURM's compressed list: n[01-04,7],m3 -> n01."""
    name, bracket, rest = hosts.partition("[")
    if not bracket or "," in name:
        return hosts.partition(",")[0]
    return name + re.split(r"[-,\]]", rest, maxsplit=1)[0]


def _tasks_of_node(counts: list[str], node: int) -> int:
    """SLURM's "2(x3),1": how many tasks the node of this number has."""
    for part in counts:
        number, _, times = part.partition("(x")
        nodes = int(times.rstrip(")") or 1) if times else 1
        if node < nodes:
            return int(number)
        node -= nodes
    return 1


def is_rank() -> bool:
    """Whether this process was started as one of several ranks (by `run_ranks`, torchrun or srun)."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leave(code: int) -> NoReturn:
    """End a rank's process without taking Python apart.

    A thread that is inside torch's store or a collective at that moment is ended by Python on its way back, through
    C++ code that may not be unwound: the process aborts (SIGABRT) though its work is done.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_first() -> bool:
    """Whether this process is the first rank, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def is_first_here() -> bool:
    """Whether this process is the first of the run on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def local_ranks() -> int:
    """How many ranks share this machine."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def place_in_map(named: int) -> tuple[int, int]:
    """This process's number among how many, as --gpu counts ranks when it names `named` of them.

    A map describes one machine, and each machine of a run has its own; one with more parts than a machine has
    ranks counts them over all machines, as RELION does.
    """
    size = local_ranks()
    if named > size:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return int(os.environ.get("LOCAL_RANK", "0")) % size, size


def _start(command: Sequence[str], env: dict[str, str], *, talks: bool) -> _Started:
    if talks:
        return _Started(subprocess.Popen(command, env=env), None)
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in _end)
    return _Started(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=errors), errors)


def _wait(started: list[_Started]) -> int:
    """Until all are done (0) or one has failed (its code)."""
    while True:
        codes = [one.process.poll() for one in started]
        if any(codes):  # neither running nor done well
            return _failure(started)
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.05)


def _failure(started: list[_Started]) -> int:
    """The exit code of a run in which a rank has failed, and that rank's last words where nobody else says them.

    The first rank's own fault is the run's; where it has only lost the others, that of the rank that failed.
    """
    deadline = time.monotonic() + _SAME_FAULT_S
    while started[0].process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    codes = [one.process.poll() for one in started]
    failed = [rank for rank, code in enumerate(codes) if code]
    rank = next((rank for rank in failed if codes[rank] != LOST), failed[0])
    code = codes[rank] or LOST
    errors = started[rank].errors
    if errors is not None:
        errors.seek(0)
        words = errors.read().decode(errors="replace").strip().splitlines()
        if words or not codes[0]:
            sys.stderr.write(f"error: rank {rank}: {words[-1] if words else f'ended with code {code}'}\n")
    return 128 - code if code < 0 else code


def _end(started: list[_Started]) -> None:
    alive = [one.process for one in started if one.process.poll() is None]
    for process in alive:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    for process in alive:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for one in started:
        if one.errors is not None:
            one.errors.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
