"""The batch script of a job under SLURM: plain text that a person can read, change and submit by hand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitreous.core.errors import InputError

_TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}$")
_PLACEHOLDER = re.compile(r"XXX(\w+?)XXX")
_PORTS = (20000, 20000)  # first port of a rendezvous, and over how many job numbers are spread


@dataclass(frozen=True)
class Allocation:
    """What to ask SLURM for. ranks: processes a node (one a GPU where there are any). time: as SLURM writes it.

    extra: further #SBATCH options as words, e.g. ("--account=em",). warn: seconds before the time limit at which the
    job is told to stop. restarts: how often ranks are started again after one of them died. queued: ranks take items
    from a queue, and may die alone.
    """

    nodes: int = 1
    gpus_per_node: int = 0
    ranks: int = 1
    cpus_per_rank: int = 0
    time: str = ""
    partition: str = ""
    memory: str = ""
    requeue: bool = False
    extra: tuple[str, ...] = ()
    warn: int = 120
    restarts: int = 3
    queued: bool = False

    def check(self) -> None:
        """Raise InputError for what SLURM would misunderstand."""
        if self.time and not _TIME.match(self.time):
            raise InputError("--time", f"cannot read {self.time!r}", "Give e.g. 2:00:00 or 1-12:00:00.")
        if self.gpus_per_node and self.ranks % self.gpus_per_node:
            what = f"{self.ranks} ranks a node cannot be spread evenly over {self.gpus_per_node} GPUs"
            nearest = max(1, round(self.ranks / self.gpus_per_node)) * self.gpus_per_node
            raise InputError("--ranks-per-node", what, f"Give {nearest}.")

    @property
    def n_ranks(self) -> int:
        """Processes in all."""
        return self.nodes * self.ranks


def batch_script(
    name: str, command: Sequence[str], project: Path, directory: str, wants: Allocation, python: str
) -> str:
    """The script of a job. command: "refine3d --i ... --o DIRECTORY", without the program; directory: the job's."""
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in _options(name, project, directory, wants)), ""]
    return "\n".join([*lines, *_body(command, directory, wants, python), ""])


def _options(name: str, project: Path, directory: str, wants: Allocation) -> list[str]:
    options = [
        f"--job-name={name}",
        f"--chdir={project}",
        f"--output={directory}/slurm.out",
        "--open-mode=append",
        f"--nodes={wants.nodes}",
        f"--ntasks-per-node={wants.ranks if wants.queued else 1}",
    ]
    if wants.gpus_per_node:
        options.append(f"--gpus-per-node={wants.gpus_per_node}")
    if wants.cpus_per_rank:
        options.append(f"--cpus-per-task={wants.cpus_per_rank * (1 if wants.queued else wants.ranks)}")
    for value, option in ((wants.memory, "mem"), (wants.time, "time"), (wants.partition, "partition")):
        if value:
            options.append(f"--{option}={value}")
    options.append(f"--signal=TERM@{wants.warn}")
    options.append("--requeue" if wants.requeue else "--no-requeue")
    if wants.queued:
        options.append("--no-kill")  # a node that fails does not end the job
    return [*options, *wants.extra]


def _body(command: Sequence[str], directory: str, wants: Allocation, python: str) -> list[str]:
    """What is run: from the job's last iteration, if there is one; so that the same script goes on."""
    lines = []
    place = shlex.quote(directory)
    if wants.cpus_per_rank:
        lines += [f"export OMP_NUM_THREADS={wants.cpus_per_rank}"]
    again = [
        "",
        "# Told to stop before the time limit, the job marks itself as aborted: back to the queue, and on from there.",
        "# Where it was told so before it had begun there is nothing of it yet: at most three times.",
        f"aborted={place}/RELION_JOB_EXIT_ABORTED begun={place}/job.yaml",
        'if [ $code -ne 0 ] && { [ -e "$aborted" ] \\',
        '    || { [ ! -e "$begun" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; }; }; then',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
    ]
    return [*lines, "code=0", *run_lines(command, wants, python), *(again if wants.requeue else []), "exit $code"]


def run_lines(command: Sequence[str], wants: Allocation, python: str) -> list[str]:
    """The lines that run the job: one torchrun a node, which meet on the first; srun alone where that is enough."""
    work = " ".join(["-m", "vitreous", *map(shlex.quote, command), "--continue"])
    interpreter = shlex.quote(python)
    if wants.n_ranks == 1:
        return [f"srun {interpreter} {work} || code=$?"]
    if wants.queued:
        lines = ["", "# Ranks that take items from a queue: one that dies does not end the others."]
        return [*lines, f"srun --kill-on-bad-exit=0 --no-kill {interpreter} {work} || code=$?"]
    first, spread = _PORTS
    return [
        "",
        "# One torchrun a node starts the ranks there; they meet on the first node.",
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f"port=$(({first} + SLURM_JOB_ID % {spread}))",
        "srun --kill-on-bad-exit=1 \\",
        f"    {interpreter} -m torch.distributed.run \\",
        f"    --nnodes={wants.nodes} --nproc-per-node={wants.ranks} --max-restarts={wants.restarts} \\",
        '    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$head:$port" \\',
        f"    {work} || code=$?",
    ]


def filled(template: str, values: Mapping[str, str], where: Path) -> str:
    """A site's own template with its XXXnameXXX replaced (RELION's way to write a queue's script).

    Raises InputError for a name that has no value, or where XXXcommandXXX is missing.
    """
    missing = sorted({name for name in _PLACEHOLDER.findall(template) if name not in values})
    if missing:
        there = ", ".join(f"XXX{name}XXX" for name in values)
        raise InputError(where, f"XXX{missing[0]}XXX has no value", f"There are: {there}")
    if "XXXcommandXXX" not in template:
        raise InputError(where, "has no XXXcommandXXX", "Put it where the job is to be run.")
    return _PLACEHOLDER.sub(lambda found: values[found.group(1)], template)


def template_values(
    name: str, command: Sequence[str], project: Path, directory: str, wants: Allocation, python: str
) -> dict[str, str]:
    """What a template can name; RELION's names for the same things as well."""
    body = "\n".join(_body(command, directory, wants, python))
    threads = str(wants.cpus_per_rank or 1)
    return {
        "command": body,
        "name": name,
        "project": str(project),
        "directory": directory,
        "outfile": f"{directory}/slurm.out",
        "errfile": f"{directory}/slurm.err",
        "queue": wants.partition,
        "partition": wants.partition,
        "time": wants.time,
        "nodes": str(wants.nodes),
        "gpus": str(wants.gpus_per_node),
        "ranks": str(wants.ranks),
        "mpinodes": str(wants.n_ranks),
        "threads": threads,
        "cores": str(wants.n_ranks * int(threads)),
        "memory": wants.memory,
    }
