"""The benchmark's rows as tables: for a terminal, and in Markdown for the README."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.floor import Floor
from bench.memory import Memory
from bench.speed import Speed

Policy = Literal["all", "cost", "fastest"]


@dataclass(frozen=True)
class Row:
    """One model under one policy; ``error`` says why there are no figures."""

    model: str
    policy: Policy
    threads: int
    sites: tuple[dict[str, Any], ...] = ()
    speed: Speed | None = None
    memory: Memory | None = None
    floor: Floor | None = None
    error: str | None = None


HEADER = (
    f"{'model':26}{'policy':9}{'threads':>7}{'original':>11}{'rewritten':>11}"
    f"{'ratio':>7}  {'95 %':13}{'quartiles':14}{'memory':>7}{'floor':>11}{'times floor':>14}"
)


def line(row: Row) -> str:
    """One row of the table."""
    head = f"{row.model:26}{row.policy:9}{row.threads:7}"
    if row.speed is None or row.memory is None or row.floor is None:
        return f"{head}  {row.error}"
    speed, floor = row.speed, row.floor.ms
    lower, upper = speed.quartiles
    return (
        f"{head}{speed.before_ms:8.2f} ms{speed.after_ms:8.2f} ms{speed.ratio:7.2f}"
        f"  {speed.low:.2f} - {speed.high:.2f}  {lower:.2f} - {upper:.2f}{row.memory.ratio:9.2f}"
        f"{floor:8.2f} ms  {speed.before_ms / floor:4.1f} -> {speed.after_ms / floor:4.1f}"
    )


def summarise(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """For each policy and number of threads: the geometric mean, and the worst of all models."""
    for policy, threads in dict.fromkeys((row.policy, row.threads) for row in rows):
        timed = [
            (row.speed.ratio, row.model, row.memory.ratio if row.memory else 0.0)
            for row in rows
            if (row.policy, row.threads) == (policy, threads) and row.speed
        ]
        if timed:
            lowest, slowest, _ = min(timed)
            yield {
                **{"policy": policy, "threads": threads, "models": len(timed)},
                "geometric_mean": statistics.geometric_mean(ratio for ratio, _, _ in timed),
                **{"lowest": lowest, "slowest": slowest},
                "most_memory": max(memory for _, _, memory in timed),
            }


def summary_line(found: Mapping[str, Any]) -> str:
    """One line below the table."""
    return (
        f"--policy {found['policy']}, {found['threads']} threads, {found['models']} models: "
        f"geometric mean {found['geometric_mean']:.2f}, lowest {found['lowest']:.2f}"
        f" ({found['slowest']}), peak memory at most {found['most_memory']:.2f} times"
    )


def markdown(documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What `bench_ort.py --json` wrote, side by side: a column for each policy and threads.

    ``floor`` is how many times the floor the original takes, then the best rewritten one, with
    the largest number of threads.
    """
    rows = [row for document in documents for row in document["rows"] if row["speed"]]
    columns = sorted({(row["policy"], row["threads"]) for row in rows}, key=_policy_then_threads)
    heads = [f"`{policy}`, {_threads(threads)}" for policy, threads in columns]
    yield f"| model | original, ms | {' | '.join(heads)} | times the floor |"
    yield "| --- " * (len(columns) + 3) + "|"
    most = max((threads for _, threads in columns), default=0)
    for name in dict.fromkeys(row["model"] for row in rows):
        own = {(row["policy"], row["threads"]): row for row in rows if row["model"] == name}
        ratios = [f"{own[key]['speed']['ratio']:.2f}" if key in own else "-" for key in columns]
        quick = [row for (_, threads), row in own.items() if threads == most]
        before = statistics.median(row["speed"]["before_ms"] for row in quick or own.values())
        cells = [name, f"{before:.3g}", *ratios, _times_floor(quick)]
        yield f"| {' | '.join(cells)} |"
    means = []
    for key in columns:
        found = [r["speed"]["ratio"] for r in rows if (r["policy"], r["threads"]) == key]
        means.append(f"**{statistics.geometric_mean(found):.2f}**, from {min(found):.2f}")
    yield f"| geometric mean, lowest | | {' | '.join(means)} | |"


def _policy_then_threads(column: tuple[str, int]) -> tuple[int, int]:
    return ("all", "cost", "fastest").index(column[0]), -column[1]


def _threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"


def _times_floor(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the original and of the quickest of ``rows``."""
    if not rows:
        return "-"
    best = min(rows, key=lambda row: row["speed"]["after_ms"] / row["speed"]["before_ms"])
    speed, floor = best["speed"], best["floor"]["ms"]
    return f"{speed['before_ms'] / floor:.1f} -> {speed['after_ms'] / floor:.1f}"
