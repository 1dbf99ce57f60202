"""The name of the machine, its processors and its load."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployconv.runtimes import machine
from deployconv.runtimes.machine import busy_machine, granted_cpus


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor : 0\nmodel name\t: Brand  X9 CPU @ 2.0GHz\n", "Brand X9 CPU @ 2.0GHz"),
        ("processor : 0\nmodel name :\n", None),
        ("", None),
    ],
)
def test_processor_name(cpuinfo: str, name: str | None, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert machine._processor_name(path) == name


def test_without_cpuinfo_the_platform_names_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    monkeypatch.setattr(machine, "usable_cpus", lambda: 1)
    assert machine.describe_machine() == "arm, 1 CPU"


@pytest.mark.parametrize(
    ("limit", "cpus"),
    [("150000 100000\n", 1.5), ("max 100000\n", 4.0), ("900000 100000\n", 4.0), (None, 4.0)],
    ids=["a control group", "no limit", "a limit above the processors", "no such file"],
)
def test_processors_that_may_be_used_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, cpus: float
) -> None:
    monkeypatch.setattr(machine, "usable_cpus", lambda: 4)
    path = tmp_path / "cpu.max"
    if limit is not None:
        path.write_text(limit)
    assert granted_cpus(path) == cpus


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (2.4, None),
        (3.0, "the machine is busy: a load of 3.0 on 2 processors"),
    ],
)
def test_a_load_above_the_processors_is_told(
    monkeypatch: pytest.MonkeyPatch, load: float, told: str | None
) -> None:
    monkeypatch.setattr(machine, "granted_cpus", lambda: 2.0)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 9.0, 9.0))
    assert busy_machine() == told


def test_a_system_that_does_not_tell_its_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.getloadavg")
    assert busy_machine() is None


def test_this_machine_has_memory() -> None:
    known = machine.physical_memory()
    assert known is None or known > 1 << 20
