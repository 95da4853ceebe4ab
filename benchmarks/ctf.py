"""Rate and accuracy of CTF fitting on micrographs of known defocus.

On those of `simulate-micrographs` (particles in ice, at an exposure), and on synthetic noise with far weaker rings.
No CTF program can be installed here beside ours, so the synthetic ones are held against what the noise allows: the
Cramér-Rao bound of the mean defocus for the same rings and the same number of Fourier pixels.

    python benchmarks/ctf.py [--size 4096] [--n 8] [--strength 0.3]
    python benchmarks/ctf.py --dose 40 [--size 2048] [--n 6]
    python benchmarks/ctf.py --cases [--size 2048] [--n 2]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ctf_synthetic import (
    KRIOS,
    PIXEL,
    TILT_PIXEL,
    angle_bound,
    bound,
    defocus,
    power_spectrum,
    tilted_micrograph,
)

from vitreous.core.ctf import Microscope
from vitreous.data.dataset import Dataset
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset
from vitreous.job import Context
from vitreous.jobs.simulate_micrographs import SimulateMicrographs
from vitreous.methods.ctf_fitting.fit import fit_ctf
from vitreous.methods.ctf_fitting.search import SearchSettings
from vitreous.methods.ctf_fitting.spectrum import spectrum_of_micrograph, tile_spectra
from vitreous.methods.ctf_fitting.tilt import fit_tilted_ctf

# What micrographs a fit meets, and what it is told to look for. Defoci 0.3 to 4 um and astigmatism to 2,000 A in each.
CASES: dict[str, tuple[dict[str, float], SearchSettings]] = {
    "full dose": ({"dose": 40.0}, SearchSettings(2000.0)),
    "tenth dose": ({"dose": 4.0}, SearchSettings(2000.0)),
    "near focus": ({"dose": 40.0, "defocus_max": 6000.0, "astigmatism": 600.0}, SearchSettings(2000.0)),
    "carbon": ({"dose": 20.0, "carbon": 0.3}, SearchSettings(2000.0)),
    "phase plate": ({"dose": 40.0, "phase_shift": 80.0}, SearchSettings(2000.0, phase_max=180.0)),
}
THICKNESSES = (200.0, 1000.0, 2000.0)  # A
ASTIGMATISMS = (1000.0, 2000.0)  # A, of bare spectra
TILT = 30.0  # degrees


def measure(size: int, n: int, strength: float) -> list[dict[str, float]]:
    """Errors and CPU seconds of n micrographs, one after the other."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(7)
    rows = []
    for _ in range(n):
        mean, spread, angle = rng.uniform(4000, 35000), rng.uniform(0, 800), rng.uniform(-90, 90)
        at = defocus([mean + spread / 2, mean - spread / 2, angle, 0.0])
        power, _ = power_spectrum(size, at, strength)
        white = torch.fft.rfft2(torch.from_numpy(rng.standard_normal((size, size))))
        image = torch.fft.irfft2(white * power.sqrt(), s=(size, size)).float().numpy()
        start = time.process_time()
        spectrum = spectrum_of_micrograph(image, PIXEL)
        middle = time.process_time()
        fit = fit_ctf(spectrum, KRIOS, settings=SearchSettings(defocus_min=3000.0))
        end = time.process_time()
        turn = abs((fit.defocus_angle - angle + 90.0) % 180.0 - 90.0)
        least = bound(size, at, strength)
        rows.append(
            {
                "defocus": mean,
                "error": (fit.defocus_u + fit.defocus_v) / 2 - mean,
                "bound": least,
                "angle_bound": angle_bound(least, spread) if spread > 300.0 else float("nan"),
                "has_rings": float(fit.has_rings),
                "astigmatism_error": fit.defocus_u - fit.defocus_v - spread,
                "angle_error": turn if spread > 300.0 else float("nan"),
                "spectrum_s": middle - start,
                "fit_s": end - middle,
            }
        )
        print(" ".join(f"{name} {value:.2f}" for name, value in rows[-1].items()), flush=True)
    return rows


def measure_cases(size: int, n: int) -> dict[str, dict[str, float]]:
    """Every kind of micrograph, and thick samples: what `summarise` says of each."""
    found = {}
    for name, (given, settings) in CASES.items():
        field = {"defocus_min": 3000.0, "defocus_max": 40000.0, "astigmatism": 2000.0, **given}
        found[name] = summarise(measure_simulated(size, n, settings=settings, **field))
    for thickness in THICKNESSES:
        found[f"{thickness / 10:.0f} nm thick"] = summarise(measure_thick(size, n, thickness))
    for spread in ASTIGMATISMS:
        found[f"{spread:.0f} A astigmatism"] = summarise(measure_bare(size, n, spread))
    found[f"{TILT:.0f} degrees tilt"] = summarise(measure_tilted(size, n, TILT))
    return found


