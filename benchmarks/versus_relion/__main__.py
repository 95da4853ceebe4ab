"""Refinement against Debian's RELION 3.1.3: one table, and benchmarks/results/refinement.json.

    python -m benchmarks.versus_relion [--quick] [--ours-only] [--work DIR]

Each pair of runs starts from the same STAR file, with the same options and iterations (auto-refine: until each
converges), two threads each, one after the other.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from benchmarks.versus_relion import class2d, class3d, expectation, refine3d, relion
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parents[1] / "results" / "refinement.json"
ACCURACY = {
    "class2d": "1 - angle between views within a class / at large",
    "class3d": "purity of the classes",
    "refine3d": "median angular error (deg; less is better)",
}


def run_all(work: Path, *, quick: bool, with_relion: bool) -> dict[str, Any]:
    """All comparisons, smaller with quick."""
    results: dict[str, Any] = {"machine": f"{platform.processor() or platform.machine()}, 2 threads"}
    results["class2d"] = class2d.run(
        work / "class2d", 500 if quick else 2000, 10, 5 if quick else 10, with_relion=with_relion
    )
    results["class3d"] = class3d.run(
        work / "class3d", 150 if quick else 700, 4 if quick else 10, 1, [1], with_relion=with_relion
    )
    results["refine3d"] = refine3d.run(work / "refine3d", 400 if quick else 2000, with_relion=with_relion)
    results["expectation"] = expectation.run(work / "expectation", 400)
    results["expectation_fraction_of_gemm"] = results["expectation"]["expectation_fraction_of_gemm"]
    return results


def table_of(results: dict[str, Any]) -> Table:
    table = Table(title="Refinement against RELION 3.1.3")
    for name in ("", "ours, s", "RELION, s", "ratio", "CPU ratio", "ours", "RELION", "accuracy is", "peak GB"):
        table.add_column(name)
    for name, what in ACCURACY.items():
        row = results[name]
        keys = ("ours_s", "relion_s", "ratio", "cpu_ratio", "ours_accuracy", "relion_accuracy")
        table.add_row(name, *(_figure(row.get(key)) for key in keys), what, _figure(row.get("peak_rss_gb")))
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sets: minutes, and start-up weighs more")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("versus_relion"))
    args = parser.parse_args()
    results = run_all(args.work.resolve(), quick=args.quick, with_relion=not args.ours_only and relion.is_installed())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    console = Console()
    console.print(table_of(results))
    step = results["expectation"]
    console.print(
        f"expectation step: {step['float32']['gflop_s']:.0f} GFLOP/s useful, "
        f"{100 * step['expectation_fraction_of_gemm']:.0f}% of float32 products; with a bfloat16 coarse pass "
        f"{step['bfloat16']['gflop_s']:.0f} GFLOP/s"
    )
    console.print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
