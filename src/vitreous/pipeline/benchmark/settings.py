"""What a benchmark is to run, checked before it starts; and what a sweep tries. Arithmetic alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from vitreous.core.errors import InputError

Case = Literal["2d", "3d"]
Device = Literal["cpu", "cuda", "hip"]

# RELION's public benchmark (Plasmodium ribosome, EMPIAR-10028) and the options it is run with.
FULL_PARTICLES, FULL_BOX, FULL_PIXEL, FULL_K = 105_247, 360, 1.34, {"2d": 200, "3d": 6}
OPTIONS: dict[Case, tuple[str, ...]] = {
    "2d": (
        "--tau2_fudge", "2", "--particle_diameter", "360", "--zero_mask", "true", "--oversampling", "1",
        "--psi_step", "6", "--offset_range", "5", "--offset_step", "2", "--norm", "true", "--scale", "true",
    ),
    "3d": (
        "--firstiter_cc", "true", "--ini_high", "60", "--tau2_fudge", "4", "--particle_diameter", "360",
        "--zero_mask", "true", "--oversampling", "1", "--healpix_order", "2", "--offset_range", "5",
        "--offset_step", "2", "--sym", "C1", "--norm", "true",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """case: 2d or 3d. gpus: how many, 0 on the CPU. threads: of each rank. pool: particles a batch (0: automatic)."""

    case: Case = "2d"
    device: Device = "cpu"
    gpus: int = 0
    ranks: int = 1
    threads: int = 1
    pool: int = 0
    iterations: int = 25

    def check(self, cores: int) -> None:
        """Raise InputError, with the nearest settings that hold, for what does not fit physical cores or GPUs."""
        if self.device == "cpu" and self.gpus:
            raise InputError("-d cpu", f"and -g {self.gpus} are both given", "Leave -g out, or say -d cuda.")
        if self.device != "cpu" and not self.gpus:
            raise InputError(f"-d {self.device}", "needs the number of GPUs", "Give -g 1 or more.")
        if self.gpus and self.ranks % self.gpus:
            near = sorted({max(1, self.ranks // self.gpus), self.ranks // self.gpus + 1})
            fitting = [times * self.gpus for times in near if times * self.gpus * self.threads <= cores]
            words = " or ".join(f"-n {ranks}" for ranks in fitting) or self._fewer_gpus(cores)
            what = f"{self.ranks} ranks are no multiple of {self.gpus} GPUs"
            raise InputError("-n", what, f"Take {words}.")
        if self.ranks * self.threads > cores:
            what = f"{self.ranks} ranks of {self.threads} threads are more than the {cores} physical cores"
            nearest = " or ".join(f"-n {one.ranks} -j {one.threads}" for one in self._nearest(cores))
            raise InputError("-n -j", what, f"Take {nearest}.")

    def _fewer_gpus(self, cores: int) -> str:
        """A rank for each of as many GPUs as there are cores for."""
        gpus = max(1, min(self.gpus, cores))
        return f"-g {gpus} -n {gpus} -j {max(1, min(self.threads, cores // gpus))}"

    def _nearest(self, cores: int) -> Iterator[Settings]:
        """With fewer threads, and with fewer ranks."""
        if self.ranks <= cores:
            yield replace(self, threads=cores // self.ranks)
        each = max(1, self.gpus)
        ranks = cores // self.threads // each * each
        if ranks:
            yield replace(self, ranks=ranks)
        elif self.ranks > cores:
            yield replace(self, ranks=max(each, cores // each * each), threads=1)

    @property
    def name(self) -> str:
        """For a directory or a table."""
        where = f"{self.device}{self.gpus or ''}"
        return f"{self.case}_{where}_n{self.ranks}_j{self.threads}_p{self.pool or 'auto'}"


@dataclass(frozen=True)
class Shape:
    """A set of particles: how many, of what box (pixels) and pixel size (A), and classes."""

    particles: int
    box: int
    pixel_size: float
    classes: int


def scaled(case: Case, scale: float) -> Shape:
    """The benchmark's own set at a scale of 0 to 1: particles in proportion, box and classes as its third root.

    The field of view stays that of the particle, so that pixels grow as the box shrinks.
    """
    root = scale ** (1 / 3)
    box = max(32, 2 * round(FULL_BOX * root / 2))
    classes = max(2, round(FULL_K[case] * root))
    particles = max(4 * classes, round(FULL_PARTICLES * scale))
    return Shape(particles, box, FULL_PIXEL * FULL_BOX / box, classes)


def sweep(base: Settings, cores: int, pools: tuple[int, ...]) -> list[Settings]:
    """Everything within the machine: ranks and threads in powers of two (and all cores), each pool."""
    counts = sorted({1 << n for n in range(cores.bit_length()) if 1 << n <= cores} | {cores})
    found = []
    for ranks in counts:
        if ranks % max(1, base.gpus):
            continue
        for threads in counts:
            if ranks * threads <= cores:
                found += [replace(base, ranks=ranks, threads=threads, pool=pool) for pool in pools]
    return found
