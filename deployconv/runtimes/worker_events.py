"""The lines of JSON that a worker process and deployconv exchange.

A request is one line on the worker's standard input. Its answer is any number of `Stage` lines and
then exactly one `Done` or `Unavailable`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, get_args

from deployconv.results import StageName, StageResult, StageStatus

Request = dict[str, Any]
"""What a worker is asked: ``action`` names it, the other keys are its arguments."""

_STAGES = get_args(StageName)
_STATUSES = get_args(StageStatus)


@dataclass(frozen=True)
class Stage:
    """A stage has ended; sent at once, so that it is known even if the next one crashes."""

    result: StageResult


@dataclass(frozen=True)
class Done:
    """The request is answered with ``value``."""

    value: dict[str, Any]


@dataclass(frozen=True)
class Unavailable:
    """This machine lacks a library or a device that the request needs; ``reason`` says which."""

    reason: str


Event = Stage | Done | Unavailable


def encode(event: Event) -> bytes:
    """Write ``event`` as one line."""
    return json.dumps({type(event).__name__: asdict(event)}).encode() + b"\n"


def decode(line: bytes) -> Event:
    """Read the event in ``line``. Raises ValueError for what `encode` does not write."""
    try:
        ((kind, fields),) = json.loads(line).items()
        if kind == Stage.__name__:
            return Stage(_stage(fields["result"]))
        if kind == Done.__name__ and isinstance(fields["value"], dict):
            return Done(fields["value"])
        if kind == Unavailable.__name__:
            return Unavailable(str(fields["reason"]))
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not an event: {error}") from error
    raise ValueError(f"not an event: {kind!r}")


def _stage(fields: dict[str, Any]) -> StageResult:
    result = StageResult(**fields)
    if result.name not in _STAGES or result.status not in _STATUSES:
        raise ValueError(f"not a stage: {result.name!r} {result.status!r}")
    return result
