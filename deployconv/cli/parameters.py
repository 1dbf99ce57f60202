"""The flags of a command, made from the dataclass that defines its options."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from deployconv.errors import UsageError
from deployconv.flags import Command, Flag, Option, choices_of, limits_in_words, options_of
from deployconv.options import ShapeRanges, Shapes, path_of
from deployconv.runtimes import names_with

R = TypeVar("R")


class _Text(click.types.StringParamType):
    """Reads a word with a function; what is wrong with it is told with the name of its option."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the function makes of the word. Raises UsageError if the function does."""
        try:
            return self._read(value)
        except UsageError as error:
            raise UsageError(f"{_name_of(param)}: {error}") from error


class _Whole(click.IntRange):
    """A whole number; what is wrong with it is told in plain words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Raises UsageError for a word that is none or that is out of range."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            raise _no_number("a whole number", self, value, param) from error


class _Decimal(click.FloatRange):
    """A number that need not be whole; what is wrong with it is told in plain words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Raises UsageError for a word that is none or that is out of range."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            raise _no_number("a number", self, value, param) from error


def _no_number(
    kind: str, within: _Whole | _Decimal, value: object, param: click.Parameter | None
) -> UsageError:
    limits = limits_in_words(within.min, within.max)
    shown = str(value) or "''"
    return UsageError(f"{_name_of(param)} {shown}: give {kind} {limits}")


def _name_of(parameter: click.Parameter | None) -> str:
    """The name of an option or argument, as the help shows it."""
    if parameter is None:
        return "value"
    option = isinstance(parameter, click.Option)
    return parameter.opts[0] if option else parameter.human_readable_name.strip("[]")


def _as_given(text: str) -> str:
    path_of(text)
    return text


as_path = _Text(path_of)
"""The path that an argument names; an empty one is an error."""
as_text = _Text(_as_given)
"""A path, glob or URL as it was given; an empty one is an error."""

models_argument = click.argument(
    "models", metavar="MODEL...", nargs=-1, required=True, type=as_text
)

json_flag = click.option(
    "--json", is_flag=True, help="Print one JSON document on standard output instead."
)


def with_options(
    command: type[Command], argument: str = "options"
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a function the flags of ``command`` in place of the argument of this name.

    The decorated function gets a ``command`` object made of them. Its other arguments stay as they
    are.

    Raises:
        UsageError: on the call, if a value is none that the option can have.
    """
    options = options_of(command)

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def run(**values: Any) -> R:
            given = {one.name: _value(one, values.pop(_argument(one))) for one in options}
            return function(**{argument: command(**given)}, **values)

        decorated: Callable[..., R] = run
        for one in reversed(options):
            decorated = _flag(one)(decorated)
        return decorated

    return decorate


def model_from(path: Path) -> Path | bytes:
    """What a MODEL argument names: a file, or the bytes of standard input for ``-``."""
    return sys.stdin.buffer.read() if str(path) == "-" else path


def arguments(options: Command) -> dict[str, Any]:
    """Return the options as keyword arguments of the Python function of the command."""
    return {one.name: getattr(options, one.name) for one in options_of(type(options))}


def _argument(option: Option) -> str:
    """The name under which click passes the value of the flag."""
    return f"no_{option.name}" if option.negated else option.name


def _flag(option: Option) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """The decorator that adds the flag of an option to a command."""
    kind, flag = option.type, option.flag
    kinds = {kind, *get_args(kind)}
    values: dict[str, Any] = {"type": str}
    if bool in kinds:
        values = {"is_flag": True}
    elif choices := choices_of(kind):
        values = {"type": click.Choice(choices)}
    elif kind == tuple[str, ...] or kind in _PARSERS:
        values = {"type": str, "multiple": True}
    elif Path in kinds:
        values = {"type": as_path}
    elif int in kinds:
        values = {"type": _Whole(_whole(flag.minimum), _whole(flag.maximum))}
    elif float in kinds:
        values = {"type": _Decimal(flag.minimum, flag.maximum)}
    return click.option(
        *(*option.flag_names, _argument(option)),
        default=False if option.negated else option.default,
        metavar=flag.metavar,
        help=help_text(flag),
        **values,
    )


def _whole(bound: float | None) -> int | None:
    return None if bound is None else int(bound)


def help_text(flag: Flag) -> str:
    """Return the description of a flag, with the backends that have what it needs."""
    if flag.capability is None:
        return flag.help
    return f"{flag.help} (backends {' and '.join(names_with(flag.capability))})."


def _value(option: Option, given: Any) -> Any:
    """The value of the option, from what click passes for its flag."""
    if option.negated:
        return not given
    if option.type == tuple[str, ...]:
        return tuple(given)
    parse = _PARSERS.get(option.type)
    return parse(given) if parse else given


def parse_shapes(values: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """Turn ``["x:1,3,64,64"]`` into ``{"x": (1, 3, 64, 64)}``.

    The last colon separates, as the name of an input may hold colons.

    Raises:
        UsageError: a value has no name, no sizes, or a size that is not a whole number of at
            least 0; or an input is named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for value in values or ():
        name, _, sizes = value.rpartition(":")
        parts = [part.strip() for part in sizes.split(",")]
        if not name or not all(part.isascii() and part.isdigit() for part in parts):
            raise UsageError(
                f"--shape {value!r}: expected NAME:SIZE,SIZE,... with whole numbers, "
                "e.g. x:1,3,64,64"
            )
        if name in shapes:
            raise UsageError(f"--shape {value!r}: input {name!r} has a shape already; give one")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def parse_ranges(values: Sequence[str] | None) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Turn ``["x:1,8..1,16..4,32"]`` into ``{"x": ((1, 8), (1, 16), (4, 32))}``.

    A single shape is used for all three.

    Raises:
        UsageError: as `parse_shapes`, or there are neither one nor three shapes.
    """
    ranges: dict[str, tuple[tuple[int, ...], ...]] = {}
    for value in values or ():
        name, _, sizes = value.rpartition(":")
        parts = [f"{name}:{part}" for part in sizes.split("..")] if name else [value]
        corners = [parse_shapes([part])[name] for part in parts]
        if len(corners) not in (1, 3):
            raise UsageError(f"--shape {value!r}: expected NAME:MIN..OPT..MAX, or one shape")
        if name in ranges:
            raise UsageError(f"--shape {value!r}: input {name!r} has a shape already; give one")
        ranges[name] = tuple(corners * 3 if len(corners) == 1 else corners)
    return ranges


_PARSERS: dict[Any, Callable[[Sequence[str] | None], Any]] = {
    Shapes | None: parse_shapes,
    ShapeRanges | None: parse_ranges,
}
"""The types of options that are written as text, and what reads it."""
