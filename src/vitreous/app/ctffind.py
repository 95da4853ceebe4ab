"""vitreous-ctffind: answers CTFFIND 4.1's dialogue and writes its files, so that programs made for it work unchanged.

The fit is the `ctf` job's. Nothing here imports torch: a program that is started once a micrograph must start quickly.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous import __version__
from vitreous.core.errors import InputError
from vitreous.io.ctffind_dialogue import Answers, CtffindRequest, ask
from vitreous.io.ctffind_files import (
    VERSION,
    CtffindResult,
    closing_lines,
    log_lines,
    write_profiles,
    write_summary,
)
from vitreous.io.mrc import open_stack, read_header, read_image, write_image
from vitreous.methods.ctf_fitting.correlation import Band
from vitreous.methods.ctf_fitting.diagnostic import diagnostic_image
from vitreous.methods.ctf_fitting.fit import CtfFit, describe_lens, fit_ctf, lens_of
from vitreous.methods.ctf_fitting.profile import aliasing_limit, profile_of
from vitreous.methods.ctf_fitting.search import SearchSettings
from vitreous.methods.ctf_fitting.spectrum import (
    Spectrum,
    SpectrumError,
    spectrum_from_amplitudes,
    spectrum_from_filtered,
    spectrum_of_frames,
    spectrum_of_micrograph,
)

_TARGET = 1.4  # A: finer pixels are resampled to this, as CTFFIND does
_LARGEST_STEP = 100.0  # A: CTFFIND's usual 500 is too coarse for a search that looks up all astigmatisms in one table
# CTFFIND holds its restraint against a correlation of about 0.1, we hold ours against a log-likelihood, which grows
# with the correlation's square: the same restraint is a Gaussian wider by 1/sqrt(0.1). Reckoned, not measured.
_RESTRAINT = 3.0
_USAGE = """usage: vitreous-ctffind [--amplitude-spectrum-input | --filtered-amplitude-spectrum-input]

Answers the questions of CTFFIND 4.1 on standard input and writes NAME.ctf (picture), NAME.txt, NAME_avrot.txt.
With RELION: relion_run_ctffind --is_ctffind4 --ctffind_exe $(which vitreous-ctffind) ...
The `ctf` job of vitreous does the same for all micrographs at once."""


@dataclass(frozen=True)
class Command:
    """How the program was called. spectra: inputs are amplitude spectra; filtered: without their background."""

    spectra: bool = False
    filtered: bool = False


def parse_command(arguments: list[str]) -> Command:
    """CTFFIND's own switches, with one dash or two. Raises InputError for others."""
    spectra = filtered = False
    words = iter(arguments)
    for word in words:
        name = word.lstrip("-")
        if name == "amplitude-spectrum-input":
            spectra = True
        elif name == "filtered-amplitude-spectrum-input":
            spectra = filtered = True
        elif name in ("omp-num-threads", "j"):
            next(words, None)
        elif name not in ("disable-multithreading", "fast"):
            raise InputError(word, "is no option of vitreous-ctffind", "vitreous-ctffind --help lists what there is.")
    return Command(spectra, filtered)


def run(command: Command, lines: Iterator[str]) -> None:
    """The dialogue, the fits, the files."""
    say = _say
    say(f"\n\n        **   Welcome to Ctffind   **\n\n            Version : {VERSION} (vitreous {__version__})")
    say("               Mode : Scripted\n")
    request = ask(Answers(lines, say), count_sections)
    count = 1 if request.movie is not None else count_sections(request.input)
    fits: list[tuple[Spectrum, CtfFit]] = []
    for number, spectrum in enumerate(read_spectra(request, command), 1):
        say(f"Working on micrograph {number} of {count}")
        fit = fit_spectrum(spectrum, request)
        fits.append((spectrum, fit))
        if not fit.has_rings:
            print(f"Warning: {request.input}: no Thon rings stand out of its power spectrum", file=sys.stderr)
        aliasing = aliasing_limit(spectrum, fit, request.microscope)
        for line in log_lines(_result(fit, request), spectrum.pixel_size, aliasing):
            say(line)
    write_results(request, fits)
    for line in closing_lines(request.output):
        say(line)


def count_sections(name: str) -> int:
    """Images in a file."""
    if _is_mrc(name):
        return int(read_header(name).shape[0])
    from vitreous.io.movies import open_movie  # slow to import, and rarely needed

    return open_movie(name).n_frames


def _is_mrc(name: str) -> bool:
    return not name.lower().endswith((".tif", ".tiff", ".eer"))


