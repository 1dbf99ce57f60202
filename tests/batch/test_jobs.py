"""Models in processes: what hangs or crashes costs one row, and no process is left."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from deployconv.batch.jobs import Pool, Processes, in_this_process, run_in_a_process
from deployconv.results import ModelRun
from tests.batch.stubs import act, sources

ORDINARY = {
    "good": ("passed", None),
    "broken": ("error", "broken: not a model"),
    "missing": ("not-run", "no such backend"),
    "failed": ("failed", "parity failed"),
    "odd": ("error", "internal error: ZeroDivisionError: by zero"),
}
LOST = {
    "hang": ("error", "hang: took longer than --timeout 3 and was ended"),
    "crash": ("error", r"crash: its process ended early"),
}


def rows(pool: Pool, *names: str) -> dict[str, ModelRun]:
    begun: list[str] = []
    with closing(pool(act, sources(*names), begun.append)) as runs:
        made = list(runs)
    assert sorted(begun) == sorted(names) == sorted(run.path for run in made)
    return {run.path: run for run in made}


def children() -> list[str]:
    """The processes that this one has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "stat").exists():
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_text()
            if int(fields[1]) == os.getpid() and fields[0] != "Z" and "Loky" in command:
                found.append(command)
    return found


def test_every_error_is_a_row() -> None:
    done = rows(in_this_process, *ORDINARY)
    assert {name: (run.status, run.message) for name, run in done.items()} == ORDINARY
    assert done["failed"].rewriting is not None


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_hangs_or_crashes_costs_one_row(jobs: int) -> None:
    names = {**ORDINARY, **LOST}
    done = rows(Processes(jobs, timeout=3), "crash", "hang", *ORDINARY, "crash-2")
    for name, (status, message) in names.items():
        assert (done[name].status, (done[name].message or "")[: len(message or "")]) == (
            status,
            message or "",
        )
    assert done["crash-2"].status == "error"
    assert children() == []


def test_the_processors_are_shared() -> None:
    run = run_in_a_process(act, sources("threads")[0], 60.0)
    assert run.rewriting is not None
    assert run.rewriting.source.sha256 == "None"
    (made,) = rows(Processes(1, threads=3), "threads").values()
    assert made.rewriting is not None
    assert made.rewriting.source.sha256 == "3"


def test_a_pool_that_is_closed_ends_its_processes() -> None:
    runs = Processes(2)(act, sources("good", "hang", "hang-2"), lambda path: None)
    assert next(runs).path == "good"
    runs.close()
    assert children() == []