def measure_thick(size: int, n: int, thickness: float) -> list[dict[str, float]]:
    """As `measure`, of samples whose rings have nodes; astigmatism 300 to 1,000 A."""
    rng = np.random.default_rng(int(thickness))
    settings = SearchSettings(3000.0, thickness_max=3000.0)
    return [fit_bare(size, rng.uniform(300, 1000), rng, settings, thickness) for _ in range(n)]


def measure_bare(size: int, n: int, astigmatism: float) -> list[dict[str, float]]:
    """As `measure`, of one astigmatism (A) and rings as strong as the noise."""
    rng = np.random.default_rng(int(astigmatism))
    settings = SearchSettings(3000.0, astigmatism_expected=2000.0)
    return [fit_bare(size, astigmatism, rng, settings) for _ in range(n)]


def fit_bare(
    size: int, spread: float, rng: np.random.Generator, settings: SearchSettings, thickness: float = 0.0
) -> dict[str, float]:
    """Errors, their bounds and CPU seconds of one synthetic micrograph of strength 1. spread: astigmatism in A."""
    mean, angle = rng.uniform(6000, 25000), rng.uniform(-90, 90)
    at = defocus([mean + spread / 2, mean - spread / 2, angle, 0.0])
    power, _ = power_spectrum(size, at, 1.0, thickness)
    white = torch.fft.rfft2(torch.from_numpy(rng.standard_normal((size, size))))
    image = torch.fft.irfft2(white * power.sqrt(), s=(size, size)).float().numpy()
    start = time.process_time()
    spectrum = spectrum_of_micrograph(image, PIXEL)
    middle = time.process_time()
    fit = fit_ctf(spectrum, KRIOS, settings=settings)
    end = time.process_time()
    least = bound(size, at, 1.0, thickness)
    row = {
        "error": (fit.defocus_u + fit.defocus_v) / 2 - mean,
        "bound": least,
        "has_rings": float(fit.has_rings),
        "resolution": fit.resolution,
        "thickness": fit.thickness,
        "astigmatism_error": fit.defocus_u - fit.defocus_v - spread,
        "angle_error": turned(fit.defocus_angle - angle),
        "angle_bound": angle_bound(least, spread),
        "spectrum_s": middle - start,
        "fit_s": end - middle,
    }
    print(" ".join(f"{name} {value:.2f}" for name, value in row.items()), flush=True)
    return row


def turned(angle: float) -> float:
    """How far two axes lie apart, degrees."""
    return abs((angle + 90.0) % 180.0 - 90.0)


def measure_tilted(size: int, n: int, tilt: float) -> list[dict[str, float]]:
    """As `measure`, of tilted samples without astigmatism; angle_error is that of the tilt's axis."""
    rng = np.random.default_rng(int(tilt))
    rows = []
    for _ in range(n):
        mean, axis = rng.uniform(12000, 25000), rng.uniform(-180, 180)
        image = tilted_micrograph(size, mean, tilt, axis, rng).astype(np.float32)
        start = time.process_time()
        tiles = list(tile_spectra(image, TILT_PIXEL))
        middle = time.process_time()
        fit, found, _ = fit_tilted_ctf(tiles, KRIOS)
        end = time.process_time()
        rows.append(
            {
                "error": (fit.defocus_u + fit.defocus_v) / 2 - mean,
                "has_rings": float(fit.has_rings),
                "resolution": fit.resolution,
                "tilt_error": found.tilt - tilt,
                "astigmatism_error": fit.defocus_u - fit.defocus_v,
                "angle_error": abs((found.axis - axis + 180.0) % 360.0 - 180.0),
                "spectrum_s": middle - start,
                "fit_s": end - middle,
            }
        )
        print(" ".join(f"{name} {value:.2f}" for name, value in rows[-1].items()), flush=True)
    return rows


