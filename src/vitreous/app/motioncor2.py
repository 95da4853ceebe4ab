"""vitreous-motioncor2: takes MotionCor2's options and writes its files, so that what calls it works unchanged.

The work is the `motioncorr` job's. -Serial 1 corrects all movies of a folder in this one process.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous import __version__
from vitreous.core.errors import LEFT_OUT, InputError
from vitreous.io.defects import read_defects
from vitreous.io.gain import check_gain_shape, read_gain
from vitreous.io.motion import MotionRecord, write_motion
from vitreous.io.motioncor2_logs import shift_lines, write_logs
from vitreous.io.motioncor2_options import Motioncor2Options, parse_options, read_integration
from vitreous.io.movies import MOVIE_ENDINGS, Movie, open_movie
from vitreous.io.mrc import read_image, write_image
from vitreous.methods.motion.correct import Corrected, MotionOptions, correct_movie, memory_needed
from vitreous.methods.motion.correction import SumOptions
from vitreous.methods.motion.exposure import Exposure
from vitreous.methods.motion.frames import DarkCorrected, FrameRange, FrameSource
from vitreous.methods.motion.unusable import UnusableMovie
from vitreous.runtime import device, memory
from vitreous.runtime.workspace import Workspace

_ENDINGS = {"mrc": (".mrc", ".mrcs", ".st"), "tiff": (".tif", ".tiff"), "eer": (".eer",)}
_USAGE = """usage: vitreous-motioncor2 -InMrc|-InTiff|-InEer MOVIE -OutMrc FILE.mrc [options as MotionCor2's]

Followed: -InSuffix -InSkips -Serial -Patch -Group -Throw -Trunc -FmRef -Gain -RotGain -FlipGain -Dark -DefectFile
-DefectMap -Iter -Bft -FtBin -InitDose -FmDose -PixSize -kV -Gpu -LogFile -LogDir -FmIntFile -EerSampling -SplitSum
-OutStar. Other options that change the result are refused, those that do not are named and passed over.
With RELION: relion_run_motioncorr --use_motioncor2 --motioncor2_exe $(which vitreous-motioncor2) ...
Threads: OMP_NUM_THREADS, else all cores.
Exit code: 0 done, 1 our fault, 2 wrong input (one line), 3 done but for movies that are named."""


@dataclass(frozen=True)
class References:
    """What all movies share: gain, bad pixels, dark image, each in the orientation of the frames as read, or None.

    workspace: the memory in which one is corrected after the other.
    """

    gain: torch.Tensor | None
    defects: NDArray[np.bool_] | None
    dark: NDArray[np.float32] | None
    workspace: Workspace = field(default_factory=Workspace)


def pairs(options: Motioncor2Options) -> list[tuple[Path, Path]]:
    """(movie, output) of the run: one, or in serial mode all files PREFIX*SUFFIX, each to OUTPUT + NAME.mrc."""
    if not options.serial:
        return [(Path(options.input), Path(options.output))]
    prefix = Path(options.input)
    folder, begins = (prefix, "") if options.input.endswith("/") or prefix.is_dir() else (prefix.parent, prefix.name)
    if not folder.is_dir():
        raise InputError(folder, "is no folder", "In serial mode the input is a folder, or a folder and a prefix.")
    endings = (options.suffix,) if options.suffix else _ENDINGS[options.kind]
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.name.startswith(begins) and path.name.endswith(endings) and path.name.lower().endswith(MOVIE_ENDINGS)
    )
    names = [name for name in names if not any(skip in name for skip in options.skips)]
    if not names:
        raise InputError(options.input, f"has no files ending in {' or '.join(endings)}", "Check -InSuffix.")
    is_folder = options.output.endswith("/") or Path(options.output).is_dir()
    before = f"{options.output.rstrip('/')}/" if is_folder else options.output
    return [(folder / name, Path(f"{before}{Path(name).stem}.mrc")) for name in names]


def open_frames(path: Path, options: Motioncor2Options) -> tuple[Movie, float]:
    """The movie, and the dose (e/A^2) of each of its frames."""
    if path.suffix.lower() not in _ENDINGS[options.kind]:
        what = f"is given as a movie of kind {options.kind}"
        raise InputError(path, what, "Use -InMrc, -InTiff or -InEer as its name says.")
    if not options.integration:
        return open_movie(path, eer_upsampling=options.eer_upsampling), options.dose
    group, raw_dose = read_integration(options.integration)
    if options.kind != "eer" and group > 1:
        raise InputError("-FmIntFile", f"sums {group} frames to one", "This can be done for EER movies only.")
    return open_movie(path, group, options.eer_upsampling), group * (raw_dose or options.dose)


def read_references(options: Motioncor2Options, movie: Movie) -> References:
    """Gain, defects and dark image, held against the first movie."""
    gain = defects = dark = None
    if options.gain:
        eer = movie.shape if options.kind == "eer" else None
        values = read_gain(options.gain, options.gain_rotation, options.gain_flip, eer_shape=eer)
        check_gain_shape(options.gain, values, movie.path, movie.shape)
        gain = torch.from_numpy(values)
    # RELION hands on a defect file that is empty.
    if options.defects and Path(options.defects).is_file() and Path(options.defects).stat().st_size:
        defects = read_defects(options.defects, movie.shape)
    if options.dark:
        dark = read_image(options.dark)[0]
    return References(gain, defects, dark)


def motion_options(options: Motioncor2Options, movie: Movie, dose: float, n_frames: int) -> MotionOptions:
    """The same in the terms of our method."""
    pixel_size = options.pixel_size or movie.pixel_size or 1.0
    reference = n_frames // 2 if options.reference is None else options.reference - 1 - options.throw
    return MotionOptions(
        Exposure(pixel_size, options.voltage, dose),
        SumOptions(
            binning=options.binning,
            weighted=options.weights_dose,
            plain=True,
            spectrum_box=0,
            halves=options.split_sum,
        ),
        b_factor=options.b_factor,
        patches=options.patches,
        group=options.group,
        reference=min(max(reference, 0), n_frames - 1),
        iterations=options.iterations,
        tolerance=options.tolerance,
        keep_frames=memory_needed(movie.shape, n_frames, options.b_factor) <= memory.budget(),
    )


def correct(path: Path, output: Path, options: Motioncor2Options, shared: References, where: torch.device) -> None:
    """One movie: align, sum, write. Raises InputError or UnusableMovie for what is wrong with it."""
    started = time.monotonic()
    movie, dose = open_frames(path, options)
    if options.stack not in (0, movie.n_frames):
        what = f"is {options.stack}, the movie has {movie.n_frames} frames"
        raise InputError("-StackZ", what, "Files of several movies cannot be read: leave it out.")
    frames: FrameSource = FrameRange(movie, options.throw, movie.n_frames - options.trunc - 1)
    if shared.gain is not None:
        check_gain_shape(options.gain, shared.gain.numpy(), path, movie.shape)
    if shared.dark is not None:
        frames = DarkCorrected(frames, shared.dark)
    settings = motion_options(options, movie, dose, frames.n_frames)
    corrected = correct_movie(
        frames, settings, gain=shared.gain, defects=shared.defects, device=where, workspace=shared.workspace
    )
    for line in shift_lines(corrected.motion):
        print(line)
    if corrected.local is not None and corrected.local.reason:
        print(f"Global alignment only: {corrected.local.reason}")
    write_sums(output, corrected)
    for stem in log_stems(output, options):
        write_logs(stem, corrected.motion)
    if options.star:
        write_motion(output.with_suffix(".star"), _record(corrected, settings, path, options))
    print(f"{output}: {time.monotonic() - started:.1f} s", flush=True)


def write_sums(output: Path, corrected: Corrected) -> None:
    """NAME.mrc, _DW.mrc, _EVN.mrc, _ODD.mrc; the plain sum last: where it is, the others are."""
    sums = corrected.sums
    assert sums.plain is not None
    # MotionCor2's numbers: the first frame is odd.
    named = {"_DW": sums.weighted, "_EVN": sums.even, "_ODD": sums.odd, "": sums.plain}
    output.parent.mkdir(parents=True, exist_ok=True)
    for ending, image in named.items():
        if image is not None:
            write_image(output.with_name(f"{output.stem}{ending}.mrc"), image, sums.pixel_size)


def log_stems(output: Path, options: Motioncor2Options) -> list[str]:
    """What logs begin with: -LogFile PREFIX gives PREFIX0 (as MotionCor2 to 1.4), -LogDir DIR gives DIR/NAME."""
    stems = []
    if options.log_prefix:
        stems.append(f"{options.log_prefix}{output.stem if options.serial else ''}0")
    if options.log_dir:
        stems.append(str(Path(options.log_dir) / output.stem))
    return stems


def _record(corrected: Corrected, settings: MotionOptions, path: Path, options: Motioncor2Options) -> MotionRecord:
    return MotionRecord(
        corrected.motion,
        movie_name=str(path),
        pixel_size=settings.exposure.pixel_size,
        dose_per_frame=settings.exposure.dose,
        pre_exposure=options.pre_exposure,
        voltage=options.voltage,
        binning=options.binning,
        start_frame=options.throw + 1,
        gain_name=options.gain,
    )


def _device(options: Motioncor2Options) -> torch.device:
    """-Gpu where there is CUDA; RELION always gives it, so without CUDA the CPU does the work, and that is said."""
    numbers = ",".join(map(str, options.gpus)) if torch.cuda.is_available() else ""
    chosen = device.resolve(numbers)
    memory.use_large_pages()
    memory.keep_freed_memory()
    threads = device.set_threads(device.threads_of_environment())
    print(f"vitreous-motioncor2 {__version__} on {chosen}, {threads} threads")
    if options.gpus and chosen.type == "cpu":
        print("Warning: -Gpu is given, this machine has no CUDA GPU: the CPU does the work", file=sys.stderr)
    return chosen


def run(options: Motioncor2Options) -> int:
    """Correct all movies; returns the exit code. In serial mode a bad movie does not stop the others."""
    if options.ignored:
        print(f"Without effect here: {' '.join(options.ignored)}", file=sys.stderr)
    todo = pairs(options)
    where = _device(options)
    shared: References | None = None
    failed: list[str] = []
    for path, output in todo:
        try:
            shared = shared or read_references(options, open_frames(path, options)[0])
            correct(path, output, options, shared, where)
        except (InputError, UnusableMovie, OSError) as error:
            line = _one_line(error, path)
            if not options.serial:
                print(f"error: {line}", file=sys.stderr)
                return 2
            print(f"left out: {line}", file=sys.stderr, flush=True)
            failed.append(line)
    if options.serial:
        print(f"{len(todo) - len(failed)} of {len(todo)} movies corrected, {len(failed)} left out")
    return LEFT_OUT if failed else 0


def _one_line(error: Exception, path: Path) -> str:
    text = " ".join(str(error).split())
    return text if str(path) in text else f"{path}: {text}"


def main() -> None:
    """Entry point of the `vitreous-motioncor2` program."""
    words = sys.argv[1:]
    if not words or {"--help", "-h", "-help"} & {word.lower() for word in words}:
        print(_USAGE)
        return
    if "--version" in words:
        print(f"vitreous-motioncor2 {__version__}, in the manner of MotionCor2")
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        sys.exit(run(parse_options(words)))
    except (InputError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
