"""Say what this machine has, what will be used, and what is missing."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

import click
import psutil

from vitreous import __version__

_PACKAGES = (
    "torch",
    "numba",
    "numpy",
    "scipy",
    "pydantic",
    "tifffile",
    "imagecodecs",
    "gemmi",
    "matplotlib",
)
_LEAST_FREE_GB = 5.0


@click.command("doctor", help=__doc__)
@click.option("--plan", metavar="OPTIONS", help="show where a job with these options would work: '--ranks 3 --gpu 0:1'")
@click.option("--devices", type=click.IntRange(0), help="with --plan: as if this machine had so many GPUs")
def command(plan: str | None, devices: int | None) -> None:
    """Print one line a finding; exit 0 unless something needed is missing (1)."""
    if plan is not None:
        from vitreous.app.rank_table import print_plan

        print_plan(plan, devices)
        return
    missing = False
    for title, text in _machine():
        click.echo(f"{title:<12} {text}")
    for name in _PACKAGES:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found, missing = "MISSING: pip install -e . in vitreous' directory", True
        click.echo(f"{name:<12} {found}")
    for title, text in _compute():
        click.echo(f"{title:<12} {text}")
    if missing:
        raise click.exceptions.Exit(1)


def _machine() -> list[tuple[str, str]]:
    from vitreous.runtime.device import available_cores
    from vitreous.runtime.memory import free_memory

    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(Path.cwd())
    note = "" if disk.free > _LEAST_FREE_GB * 1e9 else "  LOW: a small project takes some GB"
    return [
        ("vitreous", f"{__version__} ({Path(__file__).resolve().parents[2]})"),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("cpu", f"{_cpu_name()}: {psutil.cpu_count()} cores, {available_cores()} may be used"),
        ("memory", f"{memory.total / 1e9:.1f} GB, {free_memory() / 1e9:.1f} GB free for us"),
        ("disk", f"{disk.free / 1e9:.1f} GB free here ({Path.cwd()}){note}"),
    ]


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()
    return platform.processor()


def _compute() -> list[tuple[str, str]]:
    import torch

    from vitreous.runtime.device import available_cores
    from vitreous.runtime.memory import budget

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    lines = [
        (f"gpu {index}", f"{torch.cuda.get_device_name(index)}, {torch.cuda.mem_get_info(index)[0] / 1e9:.1f} GB free")
        for index in range(count)
    ]
    if not count:
        lines.append(("gpu", f"none (torch is built {'with' if torch.version.cuda else 'without'} CUDA)"))
    relion = shutil.which("relion_refine")
    lines.append(("relion", relion or "not found (needed only for conformance tests)"))
    device = torch.device("cuda", 0) if count else torch.device("cpu")
    what = f"GPU 0{f' to {count - 1}' if count > 1 else ''}" if count else f"CPU with {available_cores()} threads"
    lines.append(
        ("will use", f"{what}, plans for {budget(device=device) / 1e9:.1f} GB (--gpu, --cpu, --j, --max-memory)")
    )
    return lines
