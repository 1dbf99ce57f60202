"""The rows of ``bench_ort.py``: speed, memory, and how much faster a model could be."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import rows as base
from bench.floor import Floor
from bench.memory import Memory
from bench.share import UNBOUNDED, Share


@dataclass(frozen=True)
class Row(base.Row):
    """One model under one policy, with its memory and lower bounds of its time."""

    memory: Memory | None = None
    floor: Floor | None = None
    share: Share | None = None
    limit: float | None = None
    """The ratio that no rewrite of the upsampling layers can exceed, see `bench.share`."""
    moving: float | None = None
    """The part of the rewritten model's time that goes into moving data, see `bench.share`."""

    @property
    def unmoved(self) -> float:
        """The ratio if shuffles, crops and reorders took no time."""
        return (self.speed.ratio if self.speed else 1.0) / (1.0 - (self.moving or 0.0))


HEADER = f"{base.HEADER}{'memory':>7}{'moving':>8}{'limit':>9}{'floor':>11}{'times floor':>14}"


def line(row: Row) -> str:
    """One row of the table."""
    if row.speed is None or row.memory is None or row.floor is None or row.limit is None:
        return base.line(row, "")
    speed, floor = row.speed, row.floor.ms
    times = f"{speed.before_ms / floor:4.1f} -> {speed.after_ms / floor:4.1f}"
    rest = f"{row.memory.ratio:9.2f}{row.moving or 0.0:8.0%}{row.limit:9.2f}"
    return base.line(row, f"{rest}{floor:8.2f} ms  {times}")


def summarise(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The means, those of the limits too, and the largest memory of a rewritten model."""
    return base.summarise(rows, _memory_and_limit)


def _memory_and_limit(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "most_memory": max(row.memory.ratio if row.memory else 0.0 for row in rows),
        "limit": statistics.geometric_mean(row.limit or 1.0 for row in rows),
        "unmoved": statistics.geometric_mean(row.unmoved for row in rows),
    }


def summary_line(found: Mapping[str, Any]) -> str:
    """One line below the table."""
    memory = f"peak memory at most {found['most_memory']:.2f} times"
    unmoved = f"geometric mean if moving took no time {found['unmoved']:.2f}"
    limit = f"of the limits {found['limit']:.2f}"
    return base.summary_line(found, f"{memory}; {unmoved}, {limit}")


def markdown(documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of what `bench_ort.py --json` wrote.

    Its last columns are for the largest number of threads: the part that the quickest rewritten
    model spends on moving data, the limit, and how many times the floor the original and the
    quickest rewritten model take.
    """
    more = {"moving": _moving, "limit": _limit, "times the floor": _times_floor}
    return base.markdown(documents, more)


def _moving(rows: base.Rows) -> str:
    return f"{_quickest(rows)['moving']:.0%}"


def _limit(rows: base.Rows) -> str:
    found = statistics.median(row["limit"] for row in rows)
    return f"{found:.2f}" if found < UNBOUNDED else "none"


def _times_floor(rows: base.Rows) -> str:
    """Times the floor of the original and of the quickest rewritten model in ``rows``."""
    best = _quickest(rows)
    speed, floor = best["speed"], best["floor"]["ms"]
    return f"{speed['before_ms'] / floor:.1f} -> {speed['after_ms'] / floor:.1f}"


def _quickest(rows: base.Rows) -> Mapping[str, Any]:
    return min(rows, key=lambda row: row["speed"]["after_ms"] / row["speed"]["before_ms"])
