"""Scaling to many GPUs on paper: `python -m benchmarks.ranks.projection` prints the tables of docs/scaling.md.

An iteration on N ranks takes n t / N (images) + s (what every rank does for itself: making maps) + 2 (N - 1) / N B / w
(a ring all-reduce of B bytes at w bytes a second; Patarasuk and Yuan (2009) J. Parallel Distrib. Comput. 69, 117).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# Measured here (see docs/scaling.md): refine3d, box 64, symmetry O, one core, CPU seconds.
IMAGE_S, MAPS_S, BOX = 0.0022, 0.18, 64


@dataclass(frozen=True)
class Work:
    """n images of t seconds, s seconds of maps, B bytes of sums, over a network of w bytes a second."""

    images: int
    image_s: float
    maps_s: float
    sums: float
    network: float

    def seconds(self, ranks: int) -> float:
        """One iteration."""
        adding = 2 * (ranks - 1) / ranks * self.sums / self.network
        return self.images * self.image_s / ranks + self.maps_s + adding


def sums_bytes(box: int, padding: int = 2) -> int:
    """Both halves' sums at full size: complex64 and float32 at each point of the half transform kept."""
    reach = padding * (box // 2) + 1
    return 2 * 12 * (2 * reach + 1) ** 2 * (reach + 1)


def at_box(box: int, images: int, network: float, faster: float = 1.0) -> Work:
    """The measured figures carried over to another box: images go with its square, maps with its cube."""
    ratio = box / BOX
    return Work(images, IMAGE_S * ratio**2 / faster, MAPS_S * ratio**3 / faster, sums_bytes(box), network)


def table(work: Work) -> str:
    rows = ["| ranks | s an iteration | speed-up | efficiency |", "|---|---|---|---|"]
    for ranks in (1, 2, 4, 8, 16, 32, 64):
        gain = work.seconds(1) / work.seconds(ranks)
        rows.append(f"| {ranks} | {work.seconds(ranks):.3g} | {gain:.1f} | {100 * gain / ranks:.0f}% |")
    return "\n".join(rows)


def main() -> None:
    core = at_box(256, 100_000, 10e9)
    print(f"sums at box 256: {core.sums / 1e9:.2f} GB, at box {BOX}: {sums_bytes(BOX) / 1e6:.1f} MB")
    gpu = at_box(256, 100_000, 10e9, faster=50)
    for title, work in (("cores", core), ("GPUs, 10 GB/s", gpu), ("GPUs, 1 GB/s", replace(gpu, network=1e9))):
        print(f"\n{title}\n\n{table(work)}")


if __name__ == "__main__":
    main()
