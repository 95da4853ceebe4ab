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

from vitreous.core.ctf import Defocus, Microscope, ctf, phase_aberration
from vitreous.core.fourier import frequency_grid, hermitian_weights
from vitreous.data.dataset import Dataset
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset
from vitreous.job import Context
from vitreous.jobs.simulate_micrographs import SimulateMicrographs
from vitreous.methods.ctf_fitting.fit import fit_ctf
from vitreous.methods.ctf_fitting.search import SearchSettings
from vitreous.methods.ctf_fitting.spectrum import spectrum_of_micrograph

# What micrographs a fit meets, and what it is told to look for. Defoci 0.3 to 4 um and astigmatism to 2,000 A in each.
CASES: dict[str, tuple[dict[str, float], SearchSettings]] = {
    "full dose": ({"dose": 40.0}, SearchSettings(2000.0)),
    "tenth dose": ({"dose": 4.0}, SearchSettings(2000.0)),
    "near focus": ({"dose": 40.0, "defocus_max": 6000.0, "astigmatism": 600.0}, SearchSettings(2000.0)),
    "carbon": ({"dose": 20.0, "carbon": 0.3}, SearchSettings(2000.0)),
    "phase plate": ({"dose": 40.0, "phase_shift": 80.0}, SearchSettings(2000.0, phase_max=180.0)),
}
THICKNESSES = (200.0, 1000.0, 2000.0)  # A

PIXEL, KRIOS, B_FACTOR = 1.2, Microscope(300.0, 2.7, 0.07), 40.0


def defocus(values: list[float]) -> Defocus:
    return Defocus(*(torch.tensor([value], dtype=torch.float64) for value in values))


def power_spectrum(
    size: int, at: Defocus, strength: float, thickness: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Power of background and Thon rings on the rfft grid, and |k|^2. thickness: A, of the sample."""
    ky, kx = frequency_grid((size, size), PIXEL)
    k2 = ky**2 + kx**2
    contrast = ctf((size, size), PIXEL, KRIOS, at, dtype=torch.float64)[0]
    # CTF^2 averaged over the slices of the sample.
    nodes = torch.sinc(KRIOS.wavelength * thickness * k2)
    squared = 0.5 + (contrast**2 - 0.5) * nodes
    return 1.0 + strength * squared * torch.exp(-B_FACTOR * k2) + 5.0 * torch.exp(-60.0 * k2.sqrt()), k2


def bound(size: int, at: Defocus, strength: float) -> float:
    """Least standard deviation (A) that any unbiased fit of the mean defocus can have between 30 and 3 A."""
    power, k2 = power_spectrum(size, at, strength)
    ky, kx = frequency_grid((size, size), PIXEL)
    chi = phase_aberration(k2, torch.atan2(ky.expand_as(k2), kx.expand_as(k2)), KRIOS, at)[0]
    slope = strength * torch.exp(-B_FACTOR * k2) * torch.sin(2.0 * chi) * torch.pi * KRIOS.wavelength * k2
    inside = (k2 > 30.0**-2) & (k2 < 3.0**-2)
    # A periodogram's coefficient is exponential: variance = power^2; each independent one is counted once.
    weight = hermitian_weights(size).expand_as(k2) / 2.0
    return float(((slope / power).square() * weight)[inside].sum() ** -0.5)


def angle_bound(mean_bound: float, spread: float) -> float:
    """Least standard deviation (degrees) of the astigmatism's axis: its parts are known sqrt(2) worse than the mean."""
    return float(np.rad2deg(np.sqrt(2.0) * mean_bound / spread))


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
    return found


def measure_thick(size: int, n: int, thickness: float) -> list[dict[str, float]]:
    """As `measure`, of samples whose rings have nodes."""
    rng = np.random.default_rng(int(thickness))
    rows = []
    for _ in range(n):
        mean, spread, angle = rng.uniform(6000, 25000), rng.uniform(300, 1000), rng.uniform(-90, 90)
        power, _ = power_spectrum(size, defocus([mean + spread / 2, mean - spread / 2, angle, 0.0]), 1.0, thickness)
        white = torch.fft.rfft2(torch.from_numpy(rng.standard_normal((size, size))))
        image = torch.fft.irfft2(white * power.sqrt(), s=(size, size)).float().numpy()
        start = time.process_time()
        spectrum = spectrum_of_micrograph(image, PIXEL)
        middle = time.process_time()
        fit = fit_ctf(spectrum, KRIOS, settings=SearchSettings(3000.0, thickness_max=3000.0))
        end = time.process_time()
        rows.append(
            {
                "error": (fit.defocus_u + fit.defocus_v) / 2 - mean,
                "has_rings": float(fit.has_rings),
                "resolution": fit.resolution,
                "thickness": fit.thickness,
                "astigmatism_error": fit.defocus_u - fit.defocus_v - spread,
                "angle_error": abs((fit.defocus_angle - angle + 90.0) % 180.0 - 90.0),
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
    """Root mean squares and medians over micrographs."""
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    angles = column["angle_error"][~np.isnan(column["angle_error"])]
    trusted = column["error"][column["has_rings"] == 1.0]
    figures = {
        "n": len(rows),
        "worst_error_with_rings_A": float(np.abs(trusted).max(initial=0.0)),
        "defocus_rms_error_A": float(np.sqrt(np.mean(column["error"] ** 2))),
        "astigmatism_rms_error_A": float(np.sqrt(np.mean(column["astigmatism_error"] ** 2))),
        "angle_rms_error_deg": float(np.sqrt(np.mean(angles**2))) if len(angles) else float("nan"),
        "n_without_rings": int((column["has_rings"] == 0.0).sum()),
        "angle_worst_error_deg": float(angles.max(initial=0.0)),
        "spectrum_cpu_s": float(np.median(column["spectrum_s"])),
        "fit_cpu_s": float(np.median(column["fit_s"])),
    }
    if "resolution" in column:
        figures["resolution_A"] = float(np.median(column["resolution"]))
    if "phase_error" in column:
        figures["phase_rms_error_deg"] = float(np.sqrt(np.mean(column["phase_error"] ** 2)))
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