def measure_simulated(
    size: int, n: int, dose: float, settings: SearchSettings | None = None, **simulation: float
) -> list[dict[str, float]]:
    """As `measure`, of the simulator's micrographs. dose: e/A^2; simulation: see SimulateMicrographs.Parameters."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        project, job = Path(folder), Path(folder) / "Simulate/job001"
        job.mkdir(parents=True)
        given = {"n_micrographs": n, "dose": dose, "size_x": size, "size_y": size, "particles": 150, **simulation}
        context = Context(project, job, torch.device("cpu"), 1, 1, 6 << 30)
        SimulateMicrographs().run(SimulateMicrographs.Parameters(**given), context)
        truth = read_dataset(job / "truth_micrographs.star")
        for index in range(len(truth)):
            rows.append(fit_simulated(project, truth, index, settings or SearchSettings(2000.0)))
            print(" ".join(f"{name} {value:.2f}" for name, value in rows[-1].items()), flush=True)
    return rows


def fit_simulated(project: Path, truth: Dataset, index: int, settings: SearchSettings) -> dict[str, float]:
    """Errors and CPU seconds of one of the simulator's micrographs."""
    row, optics = truth.rows.row(index), truth.optics.row(0)
    image, pixel_size = read_image(project / str(row["micrograph_name"]))
    lens = Microscope(float(optics["voltage"]), float(optics["cs"]), float(optics["amplitude_contrast"]))
    u, v, angle = (float(row[name]) for name in ("defocus_u", "defocus_v", "defocus_angle"))
    start = time.process_time()
    spectrum = spectrum_of_micrograph(image, pixel_size)
    middle = time.process_time()
    fit = fit_ctf(spectrum, lens, settings=settings)
    end = time.process_time()
    turn = abs((fit.defocus_angle - angle + 90.0) % 180.0 - 90.0)
    return {
        "defocus": (u + v) / 2,
        "astigmatism": u - v,
        "error": (fit.defocus_u + fit.defocus_v - u - v) / 2,
        "has_rings": float(fit.has_rings),
        "resolution": fit.resolution,
        "phase_error": fit.phase_shift - float(row["phase_shift"]),
        "astigmatism_error": fit.defocus_u - fit.defocus_v - u + v,
        "angle_error": turn if u - v > 300.0 else float("nan"),
        "spectrum_s": middle - start,
        "fit_s": end - middle,
    }


def summarise(rows: list[dict[str, float]]) -> dict[str, float]:
    """Root mean squares and medians over micrographs; no angle where none has 300 A of astigmatism."""
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    angles = column["angle_error"][~np.isnan(column["angle_error"])]
    trusted = column["error"][column["has_rings"] == 1.0]
    figures = {
        "n": len(rows),
        "worst_error_with_rings_A": float(np.abs(trusted).max(initial=0.0)),
        "defocus_rms_error_A": float(np.sqrt(np.mean(column["error"] ** 2))),
        "astigmatism_rms_error_A": float(np.sqrt(np.mean(column["astigmatism_error"] ** 2))),
        "n_without_rings": int((column["has_rings"] == 0.0).sum()),
        "spectrum_cpu_s": float(np.median(column["spectrum_s"])),
        "fit_cpu_s": float(np.median(column["fit_s"])),
    }
    if len(angles):
        figures["angle_rms_error_deg"] = float(np.sqrt(np.mean(angles**2)))
        figures["angle_worst_error_deg"] = float(angles.max())
    if "resolution" in column:
        figures["resolution_A"] = float(np.median(column["resolution"]))
    if "phase_error" in column:
        figures["phase_rms_error_deg"] = float(np.sqrt(np.mean(column["phase_error"] ** 2)))
    if "tilt_error" in column:
        figures["tilt_rms_error_deg"] = float(np.sqrt(np.mean(column["tilt_error"] ** 2)))
    if "thickness" in column:
        figures["thickness_A"] = float(np.median(column["thickness"]))
    if "bound" in column:
        figures["defocus_rms_bound_A"] = float(np.sqrt(np.mean(column["bound"] ** 2)))
        figures["angle_rms_bound_deg"] = float(np.sqrt(np.nanmean(column["angle_bound"] ** 2)))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--strength", type=float, default=0.3, help="power of the rings over the noise")
    parser.add_argument(
        "--dose", type=float, default=0.0, help="instead: simulated micrographs at this exposure (e/A^2)"
    )
    parser.add_argument("--defocus", type=float, nargs=2, default=(3000.0, 40000.0), help="of these, A")
    parser.add_argument("--astigmatism", type=float, default=2000.0, help="of these, A")
    parser.add_argument("--cases", action="store_true", help="instead: every kind of micrograph there is")
    options = parser.parse_args()
    if options.cases:
        print(json.dumps(measure_cases(options.size, options.n), indent=2))
        return
    if options.dose:
        low, high = options.defocus
        field = {"defocus_min": low, "defocus_max": high, "astigmatism": options.astigmatism}
        rows = measure_simulated(options.size, options.n, options.dose, **field)
    else:
        rows = measure(options.size, options.n, options.strength)
    print(json.dumps({"micrograph_px": options.size, **summarise(rows)}, indent=2))


if __name__ == "__main__":
    main()
