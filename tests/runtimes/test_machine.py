from __future__ import annotations

from pathlib import Path

import pytest

from deployconv.runtimes import machine


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
