"""Sections of the configuration as command-line flags, and back.

A rule's flags are what Snakemake compares to decide what re-runs, so they are rendered from validated values: the order
of keys, `0.10` for `0.1` or `5e-7` for `0.0000005` change nothing. The programs build their parsers from the same
sections, so a flag exists if and only if its key does.
"""

import argparse
from collections.abc import Collection, Iterator
from functools import reduce
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError

from wspin.errors import StudyError

from .base import Section
from .explain import complaints_of

S = TypeVar("S", bound=Section)


def flags(section: Section, only: Collection[str] = (), but: Collection[str] = ()) -> list[str]:
    """`["--beta", "0.1", "--schedule-warmup", "0.1", ...]`; keys without a value are left out.

    `only` or `but` choose among the section's keys.
    """
    rendered = []
    for name, _ in _fields(type(section)):
        value = reduce(getattr, name, section)
        if value is not None and name[0] not in but and (not only or name[0] in only):
            rendered += [_flag(name), *map(_text, value if isinstance(value, list) else [value])]
    return rendered


def add_flags(parser: argparse.ArgumentParser, section: type[Section]) -> None:
    """Give the parser one flag per key of a section; keys without a default are required."""
    group = parser.add_argument_group(section.__name__.lower())
    for name, info in _fields(section):
        group.add_argument(
            _flag(name),
            dest=_dest(section, name),
            required=info.is_required(),
            nargs="+" if get_origin(info.annotation) is list else None,
            metavar=name[-1].upper(),
            help=(info.description or "").replace("%", "%%"),
        )


def from_flags(arguments: argparse.Namespace, section: type[S]) -> S:
    """The section that the parsed flags describe. Raises `StudyError` on values that the section refuses."""
    values: dict[str, Any] = {}
    for name, _ in _fields(section):
        value = getattr(arguments, _dest(section, name))
        if value is not None:
            below = values
            for key in name[:-1]:
                below = below.setdefault(key, {})
            below[name[-1]] = value
    try:
        return section.model_validate(values)
    except ValidationError as error:
        place, message = complaints_of(error, section)[0]
        raise StudyError(f"{_flag(place)}: {message}") from None


def _fields(section: type[Section], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _fields(info.annotation, (*above, name))
        else:
            yield (*above, name), info


def _dest(section: type[Section], name: tuple[str, ...]) -> str:
    return "__".join((section.__name__, *name))


def _flag(name: tuple[str, ...]) -> str:
    return "--" + "-".join(name).replace("_", "-").rstrip("-")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
