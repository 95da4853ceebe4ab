from __future__ import annotations

from typing import Literal

import pytest

from vitreous.app.options import ParameterOption, describe, make_parameters, read_value, type_name
from vitreous.core.errors import InputError
from vitreous.job import JobParameters, option_names, parameter


class Parameters(JobParameters):
    offset_range: float = parameter(6.0, help="search range", unit="px", ge=0)
    n_classes: int = parameter(50, help="number of classes", aliases=("K",))
    classes: list[int] = parameter([], help="classes to keep")
    mask: str | None = parameter(None, help="a mask", aliases=("solvent_mask",))
    mode: Literal["fast", "slow"] = parameter("fast", help="how")
    flip: bool = parameter(False, help="flip it", advanced=True)
    input: str = parameter(help="particles", aliases=("i",))


def option(name: str) -> ParameterOption:
    return ParameterOption(name, Parameters.model_fields[name])


def test_all_spellings() -> None:
    assert option_names("offset_range", Parameters.model_fields["offset_range"]) == ["--offset-range", "--offset_range"]
    assert option("n_classes").spellings == ["--n-classes", "--n_classes", "--K"]


def test_help_tells_unit_limits_and_default() -> None:
    assert describe(Parameters.model_fields["offset_range"]) == "search range  [px; >= 0; default: 6]"
    assert describe(Parameters.model_fields["input"]) == "particles  [required]"
    assert describe(Parameters.model_fields["mask"]) == "a mask  [default: none]"


def test_types() -> None:
    fields = Parameters.model_fields
    names = [type_name(fields[name].annotation) for name in ("offset_range", "classes", "mask", "mode")]
    assert names == ["NUMBER", "INTEGER,...", "TEXT", "[fast|slow]"]


def test_blocks() -> None:
    assert [option(name).block for name in ("mask", "flip", "seed")] == ["main", "advanced", "shared"]


def test_lists_and_ranges_and_none() -> None:
    assert read_value(option("classes"), ("1,2", "5-7")) == ["1", "2", 5, 6, 7]
    assert read_value(option("mask"), "none") is None
    assert read_value(option("flip"), "No") == "false"
    assert make_parameters(Parameters, {"classes": ["1", 2], "input": "x"}).classes == [1, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"input": "x", "offset_range": "-1"}, "--offset-range: input should be greater than or equal to 0, not '-1'"),
        ({"input": "x", "n_classes": "many"}, "--n-classes: input should be a valid integer"),
        ({"input": "x", "mode": "odd"}, "--mode: input should be 'fast' or 'slow', not 'odd'"),
        ({}, "--input: is missing"),
        ({"input": "x", "offset": 1}, "offset: is no parameter of this job"),
    ],
)
def test_one_line_names_the_option(values: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        make_parameters(Parameters, values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_files_parameters_are_named_as_they_stand_in_it() -> None:
    with pytest.raises(InputError, match=r"^job.yaml: offset_range: input should"):
        make_parameters(Parameters, {"input": "x", "offset_range": "far"}, where="job.yaml")
