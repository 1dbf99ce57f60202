"""The rows of ``bench_ort.py``: speed, memory, and how much faster a model could be."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import rows as base
from bench.floor import Floor
from bench.memory import Memory
from bench.rows import Rows, Table
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


def _cells(row: Row) -> str:
    if row.speed is None or row.memory is None or row.floor is None or row.limit is None:
        return ""
    speed, floor = row.speed, row.floor.ms
    times = f"{speed.before_ms / floor:4.1f} -> {speed.after_ms / floor:4.1f}"
    moving = row.moving or 0.0
    return f"{row.memory.ratio:9.2f}{moving:8.0%}{row.limit:9.2f}{floor:8.2f} ms  {times}"


def _extremes(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "most_memory": max(row.memory.ratio if row.memory else 0.0 for row in rows),
        "limit": statistics.geometric_mean(row.limit or 1.0 for row in rows),
        "unmoved": statistics.geometric_mean(row.unmoved for row in rows),
    }


def _extremes_line(found: Mapping[str, Any]) -> str:
    memory = f"peak memory at most {found['most_memory']:.2f} times"
    unmoved = f"geometric mean if moving took no time {found['unmoved']:.2f}"
    return f"{memory}; {unmoved}, of the limits {found['limit']:.2f}"


def _moving(rows: Rows) -> str:
    return f"{_quickest(rows)['moving']:.0%}"


def _limit(rows: Rows) -> str:
    found = statistics.median(row["limit"] for row in rows)
    return f"{found:.2f}" if found < UNBOUNDED else "none"


def _times_floor(rows: Rows) -> str:
    """Times the floor of the original and of the quickest rewritten model in ``rows``."""
    best = _quickest(rows)
    speed, floor = best["speed"], best["floor"]["ms"]
    return f"{speed['before_ms'] / floor:.1f} -> {speed['after_ms'] / floor:.1f}"


def _quickest(rows: Rows) -> Mapping[str, Any]:
    return min(rows, key=lambda row: row["speed"]["after_ms"] / row["speed"]["before_ms"])


TABLE = Table(
    f"{'memory':>7}{'moving':>8}{'limit':>9}{'floor':>11}{'times floor':>14}",
    _cells,
    _extremes,
    _extremes_line,
    {"moving": _moving, "limit": _limit, "times the floor": _times_floor},
)
"""The table of `bench_ort.py`.

In Markdown its last columns are for the largest number of threads: the part that the quickest
rewritten model spends on moving data, the limit, and how many times the floor the original and the
quickest rewritten model take.
"""
