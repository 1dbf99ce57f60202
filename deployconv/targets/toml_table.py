"""Read values from TOML files; each error is one line with file, line and key."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from deployconv.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = TypeVar("Kind", bool, int, float, str, dict[str, Any], list[Any])

LARGEST = 1 << 31
"""No number of a target is larger; a count of pixels fits too."""

Key = tuple[str | int, ...]
"""The keys that lead to a value; a number counts the tables of an array, from 0."""

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    dict: "a table",
    list: "a list",
}
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_PART = re.compile(r"""\"([^\"]*)\"|'([^']*)'|([\w-]+)""")
_ASSIGNMENT = re.compile(rf"""\s*((?:{_PART.pattern}|\s*\.\s*)+)\s*=""")
_PLACE = re.compile(r"(.*) \(at line (\d+), column (\d+)\)$", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """One table of a TOML file.

    Attributes:
        name: how messages name the file.
        text: all of the file.
        key: where the table is in it; empty for the whole file.
        values: what the table holds.
    """

    name: str
    text: str
    key: Key
    values: Mapping[str, Any]

    def get(self, key: str, kind: type[Kind]) -> Kind | None:
        """Return the value of ``key``; None if there is none.

        Raises UsageError if it is not of this type.
        """
        value = self.values.get(key)
        if value is None:
            return None
        return self._checked(key, value, kind)

    def words(
        self, key: str, known: Collection[str] | None = None, *, may_be_empty: bool = True
    ) -> tuple[str, ...] | None:
        """Return the strings of the list ``key``, all of them ``known``; None if there is none."""
        values = self.get(key, list)
        if values is None:
            return None
        if not values and not may_be_empty:
            raise self.wrong(key, "is empty: leave it out, or name something")
        for value in values:
            self._checked(key, value, str)
            if known is not None:
                self.check_known(key, value, known)
        return tuple(values)

    def word(self, key: str, known: Collection[str]) -> str | None:
        """Return the string ``key``, one of those that are ``known``; None if there is none."""
        value = self.get(key, str)
        if value is not None:
            self.check_known(key, value, known)
        return value

    def number(self, key: str, least: int) -> int | None:
        """Return the whole number ``key``, from ``least`` on; None if there is none."""
        value = self.get(key, int)
        if value is not None:
            self.check_number(key, value, least)
        return value

    def check_number(self, key: str, value: int, least: int) -> None:
        """Raise UsageError for a number of ``key`` below ``least``, or far too large."""
        if value < least:
            raise self.wrong(key, f"is {value}: give a whole number from {least} on")
        if value > LARGEST:
            raise self.wrong(key, f"is too large: give a whole number up to {LARGEST}")

    def required(self, key: str, kind: type[Kind]) -> Kind:
        """Return the value of ``key``. Raises UsageError if there is none."""
        value = self.get(key, kind)
        if value is None:
            raise self.wrong(key, f"is missing: give {_NAMES[kind]}")
        return value

    def table(self, key: str) -> Table:
        """Return the table ``key``; an empty one if there is none."""
        return Table(self.name, self.text, (*self.key, key), self.get(key, dict) or {})

    def tables(self, key: str) -> Iterator[Table]:
        """Yield the tables of the array ``key``."""
        for at, values in enumerate(self.get(key, list) or ()):
            self._checked(key, values, dict)
            yield Table(self.name, self.text, (*self.key, key, at), values)

    def check_keys(self, known: Collection[str]) -> None:
        """Raise UsageError for a key that is not ``known``, with the nearest one that is."""
        for key in self.values:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
                raise self.wrong(key, f"is no key of a target: {hint}")

    def wrong(self, key: str, what: str) -> UsageError:
        """Return an error that says ``what`` is wrong with ``key``."""
        path = ".".join(str(part) for part in (*self.key, key) if isinstance(part, str))
        line = line_of(self.text, (*self.key, key))
        return UsageError(f"{self.name}{f', line {line}' if line else ''}: '{path}' {what}")

    def _checked(self, key: str, value: Any, kind: type[Kind]) -> Kind:
        if type(value) is int and kind is float:
            self.check_number(key, value, -LARGEST)
            value = float(value)
        if isinstance(value, kind) and type(value) is kind:
            if isinstance(value, str) and not value.strip():
                raise self.wrong(key, "is empty: leave it out, or give text")
            return value
        given = type(value)
        shown = str(value).lower() if given is bool else _NAMES.get(given, "a date or time")
        if given in (int, float, str):
            shown = repr(value)
        raise self.wrong(key, f"is {shown}: give {_NAMES[kind]}")

    def check_known(self, key: str, value: str, known: Collection[str]) -> None:
        """Raise UsageError for a word that is not ``known``, with the nearest one that is."""
        if value not in known:
            near = get_close_matches(value, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"choose {', '.join(known)}"
            raise self.wrong(key, f"is '{value}', which is not known: {hint}")


def parse(name: str, text: str) -> Table:
    """Return the whole of a TOML file as a table.

    Args:
        name: how messages name the file.
        text: its content.

    Raises:
        UsageError: it is empty, or not TOML.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        found = _PLACE.match(said)
        where = f", line {len(text.splitlines())}"
        what = said.removesuffix(" (at end of document)")
        if found:
            what, line, column = found.groups()
            where = f", line {line}, column {column}"
        raise UsageError(f"{name}{where}: not TOML: {' '.join(what.split())}") from error
    except ValueError as error:
        raise UsageError(f"{name}: a number has too many digits: give a smaller one") from error
    except RecursionError as error:
        raise UsageError(f"{name}: lists or tables are nested too deeply: write fewer") from error
    if not values:
        raise UsageError(f"{name}: is empty: docs/targets.md has an example of a target")
    return Table(name, text, (), values)


def line_of(text: str, key: Key) -> int | None:
    """Return the line of a key, from 1; of the nearest table around it if it has none.

    TOML readers do not tell lines. This reads headers and the beginnings of lines, and takes the
    longest beginning of ``key`` that it finds.
    """
    best, depth = None, 0
    here: Key = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            path = header[2].replace('"', "").replace("'", "")
            parts: Key = tuple(part.strip() for part in path.split("."))
            if header[1] == "[[":
                counts[path] = counts.get(path, -1) + 1
                parts = (*parts, counts[path])
            elif parts[0] in counts:
                parts = (parts[0], counts[str(parts[0])], *parts[1:])
            here, found = parts, parts
        elif assigned := _ASSIGNMENT.match(line):
            found = (*here, *("".join(part) for part in _PART.findall(assigned[1])))
        else:
            continue
        if len(found) > depth and key[: len(found)] == found:
            best, depth = number, len(found)
    return best
