"""The table of `make bench-matching`: ours, Leopard-EM's, agreement, floor; from benchmarks/results/matching.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parent / "results/matching.json"


def sizes_table(sizes: dict[str, Any]) -> Table:
    """Correlations a core second, and how alike the maps are."""
    names = ("size", "box", "ours/s", "Leopard-EM/s", "ratio", "floor/s", "of the floor", "MIP", "scaled MIP", "angles")
    table = Table(*names, title="Full search beside Leopard-EM, one core each, the same run")
    for size, one in sizes.items():
        agreement = one["agreement"]
        table.add_row(
            size, str(one["box"]), f"{one['ours_per_s']:.1f}", f"{one['leopard_per_s']:.1f}", f"{one['ratio']:.1f}",
            f"{one['floor_per_s']:.0f}", f"{one['fraction_of_floor']:.2f}", f"{agreement['mip_correlation']:.4f}",
            f"{agreement['scaled_mip_correlation']:.4f}", f"{agreement['same_best_orientation_and_defocus']:.3f}",
        )  # fmt: skip
    return table


def cells_table(cells: dict[str, Any]) -> Table:
    """What either search found in the simulated cells."""
    title = f"{cells['cells']} simulated cells, {cells['targets']} targets, one false positive accepted in each"
    table = Table("", "found", "false positives", "CPU seconds", title=title)
    for name, label in (("full", "full"), ("full_calibrated", "full, calibrated"), ("hierarchical", "hierarchical")):
        seconds = cells["cpu_s"].get(name)
        table.add_row(
            label, str(cells["found"][name]), str(cells["false_positives"][name]), f"{seconds:.0f}" if seconds else ""
        )
    table.caption = f"{cells['speedup']} times less, {100.0 * cells['lost_fraction']:.1f}% of the detections lost"
    return table


def main() -> None:
    results = json.loads(RESULTS.read_text())
    console = Console(width=120)
    console.print(sizes_table(results["sizes"]))
    console.print(cells_table(results["hierarchical"]))
    console.print(f"least correlation of the MIPs: {results['mip_correlation']:.5f}; all figures: {RESULTS}")


if __name__ == "__main__":
    main()
