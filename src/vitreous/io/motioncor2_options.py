"""MotionCor2's command line: which options it has, and what was given.

Options that change nothing here are accepted and named (`ignored`); those that would change the result and cannot be
followed are refused, so that no script gets something else than it asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vitreous.core.errors import InputError

# Options that are followed: how many values each takes.
_FOLLOWED: dict[str, tuple[int, int]] = {
    "inmrc": (1, 1), "intiff": (1, 1), "ineer": (1, 1), "insuffix": (1, 1), "inskips": (1, 99), "outmrc": (1, 1),
    "serial": (1, 1), "patch": (1, 3), "gpu": (1, 99), "fmref": (1, 1), "gain": (1, 1), "rotgain": (1, 1),
    "flipgain": (1, 1), "dark": (1, 1), "defectfile": (1, 1), "defectmap": (1, 1), "iter": (1, 1), "tol": (1, 1),
    "bft": (1, 2), "stackz": (1, 1), "ftbin": (1, 1), "initdose": (1, 1), "fmdose": (1, 1), "pixsize": (1, 1),
    "kv": (1, 1), "throw": (1, 1), "trunc": (1, 1), "group": (1, 2), "logfile": (1, 1), "logdir": (1, 1),
    "fmintfile": (1, 1), "eersampling": (1, 1), "splitsum": (1, 1), "outstar": (1, 1),
}  # fmt: skip
# Options that say how MotionCor2 is to use its GPU or its files: they change no result.
_WITHOUT_EFFECT: dict[str, tuple[int, int]] = {
    "gpumemusage": (1, 1), "usegpus": (1, 1), "tmpfile": (1, 1), "arcdir": (1, 1), "phaseonly": (1, 1),
    "masksize": (2, 2), "maskcent": (2, 2), "cs": (1, 1), "ampcont": (1, 1), "extphase": (1, 1), "tilt": (2, 2),
    "fulllog": (1, 1),
}  # fmt: skip
# Options that can only be had at the value that leaves them off.
_OFF: dict[str, tuple[str, ...]] = {
    "mag": ("1.0", "1.0", "0.0"), "outstack": ("0",), "align": ("1",), "infmmotion": ("0",), "crop": ("0", "0"),
    "correctinterp": ("0",), "sumrange": ("0", "0"),
}  # fmt: skip
_FORMATS: tuple[tuple[str, Literal["mrc", "tiff", "eer"]], ...] = (
    ("inmrc", "mrc"),
    ("intiff", "tiff"),
    ("ineer", "eer"),
)


@dataclass(frozen=True)
class Motioncor2Options:
    """What was asked for: names of files as given, pixels, e/A^2, A, kV; frames are counted as MotionCor2 does.

    reference: frame of the movie, from 1, at whose place the sum is made (None: the middle one). patches: (x, y),
    (1, 1) for none. dose: of a frame, or of a raw frame with an integration file. log_prefix, log_dir: empty for
    no logs.
    """

    input: str
    kind: Literal["mrc", "tiff", "eer"]
    output: str
    suffix: str = ""
    skips: tuple[str, ...] = ()
    serial: bool = False
    patches: tuple[int, int] = (1, 1)
    group: int = 1
    throw: int = 0
    trunc: int = 0
    stack: int = 0
    reference: int | None = None
    gain: str = ""
    gain_rotation: int = 0
    gain_flip: int = 0
    dark: str = ""
    defects: str = ""
    iterations: int = 10
    tolerance: float = 0.01
    b_factor: float = 150.0
    binning: float = 1.0
    pre_exposure: float = 0.0
    dose: float = 0.0
    pixel_size: float = 0.0
    voltage: float = 300.0
    gpus: tuple[int, ...] = ()
    log_prefix: str = ""
    log_dir: str = ""
    integration: str = ""
    eer_upsampling: int = 1
    split_sum: bool = False
    star: bool = False
    ignored: tuple[str, ...] = field(default=(), compare=False)

    @property
    def weights_dose(self) -> bool:
        """MotionCor2 weights by dose where frame dose and pixel size are given (the voltage has a default)."""
        return (self.dose > 0 or bool(self.integration)) and self.pixel_size > 0


def parse_options(words: Sequence[str]) -> Motioncor2Options:
    """Read a command line. Case does not matter. Raises InputError for what cannot be followed."""
    given = _collect(words)
    values = _Values(given)
    kinds = [(name, kind) for name, kind in _FORMATS if name in given]
    if len(kinds) != 1:
        what = "are given together" if kinds else "is missing"
        raise InputError("-InMrc, -InTiff or -InEer", what, "Give one of them.")
    if "outmrc" not in given:
        raise InputError("-OutMrc", "is missing", "Give the file to write.")
    bft = values.numbers("bft", [150.0])
    iterations, reference = values.integer("iter", 10, least=0), values.integer("fmref", -1, least=-1)
    return Motioncor2Options(
        input=given[kinds[0][0]][0],
        kind=kinds[0][1],
        output=given["outmrc"][0],
        suffix=values.text("insuffix"),
        skips=tuple(given.get("inskips", ())),
        serial=values.integer("serial", 0, least=0) > 0,
        patches=_patches(values),
        group=max(1, values.integers("group", [1])[0]),
        throw=values.integer("throw", 0, least=0),
        trunc=values.integer("trunc", 0, least=0),
        stack=values.integer("stackz", 0, least=0),
        reference=None if reference < 0 else max(1, reference),
        gain=values.text("gain"),
        gain_rotation=values.integer("rotgain", 0, least=0),
        gain_flip=values.integer("flipgain", 0, least=0),
        dark=values.text("dark"),
        defects=values.text("defectfile") or values.text("defectmap"),
        iterations=max(1, iterations),
        # 0.5, MotionCor2's usual value, is for steps of a slower method: ours is at the peak long before.
        tolerance=min(0.01, values.number("tol", 0.01, least=0.0) or 0.01),
        b_factor=min(bft),
        binning=values.number("ftbin", 1.0, least=1.0),
        pre_exposure=values.number("initdose", 0.0, least=0.0),
        dose=values.number("fmdose", 0.0, least=0.0),
        pixel_size=values.number("pixsize", 0.0, least=0.0),
        voltage=values.number("kv", 300.0, least=10.0),
        gpus=tuple(values.integers("gpu", [])),
        log_prefix=values.text("logfile"),
        log_dir=values.text("logdir"),
        integration=values.text("fmintfile"),
        eer_upsampling=values.integer("eersampling", 1, least=1),
        split_sum=values.integer("splitsum", 0, least=0) > 0,
        star=values.integer("outstar", 0, least=0) > 0,
        ignored=tuple(f"-{name}" for name in given if name in _WITHOUT_EFFECT),
    )


def read_integration(path: str | Path) -> tuple[int, float]:
    """(raw frames to a frame, dose of a raw frame in e/A^2) of a frame integration file.

    Lines are "number of raw frames, how many to sum, dose of one"; all must sum and dose alike.
    """
    try:
        lines = [
            line.split() for line in Path(path).read_text().splitlines() if line.strip() and line.strip()[0] != "#"
        ]
        found = {(int(words[1]), float(words[2])) for words in lines}
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Check the name and the permissions.") from error
    except (ValueError, IndexError):
        raise InputError(path, "is no frame integration file", "Lines are: frames, how many to sum, dose.") from None
    if len(found) != 1 or next(iter(found))[0] < 1:
        raise InputError(path, "sums frames in different ways", "Give one line: frames, how many to sum, dose.")
    return next(iter(found))


def _collect(words: Sequence[str]) -> dict[str, list[str]]:
    """Option (lower case, without dash) -> its values."""
    given: dict[str, list[str]] = {}
    current = ""
    for word in words:
        if word[:1] == "-" and word[1:2].isalpha():
            current = word[1:].lower()
            if current not in _FOLLOWED and current not in _WITHOUT_EFFECT and current not in _OFF:
                raise InputError(word, "is no option of vitreous-motioncor2", "vitreous-motioncor2 --help lists them.")
            given[current] = []
        elif current:
            given[current].append(word)
        else:
            raise InputError(word, "stands before any option", "Options come as -Name value.")
    for name, texts in given.items():
        least, most = _FOLLOWED.get(name) or _WITHOUT_EFFECT.get(name) or (1, 3)
        if not least <= len(texts) <= most:
            raise InputError(f"-{name}", f"has {len(texts)} values", f"Give {least} to {most}.")
        if name in _OFF and [float(text) for text in texts] != [float(off) for off in _OFF[name]]:
            raise InputError(f"-{name}", f"is asked to be {' '.join(texts)}", "This cannot be done here: leave it out.")
    return given


class _Values:
    """Values of options, checked."""

    def __init__(self, given: dict[str, list[str]]) -> None:
        self._given = given

    def text(self, name: str) -> str:
        return self._given.get(name, [""])[0]

    def numbers(self, name: str, default: list[float]) -> list[float]:
        try:
            return [float(text) for text in self._given.get(name, [])] or default
        except ValueError:
            raise InputError(f"-{name}", f"{' '.join(self._given[name])!r} is no number", "Give a number.") from None

    def number(self, name: str, default: float, *, least: float) -> float:
        value = self.numbers(name, [default])[0]
        if not least <= value < float("inf"):
            raise InputError(f"-{name}", f"is {value:g}", f"Give at least {least:g}.")
        return value

    def integers(self, name: str, default: list[int]) -> list[int]:
        numbers = self.numbers(name, [float(value) for value in default])
        if any(number != int(number) for number in numbers):
            raise InputError(f"-{name}", f"{' '.join(self._given[name])} is no whole number", "Give a whole number.")
        return [int(number) for number in numbers]

    def integer(self, name: str, default: int, *, least: int) -> int:
        value = self.integers(name, [default])[0]
        if value < least:
            raise InputError(f"-{name}", f"is {value}", f"Give at least {least}.")
        return value


def _patches(values: _Values) -> tuple[int, int]:
    numbers = values.integers("patch", [1, 1])
    nx, ny = numbers[0], numbers[1] if len(numbers) > 1 else numbers[0]
    return max(1, nx), max(1, ny)
