"""CTFFIND 4.1's questions on standard input, in its order, and what was answered.

The order was observed in scripts that RELION 3.1 and 5 wrote for it and in its log of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from vitreous.core.errors import InputError
from vitreous.core.microscope import Microscope

_YES, _NO = ("yes", "y", "true", "1"), ("no", "n", "false", "0")


class Answers:
    """Answers a line each; every question is said again with its answer, as CTFFIND does when it is scripted."""

    def __init__(self, lines: Iterator[str], say: Callable[[str], None]) -> None:
        self._lines, self._say = lines, say

    def text(self, question: str, default: str | None = None) -> str:
        """The next line, or the default where it is empty. Raises InputError where the answers have ended."""
        answer = next(self._lines, None)
        if answer is None:
            raise InputError("standard input", f"ends before the answer to {question!r}", "Answer all questions.")
        answer = answer.strip() or (default or "")
        if not answer:
            raise InputError("standard input", f"has no answer to {question!r}", "Give one; it has no default.")
        self._say(f"{question:<51}: {answer}")
        return answer

    def number(self, question: str, default: float, *, least: float = -float("inf")) -> float:
        """A number of at least `least`."""
        answer = self.text(question, f"{default:g}")
        try:
            value = float(answer)
        except ValueError:
            raise InputError(question, f"{answer!r} is no number", "Answer with a number.") from None
        if not least <= value < float("inf"):
            raise InputError(question, f"is {answer}", f"Answer with at least {least:g}.")
        return value

    def yes(self, question: str, default: str) -> bool:
        """Yes or no."""
        answer = self.text(question, default)
        if answer.lower() not in _YES + _NO:
            raise InputError(question, f"{answer!r} is neither yes nor no", "Answer yes or no.")
        return answer.lower() in _YES


@dataclass(frozen=True)
class MovieAnswers:
    """average: frames summed before each spectrum. gain, dark: files, empty where frames are corrected already."""

    average: int
    gain: str = ""
    dark: str = ""


@dataclass(frozen=True)
class CtffindRequest:
    """What was asked for. Resolutions, defoci, astigmatism in A; angles in degrees; phases in radians.

    movie: None for micrographs. astigmatism_known: (amount, angle) or None. tolerance: of the restraint on
    astigmatism, None for none. phases: (least, greatest, step) or None. defocus_known: (defocus 1, defocus 2, phase).
    """

    input: str
    output: str
    pixel_size: float
    microscope: Microscope
    box: int
    resolution_min: float
    resolution_max: float
    defocus_min: float
    defocus_max: float
    defocus_step: float
    movie: MovieAnswers | None = None
    astigmatism_known: tuple[float, float] | None = None
    tolerance: float | None = None
    phases: tuple[float, float, float] | None = None
    resample: bool = True
    defocus_known: tuple[float, float, float] | None = None
    threads: int = field(default=1, compare=False)


def ask(answers: Answers, count_sections: Callable[[str], int]) -> CtffindRequest:
    """Put all questions. count_sections: images in a file, which decides whether it may be a movie."""
    name = answers.text("Input image file name")
    movie = None
    if count_sections(name) > 1 and answers.yes("Input is a movie (stack of frames)", "yes"):
        movie = MovieAnswers(int(answers.number("Number of frames to average together", 1, least=1)))
    output = answers.text("Output diagnostic image file name", "diagnostic_output.mrc")
    pixel_size = answers.number("Pixel size", 1.0, least=0.01)
    microscope = Microscope(
        answers.number("Acceleration voltage", 300.0, least=10.0),
        answers.number("Spherical aberration", 2.7, least=0.0),
        answers.number("Amplitude contrast", 0.07, least=0.0),
    )
    if microscope.amplitude_contrast > 1:
        what = f"is {microscope.amplitude_contrast:g}"
        raise InputError("Amplitude contrast", what, "It is a fraction, from 0 to 1.")
    box = int(answers.number("Size of amplitude spectrum to compute", 512, least=128))
    low, high = (
        answers.number("Minimum resolution", 30.0, least=0.1),
        answers.number("Maximum resolution", 5.0, least=0.1),
    )
    defocus_min, defocus_max = (
        answers.number("Minimum defocus", 5000.0, least=1.0),
        answers.number("Maximum defocus", 50000.0, least=1.0),
    )
    step = answers.number("Defocus search step", 100.0, least=1.0)
    if low <= high:
        raise InputError("Maximum resolution", f"is {high:g} A, no finer than the minimum, {low:g} A", "Exchange them.")
    if defocus_max <= defocus_min:
        what = f"is {defocus_max:g} A, no more than the minimum, {defocus_min:g} A"
        raise InputError("Maximum defocus", what, "Exchange them.")
    known, tolerance = _ask_astigmatism(answers)
    phases = _ask_phases(answers)
    request = CtffindRequest(
        name, output, pixel_size, microscope, box, low, high, defocus_min, defocus_max, step, movie,
        astigmatism_known=known, tolerance=tolerance, phases=phases,
    )  # fmt: skip
    return _ask_expert(answers, request) if answers.yes("Do you want to set expert options?", "no") else request


def _ask_astigmatism(answers: Answers) -> tuple[tuple[float, float] | None, float | None]:
    known = answers.yes("Do you know what astigmatism is present?", "no")
    # Ours is always the exhaustive search: the answer changes nothing.
    answers.yes("Slower, more exhaustive search?", "no")
    if known:
        amount = answers.number("Known astigmatism", 0.0, least=0.0)
        return (amount, answers.number("Known astigmatism angle", 0.0)), None
    if not answers.yes("Use a restraint on astigmatism?", "yes"):
        return None, None
    return None, answers.number("Expected (tolerated) astigmatism", 200.0)


def _ask_phases(answers: Answers) -> tuple[float, float, float] | None:
    if not answers.yes("Find additional phase shift?", "no"):
        return None
    low = answers.number("Minimum phase shift (rad)", 0.0, least=0.0)
    high = answers.number("Maximum phase shift (rad)", 3.15, least=0.0)
    step = answers.number("Phase shift search step (rad)", 0.2, least=1e-3)
    if high < low:
        raise InputError("Maximum phase shift", f"is less than the minimum, {low:g}", "Exchange them.")
    return low, high, step


def _ask_expert(answers: Answers, request: CtffindRequest) -> CtffindRequest:
    resample = answers.yes("Resample micrograph if pixel size too small?", "yes")
    movie, gain, dark = request.movie, "", ""
    if movie is not None:
        if not answers.yes("Movie is gain-corrected?", "yes"):
            gain = answers.text("Gain image filename", "my_gain_reference.mrc")
        if not answers.yes("Movie is dark-corrected?", "yes"):
            dark = answers.text("Dark image filename", "my_dark_reference.mrc")
        if answers.yes("Correct Movie Mag. distortion?", "no"):
            raise InputError(
                "Correct Movie Mag. distortion", "cannot be done here", "Correct the movie's motion first."
            )
        movie = MovieAnswers(movie.average, gain, dark)
    defocus = None
    if answers.yes("Do you already know the defocus?", "no"):
        first, second = answers.number("Known defocus 1", 0.0), answers.number("Known defocus 2", 0.0)
        defocus = (first, second, answers.number("Known phase shift", 0.0))
    threads = int(answers.number("Desired number of parallel threads", 1, least=1))
    return replace(request, movie=movie, resample=resample, defocus_known=defocus, threads=threads)
