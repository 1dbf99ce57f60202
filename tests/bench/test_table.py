"""What is made of the rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from bench.floor import Floor
from bench.memory import Memory
from bench.rows import Policy
from bench.share import Share
from bench.speed import Speed
from bench.table import TABLE, Row
from bench.work import Work

WORK = Work(macs=1000, needed=10, moved=20)
FLOOR = Floor(WORK, WORK, 1000, multiply_ms=0.25, copy_ms=0.1, ms=0.25)


def row(
    model: str,
    ratio: float,
    threads: int = 2,
    memory: int = 100,
    policy: Policy = "fastest",
    moving: float = 0.2,
) -> Row:
    speed = Speed(30, 1.0, 1.0 / ratio, ratio, ratio - 0.1, ratio + 0.1, (ratio, ratio))
    share = Share(time=0.5, macs=500)
    return Row(model, policy, threads, (), speed, Memory(100, memory), FLOOR, share, 4.0, moving)


def test_the_summary_has_the_mean_and_the_worst() -> None:
    rows = [row("a", 2.0, memory=110), row("b", 0.5), row("c", 8.0), row("a", 3.0, threads=1)]
    two, one = TABLE.summarise(rows)
    assert (two["threads"], two["models"], one["threads"], one["models"]) == (2, 3, 1, 1)
    assert two["geometric_mean"] == pytest.approx(2.0)
    assert (two["lowest"], two["slowest"]) == (0.5, "b")
    assert two["most_memory"] == pytest.approx(1.1)
    assert two["limit"] == pytest.approx(4.0)
    assert two["unmoved"] == pytest.approx(2.5)
    assert "geometric mean 2.00, lowest 0.50 (b), peak memory at most 1.10" in TABLE.summary_line(
        two
    )


def test_a_row_says_how_far_it_is_from_the_floor() -> None:
    assert TABLE.line(row("a", 2.0)).endswith("20%     4.00    0.25 ms   4.0 ->  2.0")


def document(*rows: Row) -> dict[str, Any]:
    return {"rows": [asdict(entry) for entry in rows]}


def test_in_markdown_policies_stand_side_by_side() -> None:
    first = document(row("a", 0.5, policy="all"), row("b", 2.0, policy="all"))
    second = document(row("a", 2.0, moving=0.3), row("a", 4.0, threads=1))
    failed = document(Row("c", "all", 2, error="gone"))
    assert list(TABLE.markdown([first, second, failed])) == [
        "| model | original, ms | `all`, 2 threads | `fastest`, 2 threads | `fastest`, 1 thread |"
        " moving | limit | times the floor |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| a | 1 | 0.50 | 2.00 | 4.00 | 30% | 4.00 | 4.0 -> 2.0 |",
        "| b | 1 | 2.00 | - | - | 20% | 4.00 | 4.0 -> 2.0 |",
        "| geometric mean, lowest | | **1.00**, from 0.50 | **2.00**, from 2.00 |"
        " **4.00**, from 4.00 | | | |",
    ]
