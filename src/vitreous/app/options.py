"""Command-line options made from a job's parameter model: nothing about an option is written twice."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from vitreous.core.errors import InputError
from vitreous.job import JobParameters, option_names

_SHARED = frozenset(JobParameters.model_fields)
_TYPE_NAMES = {float: "NUMBER", int: "INTEGER", str: "TEXT", bool: "[true|false]"}


class ParameterOption(click.Option):
    """An option that stands for one parameter. Its value stays text: pydantic judges it.

    block: "main", "advanced" or "shared" (seed, threads...), where the help lists it.
    """

    def __init__(self, name: str, info: FieldInfo) -> None:
        self.field = name
        self.info = info
        self.block = "shared" if name in _SHARED else "advanced" if _extra(info, "advanced") else "main"
        self.spellings = option_names(name, info)
        inner = plain_type(info.annotation)
        settings: dict[str, Any] = {"type": str, "default": None, "metavar": type_name(info.annotation)}
        if inner is bool:
            settings |= {"is_flag": False, "flag_value": "true"}
        elif _extra(info, "bare") is not None:
            settings |= {"is_flag": False, "flag_value": _extra(info, "bare")}
        if is_list(info.annotation):
            settings["multiple"] = True
        super().__init__([name, *self.spellings], **settings)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Left column: our spelling, RELION's where it differs by more than underscores. Right: help, unit, default."""
        shown = [one for one in self.spellings if "_" not in one or one.replace("_", "-") not in self.spellings]
        is_switch = plain_type(self.info.annotation) is bool
        left = ", ".join(dict.fromkeys(shown)) + ("" if is_switch else f" {self.metavar}")
        return left, describe(self.info)


def describe(info: FieldInfo) -> str:
    """Help, unit and default of a parameter in one line."""
    notes = [text for text in (str(_extra(info, "unit") or ""), _limits(info)) if text]
    notes.append("required" if info.is_required() else f"default: {show_default(info)}")
    return f"{info.description or ''}  [{'; '.join(notes)}]"


def show_default(info: FieldInfo) -> str:
    """A default as one would type it."""
    value = info.get_default(call_default_factory=True)
    if value is None or value in ("", [], ()):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _limits(info: FieldInfo) -> str:
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
    found = [
        f"{sign} {getattr(rule, name):g}"
        for name, sign in signs
        for rule in info.metadata
        if isinstance(getattr(rule, name, None), (int, float))
    ]
    return ", ".join(found)


def _extra(info: FieldInfo, key: str) -> Any:
    return info.json_schema_extra.get(key) if isinstance(info.json_schema_extra, dict) else None


def plain_type(annotation: Any) -> Any:
    """The type without Optional, and a list's item type."""
    origin = typing.get_origin(annotation)
    arguments = [one for one in typing.get_args(annotation) if one is not type(None) and one is not Ellipsis]
    if origin in (typing.Union, types.UnionType, list, tuple, set, frozenset) and arguments:
        return plain_type(arguments[0])
    if origin is typing.Annotated:
        return plain_type(arguments[0])
    return annotation


def is_list(annotation: Any) -> bool:
    """Whether a parameter takes several values."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return any(is_list(one) for one in typing.get_args(annotation))
    return origin in (list, tuple, set, frozenset) or annotation in (list, tuple)


def type_name(annotation: Any) -> str:
    """The type as the help shows it: NUMBER, INTEGER, TEXT, a|b, and "N,N,..." for lists."""
    inner = plain_type(annotation)
    if typing.get_origin(inner) is Literal:
        name = "[" + "|".join(str(one) for one in typing.get_args(inner)) + "]"
    else:
        name = _TYPE_NAMES.get(inner, "TEXT")
    return f"{name},..." if is_list(annotation) else name


def read_value(option: ParameterOption, text: Any) -> Any:
    """What was typed as pydantic is to see it: lists split at commas, integer ranges opened, "none" for None."""
    if is_list(option.info.annotation):
        items = [part.strip() for one in text for part in str(one).split(",") if part.strip()]
        return [value for item in items for value in _open_range(item, plain_type(option.info.annotation))]
    optional = type(None) in typing.get_args(option.info.annotation)
    if optional and str(text).lower() == "none":
        return None
    if plain_type(option.info.annotation) is bool:
        return {"yes": "true", "no": "false"}.get(str(text).lower(), text)
    return text


def _open_range(item: str, kind: Any) -> list[Any]:
    first, dash, last = item.partition("-")
    if kind is int and dash and first.isdigit() and last.isdigit():
        return list(range(int(first), int(last) + 1))
    return [item]


def read_values(options: Iterable[click.Parameter], texts: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, by parameter; options that were left out are left out."""
    by_name = {one.field: one for one in options if isinstance(one, ParameterOption)}
    return {name: read_value(by_name[name], text) for name, text in texts.items() if text is not None and text != ()}


def make_parameters(model: type[JobParameters], values: dict[str, Any], where: str = "") -> JobParameters:
    """Validate; what is wrong becomes one InputError that names the option.

    where: a file the values come from; then parameters are named as they stand in it, not as options.
    """
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        info = model.model_fields.get(name)
        spelling = option_names(name, info)[0] if info is not None and not where else name
        place = ": ".join(part for part in (where, spelling) if part)
        if first["type"] == "missing":
            raise InputError(place, "is missing", "It has no default: give it a value") from None
        if first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            raise InputError(place, "is no parameter of this job", f"There are: {known}") from None
        message = first["msg"][:1].lower() + first["msg"][1:]
        remedy = describe(info) if info is not None else "Mend the value"
        raise InputError(place, f"{message}, not {first['input']!r}", f"This is: {remedy}") from None
