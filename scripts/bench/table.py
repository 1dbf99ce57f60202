"""The rows of ``bench_ort.py``: what its benchmark finds beside the speed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import rows as base
from bench.floor import Floor
from bench.memory import Memory


@dataclass(frozen=True)
class Row(base.Row):
    """One model under one policy, with the memory it takes and the time that it cannot beat."""

    memory: Memory | None = None
    floor: Floor | None = None


HEADER = f"{base.HEADER}{'memory':>7}{'floor':>11}{'times floor':>14}"


def line(row: Row) -> str:
    """One row of the table."""
    if row.speed is None or row.memory is None or row.floor is None:
        return base.line(row, "")
    speed, floor = row.speed, row.floor.ms
    times = f"{speed.before_ms / floor:4.1f} -> {speed.after_ms / floor:4.1f}"
    return base.line(row, f"{row.memory.ratio:9.2f}{floor:8.2f} ms  {times}")


def summarise(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The means, and the most memory that a rewritten model takes."""
    return base.summarise(rows, _most_memory)


def _most_memory(rows: Sequence[Row]) -> dict[str, Any]:
    return {"most_memory": max(row.memory.ratio if row.memory else 0.0 for row in rows)}


def summary_line(found: Mapping[str, Any]) -> str:
    """One line below the table."""
    memory = f"peak memory at most {found['most_memory']:.2f} times"
    return base.summary_line(found, memory)


def markdown(documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What `bench_ort.py --json` wrote, side by side.

    ``floor`` is how many times the floor the original takes, then the best rewritten one, with
    the largest number of threads.
    """
    return base.markdown(documents, "times the floor", _times_floor)


def _times_floor(rows: base.Rows) -> str:
    """Of the original and of the quickest of ``rows``."""
    best = min(rows, key=lambda row: row["speed"]["after_ms"] / row["speed"]["before_ms"])
    speed, floor = best["speed"], best["floor"]["ms"]
    return f"{speed['before_ms'] / floor:.1f} -> {speed['after_ms'] / floor:.1f}"
