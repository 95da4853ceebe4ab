"""Draw one simulated cell with its hits, its z-scores and what the peaks are like: docs/matching_cell.png.

python benchmarks/matching_cells/picture.py --full FOLDER/full1.npz --seed 1 --out docs/matching_cell.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from cell import REPOSITORY, Recipe, make_cell
from judge import BOX, NEAR_PX, searchable
from scipy import ndimage

from vitreous.methods.matching.peaks import find_peaks
from vitreous.methods.matching.significance import calibrated_threshold, detection_threshold

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", type=Path, required=True, help="maps that run.py --keep left")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs/matching_cell.png")
    args = parser.parse_args()
    cell, maps = make_cell(Recipe(), args.seed), np.load(args.full)
    score = maps["scaled_mip"]
    peaks = find_peaks(score, -np.inf, 20.0)
    size = score.size, int(maps["n_correlations"])
    formula, fitted = detection_threshold(*size), calibrated_threshold(peaks.scores, *size)
    truth = cell.scene.coordinates[searchable(cell)]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.6, 4.3), layout="constrained")
    image = ndimage.gaussian_filter(cell.image.numpy(), 2.0)
    low, high = np.percentile(image, [1, 99])
    left.imshow(image, cmap="gray", vmin=low, vmax=high)
    hits = peaks.positions[peaks.scores > formula] + BOX // 2
    off = np.hypot(hits[:, None, 1] - truth[None, :, 0], hits[:, None, 0] - truth[None, :, 1]).min(1)
    for (y, x), distance in zip(hits, off, strict=True):
        colour = "tab:green" if distance <= NEAR_PX else "tab:red"
        left.add_patch(plt.Circle((x, y), 42, fill=False, color=colour, linewidth=1.2))
    left.plot(truth[:, 0], truth[:, 1], "+", color="tab:orange", markersize=5)
    left.set_title("micrograph, targets (+), hits (o)", fontsize=9)
    middle.imshow(ndimage.maximum_filter(score, 5), cmap="magma", vmin=3.5, vmax=9.0)
    middle.set_title("scaled MIP (highest of 5 x 5 pixels)", fontsize=9)
    for axes in (left, middle):
        axes.set_axis_off()
    right.hist(peaks.scores, bins=np.arange(4.0, score.max() + 0.2, 0.1), log=True, color="tab:gray")
    right.axvline(formula, color="tab:red", linewidth=1.2, label=f"formula {formula:.2f}")
    right.axvline(fitted, color="tab:blue", linewidth=1.2, linestyle="--", label=f"--calibrated {fitted:.2f}")
    right.set_xlabel("z-score of peaks")
    right.legend(fontsize=8, frameon=False)
    figure.savefig(args.out, dpi=90)


if __name__ == "__main__":
    main()
