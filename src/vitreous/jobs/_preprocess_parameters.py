"""What `preprocess` takes: the options of the four jobs it runs in one stream, under their own names."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, Self

from pydantic import create_model, model_validator
from pydantic.fields import FieldInfo

from vitreous.core.errors import InputError
from vitreous.job import JobParameters, option_names, parameter
from vitreous.jobs._autopick_parameters import AutopickParameters
from vitreous.jobs._ctf_parameters import CtfParameters
from vitreous.jobs._extract_parameters import ExtractParameters
from vitreous.jobs._motioncorr_parameters import MotioncorrParameters

_STEPS: dict[str, type[JobParameters]] = {
    "motion": MotioncorrParameters,
    "ctf": CtfParameters,
    "pick": AutopickParameters,
    "extract": ExtractParameters,
}
# What the step before gives, and what has no meaning in a stream.
_WITHIN: dict[str, dict[str, Any]] = {
    "motion": {},
    "ctf": {"input": "corrected_micrographs.star"},
    "pick": {"input": "micrographs_ctf.star"},
    "extract": {
        "micrographs": "micrographs_ctf.star", "coordinates": "autopick.star", "particles": "", "recenter": False,
        "reset_offsets": False,
    },
}  # fmt: skip
# Names that mean one thing in one job and another in the next.
_RENAMED = {
    ("ctf", "box"): "ctf_box",
    ("ctf", "max_resolution"): "ctf_max_resolution",
    ("pick", "max_resolution"): "pick_max_resolution",
    ("pick", "invert"): "pick_invert",
}
_SHARED = {"input", "diameter_min", "diameter_max", "box", "float16"}  # one option for all steps that have it


class StreamParameters(JobParameters):
    """What only the stream takes."""

    input: str = parameter("", help="movies: a STAR file, a folder or a pattern ('Movies/*.tiff')", aliases=("i",))
    watch: str = parameter("", help="instead: a folder (or pattern) to watch; new movies are taken as they appear")
    watch_age: float = parameter(
        20.0, help="with --watch: a movie is complete when its size has not changed for so long", unit="s", ge=0
    )
    stop_after_idle: float = parameter(
        0.0, help="with --watch: end when no new movie has come for so long (0: only when stopped)", unit="min", ge=0
    )
    diameter_min: float | None = parameter(
        None, help="smallest particle diameter (default: 0.9 of diameter_max)", unit="A",
        aliases=("LoG_diam_min",), gt=0,
    )  # fmt: skip
    diameter_max: float | None = parameter(
        None, help="largest particle diameter (without it nothing is picked)", unit="A", aliases=("LoG_diam_max",), gt=0
    )
    box: int | None = parameter(
        None, help="side of the particles' window in the micrograph (without it nothing is extracted)", unit="px",
        aliases=("extract_size",), ge=16,
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.input) == bool(self.watch):
            raise InputError("preprocess", "needs either --i or --watch", "Say where the movies are.")
        return self


def _collect() -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """The steps' fields by their name here, and for each step our name for each of its own."""
    fields: dict[str, Any] = {}
    names: dict[str, dict[str, str]] = {}
    own = StreamParameters.model_fields
    taken = {spelling for name, info in own.items() for spelling in option_names(name, info)}
    for step, model in _STEPS.items():
        names[step] = {}
        for name, info in model.model_fields.items():
            if name in JobParameters.model_fields or name in _WITHIN[step]:
                continue
            here = _RENAMED.get((step, name), name)
            if (here in fields or here in own) and here not in _SHARED:
                here = f"{step}_{name}"
            names[step][name] = here
            if here not in fields and here not in own:
                fields[here] = (info.annotation, _without_taken(here, info, taken))
    return fields, names


def _without_taken(name: str, info: FieldInfo, taken: set[str]) -> FieldInfo:
    """The field with those of its spellings that no other one has."""
    extra = dict(info.json_schema_extra) if isinstance(info.json_schema_extra, dict) else {}
    aliases = extra.get("aliases")
    spellings = [str(one) for one in aliases] if isinstance(aliases, list) else []
    copied = copy(info)
    copied.json_schema_extra = {**extra, "aliases": [one for one in spellings if f"--{one}" not in taken]}
    taken.update(option_names(name, copied))
    return copied


_FIELDS, _NAMES = _collect()
PreprocessParameters = create_model(
    "PreprocessParameters", __base__=StreamParameters, __doc__="What `preprocess` takes.", **_FIELDS
)


@dataclass(frozen=True)
class Steps:
    """The parameters of each step; pick and extract are None where they are not asked for."""

    motion: MotioncorrParameters
    ctf: CtfParameters
    pick: AutopickParameters | None
    extract: ExtractParameters | None

    @classmethod
    def of(cls, params: Any) -> Steps:
        """As the stream's parameters say. Raises InputError for what cannot be together."""
        changed: dict[str, Any] = {"input": params.input or params.watch}
        if params.diameter_max is None and (params.diameter_min is not None or params.box is not None):
            raise InputError("--diameter-max", "is not given", "Give it: without it nothing is picked.")
        if params.diameter_min is None and params.diameter_max is not None:
            changed["diameter_min"] = 0.9 * params.diameter_max
        motion, ctf = _of_step("motion", params, changed), _of_step("ctf", params, changed)
        assert isinstance(motion, MotioncorrParameters)
        assert isinstance(ctf, CtfParameters)
        ctf.check()
        pick = _of_step("pick", params, changed) if params.diameter_max is not None else None
        extract = _of_step("extract", params, changed) if params.box is not None else None
        return cls(
            motion,
            ctf,
            pick if isinstance(pick, AutopickParameters) else None,
            extract if isinstance(extract, ExtractParameters) else None,
        )


def _of_step(step: str, params: Any, changed: dict[str, Any]) -> JobParameters:
    values = {name: changed.get(here, getattr(params, here)) for name, here in _NAMES[step].items()}
    common = {name: getattr(params, name) for name in JobParameters.model_fields}
    return _STEPS[step](**common, **_WITHIN[step], **values)
