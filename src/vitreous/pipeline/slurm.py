"""SLURM's own programs: submit a script, ask how a job stands, cancel it. What was submitted stands in slurm.json."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vitreous.core.errors import InputError
from vitreous.runtime.atomic import write_text

RECORD = "slurm.json"
_FORMAT = "%i|%T|%r|%M|%l|%N"
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL"}
_WHY = {
    "Priority": "others come first",
    "Resources": "waits until nodes are free",
    "BeginTime": "waits for its start time (a job that was requeued waits two minutes)",
    "Dependency": "waits for another job",
    "JobHeldUser": "held: scontrol release lets it go",
    "JobHeldAdmin": "held by an administrator",
    "PartitionTimeLimit": "asks for more time than the partition gives",
    "PartitionNodeLimit": "asks for more nodes than the partition has",
    "PartitionConfig": "asks for what the partition does not have",
    "ReqNodeNotAvail": "its nodes are down or reserved",
    "QOSMaxJobsPerUserLimit": "you have as many jobs running as you may",
    "AssocGrpGRES": "your group uses as many GPUs as it may",
    "None": "not looked at yet",
}


@dataclass(frozen=True)
class QueueState:
    """How SLURM sees a job: its state word, and the rest in words."""

    number: int
    state: str
    text: str

    @property
    def ended(self) -> bool:
        """Whether SLURM has done with it."""
        return self.state in _ENDED


def submit(script: Path, directory: Path) -> int:
    """Hand a script to sbatch; the job's number, which is noted in the job directory.

    Raises InputError where there is no SLURM or it refuses.
    """
    said = _run(["sbatch", "--parsable", str(script)])
    number = int(said.strip().partition(";")[0])
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    write_text(directory / RECORD, json.dumps({"id": number, "script": script.name, "submitted": now}) + "\n")
    return number


def number_of(directory: Path) -> int | None:
    """SLURM's number of a job that was submitted; None for one that was not."""
    try:
        record: dict[str, Any] = json.loads((directory / RECORD).read_text())
        return int(record["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cancel(number: int) -> None:
    """Take a job out of the queue, or stop it."""
    _run(["scancel", str(number)])


def states(numbers: Iterable[int]) -> dict[int, QueueState]:
    """How jobs stand, by number; those that SLURM no longer knows are left out, all of them where there is no SLURM."""
    wanted = list(numbers)
    if not wanted or shutil.which("squeue") is None:
        return {}
    found: dict[int, QueueState] = {}
    for number in wanted:  # squeue refuses a whole list for one number it has forgotten
        done = subprocess.run(
            ["squeue", "--noheader", "--states=all", f"--format={_FORMAT}", f"--jobs={number}"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        found.update({one.number: one for line in done.stdout.splitlines() if (one := read_line(line)) is not None})
    return found


def read_line(line: str) -> QueueState | None:
    """A line of squeue in our format; None for anything else."""
    parts = line.strip().split("|")
    if len(parts) != 6 or not parts[0].isdigit():
        return None
    number, state, reason, elapsed, limit, nodes = parts
    reason = reason.strip("()").partition(",")[0]
    if state == "PENDING":
        text = f"queued: {_WHY.get(reason, reason)} ({reason})"
    elif state in ("RUNNING", "COMPLETING"):
        text = f"running for {elapsed} of {limit} on {nodes}"
    else:
        text = state.lower().replace("_", " ") + (f" ({reason})" if reason not in ("None", "") else "")
    return QueueState(int(number), state, text)


def _run(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        what = "is not there: this machine has no SLURM"
        raise InputError(words[0], what, "Run this on a login node of the cluster.") from None
    except subprocess.TimeoutExpired:
        raise InputError(words[0], "does not answer", "Is slurmctld up (scontrol ping)?") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or f"ended with {done.returncode}").splitlines()
        raise InputError(words[0], f"refused: {lines[-1]}", "Mend the options of the submission.")
    return done.stdout
