"""The text files and log lines that CTFFIND 4.1 leaves and other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.io.ctffind_dialogue import CtffindRequest
from vitreous.runtime.atomic import write_text

VERSION = "4.1.14"  # the version whose files these are


@dataclass(frozen=True)
class CtffindResult:
    """One micrograph's fit. defocus in A, angle in degrees, phase in radians, resolution and aliasing limit in A."""

    defocus_1: float
    defocus_2: float
    angle: float
    phase: float
    score: float
    resolution: float


def summary_path(output: str | Path) -> Path:
    """m.ctf -> m.txt."""
    return Path(output).with_suffix(".txt")


def profiles_path(output: str | Path) -> Path:
    """m.ctf -> m_avrot.txt."""
    path = Path(output)
    return path.with_name(f"{path.stem}_avrot.txt")


def write_summary(request: CtffindRequest, pixel_size: float, results: Sequence[CtffindResult]) -> None:
    """The .txt file. pixel_size: A, of the spectrum that was fitted."""
    columns = (
        "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism; "
        "#5 - additional phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF "
        "rings were fit successfully"
    )
    lines = [*_header(request, pixel_size, len(results)), columns]
    for number, one in enumerate(results, 1):
        values = (number, one.defocus_1, one.defocus_2, one.angle, one.phase, one.score, one.resolution)
        lines.append(" ".join(f"{value:.6f}" for value in values))
    write_text(summary_path(request.output), "\n".join(lines) + "\n")


def write_profiles(request: CtffindRequest, pixel_size: float, profiles: Sequence[NDArray[np.float64]]) -> None:
    """The _avrot.txt file. profiles: (6, n) a micrograph, in the order that the header names."""
    columns = (
        "# 6 lines per micrograph: #1 - spatial frequency (1/Angstroms); #2 - 1D rotational average of spectrum "
        "(assuming no astigmatism); #3 - 1D rotational average of spectrum; #4 - CTF fit; #5 - cross-correlation "
        "between spectrum and CTF fit; #6 - 2sigma of expected cross correlation of noise"
    )
    average = request.movie.average if request.movie is not None else 1
    lines = [*_header(request, pixel_size, len(profiles), f"; num. frames averaged: {average}"), columns]
    lines += [" ".join(f"{value:.6f}" for value in row) for profile in profiles for row in profile]
    write_text(profiles_path(request.output), "\n".join(lines) + "\n")


def _header(request: CtffindRequest, pixel_size: float, count: int, more: str = "") -> list[str]:
    lens = request.microscope
    return [
        f"# Output from CTFFind version {VERSION}, run on {datetime.now():%Y-%m-%d %H:%M:%S} (vitreous-ctffind)",
        f"# Input file: {request.input} ; Number of micrographs: {count}",
        f"# Pixel size: {pixel_size:.3f} Angstroms ; acceleration voltage: {lens.voltage:.1f} keV ; spherical "
        f"aberration: {lens.cs:.2f} mm ; amplitude contrast: {lens.amplitude_contrast:.2f}",
        # "um" is CTFFIND's own mistake; programs compare this line as text.
        f"# Box size: {request.box} pixels ; min. res.: {request.resolution_min:.1f} Angstroms ; max. res.: "
        f"{request.resolution_max:.1f} Angstroms ; min. def.: {request.defocus_min:.1f} um; max. def. "
        f"{request.defocus_max:.1f} um{more}",
    ]


def log_lines(result: CtffindResult, pixel_size: float, aliasing: float) -> list[str]:
    """What the log says of one micrograph. aliasing: A, resolution beyond which rings are too fine for the box."""
    lines = [
        f"Estimated defocus values        : {result.defocus_1:.2f} , {result.defocus_2:.2f} Angstroms",
        f"Estimated azimuth of astigmatism: {result.angle:.2f} degrees",
    ]
    if result.phase:
        degrees, turns = np.rad2deg(result.phase), result.phase / np.pi
        lines.append(
            f"Additional phase shift          : {degrees:.3f} degrees ({result.phase:.3f} radians) ({turns:.3f} PI)"
        )
    lines += [
        f"Score                           : {result.score:.5f}",
        f"Pixel size for fitting          : {pixel_size:.3f} Angstroms",
        f"Thon rings with good fit up to  : {result.resolution:.1f} Angstroms",
    ]
    if aliasing > 2.0 * pixel_size:
        return [*lines, f"CTF aliasing apparent from      : {aliasing:.1f} Angstroms"]
    return [*lines, "Did not detect CTF aliasing"]


def closing_lines(output: str) -> list[str]:
    """Where the results are: RELION finds the .txt file by the first of these lines."""
    summary, profiles = summary_path(output), profiles_path(output)
    return [
        "",
        f"Summary of results                          : {summary}",
        f"Diagnostic images                           : {output}",
        f"Detailed results, including 1D fit profiles : {profiles}",
        f"Use this command to plot 1D fit profiles    : ctffind_plot_results.sh {profiles}",
    ]
