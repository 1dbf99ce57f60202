"""Results of every benchmark: a row per model, policy and number of threads, and the means."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

from bench.speed import Effort, Speed

SCHEMA_VERSION = 1

Policy = Literal["all", "cost", "fastest"]


@dataclass(frozen=True)
class Row:
    """One model under one policy; ``error`` says why ``speed`` is missing."""

    model: str
    policy: Policy
    threads: int
    sites: tuple[dict[str, Any], ...] = ()
    speed: Speed | None = None
    error: str | None = field(default=None, kw_only=True)


R = TypeVar("R", bound=Row)

Rows = Sequence[Mapping[str, Any]]
"""Rows as they are in the JSON of a benchmark."""

_HEADER = (
    f"{'model':26}{'policy':9}{'threads':>7}{'original':>11}{'rewritten':>11}"
    f"{'ratio':>7}  {'95 %':13}{'quartiles':14}"
)


@dataclass(frozen=True)
class Table(Generic[R]):
    """How the rows of one benchmark are shown, besides their speed.

    Attributes:
        heading: of the further columns.
        cells: what a row that was timed has in these columns.
        extremes: further entries of the summary of some rows that were timed.
        extremes_line: the same in words, from the summary.
        columns: the heading of each further column in Markdown, and a function that makes its cell
            from the rows of a model with the most threads.
    """

    heading: str
    cells: Callable[[R], str]
    extremes: Callable[[Sequence[R]], dict[str, Any]]
    extremes_line: Callable[[Mapping[str, Any]], str]
    columns: Mapping[str, Callable[[Rows], str]]

    @property
    def header(self) -> str:
        """The line above the table."""
        return _HEADER + self.heading

    def line(self, row: R) -> str:
        """One line of the table; an error in place of the speed if there is one."""
        head = f"{row.model:26}{row.policy:9}{row.threads:7}"
        if row.speed is None:
            return f"{head}  {row.error}"
        speed = row.speed
        lower, upper = speed.quartiles
        return (
            f"{head}{speed.before_ms:8.2f} ms{speed.after_ms:8.2f} ms{speed.ratio:7.2f}"
            f"  {speed.low:.2f} - {speed.high:.2f}  {lower:.2f} - {upper:.2f}{self.cells(row)}"
        )

    def summarise(self, rows: Sequence[R]) -> Iterator[dict[str, Any]]:
        """For each policy and number of threads: the geometric mean, and the slowest model."""
        for policy, threads in dict.fromkeys((row.policy, row.threads) for row in rows):
            group = [row for row in rows if (row.policy, row.threads) == (policy, threads)]
            timed = [(row.speed.ratio, row.model) for row in group if row.speed]
            if timed:
                lowest, slowest = min(timed)
                yield {
                    **{"policy": policy, "threads": threads, "models": len(timed)},
                    "geometric_mean": statistics.geometric_mean(ratio for ratio, _ in timed),
                    **{"lowest": lowest, "slowest": slowest},
                    **self.extremes([row for row in group if row.speed]),
                }

    def summary_line(self, found: Mapping[str, Any]) -> str:
        """One line below the table."""
        return (
            f"--policy {found['policy']}, {found['threads']} threads, {found['models']} models: "
            f"geometric mean {found['geometric_mean']:.2f}, lowest {found['lowest']:.2f}"
            f" ({found['slowest']}), {self.extremes_line(found)}"
        )

    def markdown(self, documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """A table of what ``--json`` wrote, with a column per policy and number of threads."""
        rows = [row for document in documents for row in document["rows"] if row["speed"]]
        columns = sorted(
            {(row["policy"], row["threads"]) for row in rows}, key=_policy_then_threads
        )
        heads = [f"`{policy}`, {_threads(threads)}" for policy, threads in columns]
        yield f"| model | original, ms | {' | '.join([*heads, *self.columns])} |"
        yield "| --- " * (len(columns) + len(self.columns) + 2) + "|"
        most = max((threads for _, threads in columns), default=0)
        for name in dict.fromkeys(row["model"] for row in rows):
            own = {(row["policy"], row["threads"]): row for row in rows if row["model"] == name}
            ratios = [f"{own[key]['speed']['ratio']:.2f}" if key in own else "-" for key in columns]
            quick = [row for (_, threads), row in own.items() if threads == most]
            before = statistics.median(row["speed"]["before_ms"] for row in quick or own.values())
            rest = [cell(quick) if quick else "-" for cell in self.columns.values()]
            cells = [name, f"{before:.3g}", *ratios, *rest]
            yield f"| {' | '.join(cells)} |"
        means = []
        for key in columns:
            found = [r["speed"]["ratio"] for r in rows if (r["policy"], r["threads"]) == key]
            means.append(f"**{statistics.geometric_mean(found):.2f}**, from {min(found):.2f}")
        yield f"| geometric mean, lowest | | {' | '.join(means)} |{' |' * len(self.columns)}"


def _policy_then_threads(column: tuple[str, int]) -> tuple[int, int]:
    return ("all", "cost", "fastest").index(column[0]), -column[1]


def _threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"


def document(
    rows: Sequence[Row],
    effort: Effort,
    conditions: Mapping[str, Any],
    summary: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The JSON document: all results, and the machine and versions that they belong to."""
    from deployconv import __version__
    from deployconv.runtimes import get_backend
    from deployconv.runtimes.machine import describe_machine

    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "deployconv", "version": __version__},
        "machine": describe_machine(),
        "runtime": get_backend(effort.backend).runtime,
        "effort": asdict(effort),
        **conditions,
        "rows": [asdict(row) for row in rows],
        "summary": list(summary),
    }