def read_frames(name: str) -> Iterator[NDArray[np.float32]]:
    """The images of a file, one by one."""
    if _is_mrc(name):
        with open_stack(name) as stack:
            for index in range(len(stack)):
                yield stack[index]
        return
    from vitreous.io.movies import open_movie

    movie = open_movie(name)
    for index in range(movie.n_frames):
        yield movie.frames(index, index + 1)[0]


def read_spectra(request: CtffindRequest, command: Command) -> Iterator[Spectrum]:
    """A spectrum a micrograph; one of all frames for a movie. Raises SpectrumError for what has none."""
    target = _TARGET if request.resample else request.pixel_size
    if command.spectra:
        read = spectrum_from_filtered if command.filtered else spectrum_from_amplitudes
        yield from (read(image, request.pixel_size) for image in read_frames(request.input))
    elif request.movie is not None:
        average = request.movie.average
        frames = _corrected(request)
        yield spectrum_of_frames(frames, request.pixel_size, average=average, box=request.box, target_pixel_size=target)
    else:
        for image in read_frames(request.input):
            yield spectrum_of_micrograph(image, request.pixel_size, box=request.box, target_pixel_size=target)


def _corrected(request: CtffindRequest) -> Iterator[NDArray[np.float32]]:
    """Frames with the dark image taken off and the gain multiplied in, where they are given."""
    assert request.movie is not None
    dark = read_image(request.movie.dark)[0] if request.movie.dark else None
    gain = read_image(request.movie.gain)[0] if request.movie.gain else None
    for frame in read_frames(request.input):
        for name, reference in ((request.movie.dark, dark), (request.movie.gain, gain)):
            if reference is not None and reference.shape != frame.shape:
                what = f"has {reference.shape[1]} x {reference.shape[0]} pixels, the movie not"
                raise InputError(name, what, "Give the reference of this camera mode.")
        clean = frame if dark is None else frame - dark
        yield clean if gain is None else clean * gain


def fit_spectrum(spectrum: Spectrum, request: CtffindRequest) -> CtfFit:
    """The fit within the limits that were answered."""
    band = Band(request.resolution_min, request.resolution_max)
    if request.defocus_known is not None:
        first, second, phase = request.defocus_known
        angle = request.astigmatism_known[1] if request.astigmatism_known else 0.0
        return describe_lens(spectrum, request.microscope, lens_of(first, second, angle, np.rad2deg(phase)), band)
    settings = SearchSettings(
        request.defocus_min,
        request.defocus_max,
        min(request.defocus_step, _LARGEST_STEP),
        # A tolerance of 0 (RELION's default) restrains nothing.
        astigmatism_expected=_RESTRAINT * request.tolerance if request.tolerance and request.tolerance > 0 else 1000.0,
        astigmatism_known=request.astigmatism_known,
    )
    if request.phases is not None:
        low, high, step = (float(np.rad2deg(value)) for value in request.phases)
        settings = replace(settings, phase_min=low, phase_max=high, phase_step=step)
    return fit_ctf(spectrum, request.microscope, band, settings)


def write_results(request: CtffindRequest, fits: list[tuple[Spectrum, CtfFit]]) -> None:
    """Picture, summary and profiles; the summary last: where it is, the others are."""
    microscope = request.microscope
    pictures = np.stack([diagnostic_image(spectrum, fit, microscope) for spectrum, fit in fits])
    Path(request.output).parent.mkdir(parents=True, exist_ok=True)
    write_image(request.output, pictures, fits[0][0].pixel_size)
    profiles = []
    for spectrum, fit in fits:
        one = profile_of(spectrum, fit, microscope, request.resolution_min)
        rows = (one.frequency, one.radial, one.equiphase, one.model, one.correlation, one.noise)
        profiles.append(np.stack(rows))
    write_profiles(request, fits[0][0].pixel_size, profiles)
    write_summary(request, fits[0][0].pixel_size, [_result(fit, request) for _, fit in fits])


def _result(fit: CtfFit, request: CtffindRequest) -> CtffindResult:
    # Where no ring fits, the resolution is that at which the band begins: no selection will keep it.
    resolution = min(fit.resolution, request.resolution_min) if fit.has_rings else request.resolution_min
    phase = float(np.deg2rad(fit.phase_shift))
    return CtffindResult(fit.defocus_u, fit.defocus_v, fit.defocus_angle, phase, fit.figure_of_merit, resolution)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Entry point of the `vitreous-ctffind` program: exit code 0, or 2 with one line for what the user can mend."""
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print(_USAGE)
        return
    if "--version" in arguments:
        print(f"vitreous-ctffind {__version__}, in the manner of CTFFIND {VERSION}")
        return
    try:
        run(parse_command(arguments), iter(sys.stdin))
    except (InputError, SpectrumError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
