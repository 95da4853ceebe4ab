"""Leopard-EM and vitreous on the same micrographs: correlations a core second, agreement of the maps, the floor.

    python benchmarks/versus_leopard_em/run.py --out benchmarks/results/matching.json [--sizes 512 1024 2048 4096]

README.md beside this file says what has to be installed. Each size runs both programs one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
TOOLS = Path(os.environ.get("LEOPARD_TOOLS", REPOSITORY.parent / "shared/tools/leopard_em"))
PEER = os.environ.get("LEOPARD_PYTHON", str(REPOSITORY / ".leopard-em/bin/python"))
# size -> box, particles, atoms, defocus range (0: one plane), psi step, peer's batch; always the whole grid, as in a
# search: the first orientations of it alone have no twins
CASES: dict[int, tuple[int, int, int, float, int, int]] = {
    512: (128, 9, 4000, 400.0, 36, 4),
    1024: (256, 12, 8000, 200.0, 36, 4),
    2048: (256, 12, 8000, 0.0, 36, 4),
    4096: (512, 10, 8000, 0.0, 180, 2),
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def call(command: list[str], **settings: Any) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT, **settings)
    return done.stdout


def last_json(text: str) -> dict[str, Any]:
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def compare(folder: Path, angles: np.ndarray) -> dict[str, Any]:
    """Correlations of the maps over all pixels, and whether the highest peaks are the same."""
    script = "import sys, torch, numpy as np; m = torch.load(sys.argv[1], weights_only=False); np.savez(sys.argv[2], "
    script += "**{k: v.numpy() for k, v in m.items() if hasattr(v, 'numpy')})"
    call([PEER, "-c", script, str(folder / "leopard/maps.pt"), str(folder / "leopard/maps.npz")])
    theirs, ours = np.load(folder / "leopard/maps.npz"), np.load(folder / "ours.npz")

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    same = np.ones(ours["mip"].shape, bool)
    for ours_name, name in (("phi", "phi"), ("theta", "theta"), ("psi", "psi"), ("relative_defocus", "defocus")):
        same &= np.abs(ours[ours_name] - theirs[name]) < 1e-2
    on_axis = [
        (np.abs(np.remainder(maps["phi"] + 1e-3, 180.0)) < 2e-3)
        & (np.abs(np.remainder(maps["psi"] + 1e-3, 180.0)) < 2e-3)
        for maps in (ours, theirs)
    ]
    off = ~(on_axis[0] | on_axis[1])  # of slices along an axis of the volume Leopard-EM loses coefficients: README.md
    peaks = [highest(maps["mip"], 8) for maps in (ours, theirs)]
    shared = sum(any(max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 1 for b in peaks[1]) for a in peaks[0])
    return {
        "mip_correlation": correlation(ours["mip"], theirs["mip"]),
        "scaled_mip_correlation": correlation(ours["scaled_mip"], theirs["z"]),
        "scaled_mip_correlation_off_axes": correlation(ours["scaled_mip"][off], theirs["z"][off]),
        "mean_correlation": correlation(ours["mean"], theirs["mean"]),
        "deviation_correlation": correlation(np.sqrt(ours["variance"]), theirs["std"]),
        "same_best_orientation_and_defocus": float(same.mean()),
        "same_of_8_highest_peaks": shared,
    }


def highest(score: np.ndarray, count: int, distance: int = 20) -> list[tuple[int, int]]:
    """Positions of the highest peaks, each the highest within `distance`."""
    left = score.copy()
    found = []
    for _ in range(count):
        y, x = (int(v) for v in np.unravel_index(left.argmax(), left.shape))
        found.append((y, x))
        left[max(0, y - distance) : y + distance, max(0, x - distance) : x + distance] = -np.inf
    return found


def run_case(size: int, folder: Path) -> dict[str, Any]:
    box, particles, atoms, defocus, psi, batch = CASES[size]
    grid = folder.parent / "grid.npy"
    # theta 36: no ring at 90
    call([PEER, str(TOOLS / "save_grid.py"), str(grid), str(psi), "36"])
    simulate = [PEER, str(TOOLS / "make_synthetic.py"), str(folder), "--size", str(size), "--box", str(box)]
    simulate += ["--particles", str(particles), "--atoms", str(atoms), "--snr", "0.03", "--grid", str(grid)]
    call([*simulate, "--spread", str(defocus)])
    configure = [PEER, str(TOOLS / "make_config.py"), str(folder), "--psi", str(psi), "--theta", "36"]
    call([*configure, "--dmax", str(defocus), "--dstep", "200"])
    peer = [PEER, str(TOOLS / "run_leopard_cpu.py"), str(folder / "config.yaml"), "--batch", str(batch)]
    theirs = last_json(call([*peer, "--warm", str(2 * batch), "--threads", "1"]))
    angles = np.load(grid)
    ours_command = [sys.executable, str(HERE / "ours.py"), str(folder / "config.yaml"), "--angles", str(grid)]
    ours = last_json(call([*ours_command, "--out", str(folder / "ours.npz")], cwd=REPOSITORY))
    assert ours["correlations"] == theirs["correlations"]
    return {
        "box": box,
        "correlations": ours["correlations"],
        "ours_per_s": round(ours["per_core_s"], 2),
        "leopard_per_s": round(theirs["corr_per_core_s"], 2),
        "ratio": round(ours["per_core_s"] / theirs["corr_per_core_s"], 2),
        "floor_per_s": round(ours["floor_per_core_s"], 2),
        "fraction_of_floor": round(ours["per_core_s"] / ours["floor_per_core_s"], 3),
        "wall_per_s": {"ours": round(ours["correlations"] / ours["wall_s"], 2), "leopard": theirs["corr_per_s"]},
        "agreement": compare(folder, angles),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/matching.json")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(CASES))
    args = parser.parse_args()
    if not Path(PEER).exists() or not TOOLS.is_dir():
        sys.exit(f"Leopard-EM is not at {PEER}, or its tools are not at {TOOLS}: see {HERE / 'README.md'}")
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    results.setdefault("unit", "correlations a core second (CPU time, one thread each), both in one run")
    sizes = results.setdefault("sizes", {})
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            sizes[str(size)] = run_case(size, Path(folder) / "case")
        one = sizes[str(size)]
        print(f"{size}: ours {one['ours_per_s']}, Leopard-EM {one['leopard_per_s']}, ratio {one['ratio']}, "
              f"floor {one['floor_per_s']}, agreement {one['agreement']}", flush=True)  # fmt: skip
    results["mip_correlation"] = min(one["agreement"]["mip_correlation"] for one in sizes.values())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
