"""The JSON lines between deployconv and the worker that loads TensorRT.

One request is one line on the worker's standard input. The answer is any number of `Stage`
lines and then exactly one `Done` or `Unavailable`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, get_args

from deployconv.results import StageName, StageResult, StageStatus

STAGES: tuple[StageName, ...] = get_args(StageName)

Request = dict[str, Any]

_STATUSES = get_args(StageStatus)


@dataclass(frozen=True)
class Stage:
    """A stage is over; sent at once, so that it is known even if the next one crashes."""

    result: StageResult


@dataclass(frozen=True)
class Done:
    """The request is answered with ``value``."""

    value: dict[str, Any]


@dataclass(frozen=True)
class Unavailable:
    """The request needs what this machine does not have, a library or a GPU; see ``reason``."""

    reason: str


Event = Stage | Done | Unavailable


def encode(event: Event) -> bytes:
    """``event`` as one line."""
    return json.dumps({type(event).__name__: asdict(event)}).encode() + b"\n"


def decode(line: bytes) -> Event:
    """The event in ``line``. Raises ValueError for anything that `encode` does not write."""
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
    if result.name not in STAGES or result.status not in _STATUSES:
        raise ValueError(f"not a stage: {result.name!r} {result.status!r}")
    return result
