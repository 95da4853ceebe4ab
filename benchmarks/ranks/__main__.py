"""`make bench-ranks`: what ranks gain, whether they agree, and what faults cost: benchmarks/results/ranks.json."""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

import psutil
from benchmarks.ranks.faults import faults
from benchmarks.ranks.scaling import agreement, scaling, simulate

from vitreous import __version__

RESULTS = Path(__file__).parents[1] / "results" / "ranks.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--movies", type=int, default=12, help="movies that are shared")
    parser.add_argument(
        "--times", type=float, default=1.0, help="work of the scaling part (1: a minute and more a job)"
    )
    parser.add_argument("--only", choices=["scaling", "agreement", "faults"], help="one part alone")
    parser.add_argument("--fault", default="", help="only faults with these words in their name")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path, help="work here, and leave it")
    given = parser.parse_args()
    result = json.loads(given.output.read_text()) if given.output.exists() else {}
    result.pop("load_average_after_scaling", None)  # it stands beside each job's seconds now
    with tempfile.TemporaryDirectory(prefix="vitreous_ranks_") as folder:
        project = given.keep or Path(folder)
        project.mkdir(parents=True, exist_ok=True)
        if not (project / "Simulate/particles.star").exists():
            simulate(project, given.movies)
        if given.only in (None, "scaling"):
            by_job = scaling(project, given.times)
            slowest = {name: min(one[name] for one in by_job.values()) for name in ("ratio", "ratio_of_cpu")}
            result |= {"scaling_1_to_2": slowest["ratio"], "scaling_1_to_2_of_cpu": slowest["ratio_of_cpu"]}
            result["scaling_by_job"] = by_job
        if given.only in (None, "agreement"):
            result |= agreement(project)
        if given.only in (None, "faults"):
            before = result.get("faults", {}) if given.fault else {}
            result["faults"] = before | faults(project, given.fault)
    cores = psutil.cpu_count(logical=False)
    result["machine"] = {"cores": cores, "system": platform.platform(), "vitreous": __version__}
    given.output.write_text(json.dumps(result, indent=2) + "\n")
    print(given.output.read_text())


if __name__ == "__main__":
    main()
