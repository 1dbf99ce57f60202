"""What an option of a command is: a field of a dataclass, with its flag on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, Literal, get_args, get_origin, get_type_hints

from deployconv.errors import UsageError

Capability = Literal["profiles_layers", "captures_graphs", "compiles"]
"""What only some runtimes can do, and an option may need; fields of `runtimes.Runtime`."""


@dataclass(frozen=True)
class Flag:
    """What the command line says of an option beyond its name, type and default.

    Attributes:
        help: the description.
        metavar: placeholder of the value in the help; None for the type or the choices.
        short: a second name of one letter, such as ``-o``.
        minimum: the smallest value that is allowed.
        maximum: the largest.
        capability: what a runtime must be able to do for this option; the help lists those that
            can.
    """

    help: str
    metavar: str | None = None
    short: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    capability: Capability | None = None


def limits_in_words(least: float | None, most: float | None) -> str:
    """Describe a range: ``from 0 on``, ``from 1 to 1024``; None sets no limit."""
    end = "on" if most is None else f"to {most:g}"
    return f"from {least or 0:g} {end}"


def option(default: Any, flag: Flag) -> Any:
    """Return a dataclass field that is an option of a command."""
    return field(default=default, metadata={"flag": flag})


@dataclass(frozen=True)
class Option:
    """One option of a command, as its dataclass defines it."""

    name: str
    type: Any
    default: Any
    flag: Flag

    @property
    def negated(self) -> bool:
        """Whether the flag turns something off: ``--no-verify`` for ``verify=False``."""
        return self.default is True

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The names of the flag: ``("--output", "-o")``."""
        long = f"--{'no-' if self.negated else ''}{self.name.replace('_', '-')}"
        return (long, self.flag.short) if self.flag.short else (long,)

    def check(self, value: Any) -> None:
        """Raise UsageError if ``value`` is none of the choices, or out of the range."""
        choices = choices_of(self.type)
        if choices and value not in choices and not (value is None and _may_be_none(self.type)):
            listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
            raise UsageError(f"{self.name} '{value}' is not known: choose {listed}")
        least, most = self.flag.minimum, self.flag.maximum
        if least is None or value is None or least <= value <= (inf if most is None else most):
            return
        unbounded = ", or infinity" if self.type is float and most is None else ""
        raise UsageError(
            f"{self.name} is {value}: give a number {limits_in_words(least, most)}{unbounded}"
        )


@dataclass(frozen=True, kw_only=True)
class Command:
    """The options of one call of a command.

    Raises:
        UsageError: a value is none of the choices, or out of its range.
    """

    def __post_init__(self) -> None:
        for one in options_of(type(self)):
            one.check(getattr(self, one.name))


def options_of(command: type) -> tuple[Option, ...]:
    """Return the options that the dataclass of a command defines, in the order of its help."""
    types = get_type_hints(command)
    return tuple(
        Option(one.name, types[one.name], one.default, one.metadata["flag"])
        for one in fields(command)
    )


def choices_of(kind: Any) -> tuple[str, ...]:
    """Return the values of a Literal type, also of one that may be None; none for any other."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next(filter(None, map(choices_of, get_args(kind))), ()) if _may_be_none(kind) else ()


def _may_be_none(kind: Any) -> bool:
    return type(None) in get_args(kind)
