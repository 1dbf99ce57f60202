"""``deployconv target``: install, list and remove toolchains."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployconv import api
from deployconv.cli import main
from deployconv.errors import BackendUnavailable
from deployconv.runtimes.toolchains import environments


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environments, "environments_folder", lambda: tmp_path)
    return tmp_path


def test_an_install_says_that_it_waits_and_where_the_toolchain_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def install(name: str, on_wait) -> Path:
        on_wait()
        return Path("/data", name, "bin", "python")

    monkeypatch.setattr(api, "install_toolchain", install)
    assert main(["target", "install", "iree"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "installed in /data/iree\n"
    assert captured.err == (
        "deployconv: waiting: another process installs or removes the toolchain of iree\n"
    )


def test_a_failed_install_is_status_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def install(name: str, on_wait) -> Path:
        raise BackendUnavailable("iree cannot be installed: no index")

    monkeypatch.setattr(api, "install_toolchain", install)
    assert main(["target", "install", "iree"]) == 3
    assert capsys.readouterr().err == "deployconv: error: iree cannot be installed: no index\n"


def test_toolchains_are_listed_and_removed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "iree").mkdir()
    (place / "old").mkdir()
    assert main(["target", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert "incomplete: deployconv target install iree" in rows["iree"]
    assert "unused: deployconv target remove old" in rows["old"]
    assert rows["tvm"].split()[2:] == ["not", "installed", "about", "450", "MB"]
    assert lines[-1] == f"environments are in {place}"
    assert main(["target", "remove", "iree"]) == 0
    assert capsys.readouterr().out == f"removed {place / 'iree'}\n"
    assert not (place / "iree").exists()


@pytest.mark.parametrize("name", ["iree", "abacus", "..", "/tmp"])
def test_what_is_not_there_cannot_be_removed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["target", "remove", name]) == 2
    assert capsys.readouterr().err.startswith(f"deployconv: error: {name}: ")


def test_targets_names_a_toolchain_of_other_versions(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = place / "iree" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (place / "iree" / "deployconv.json").write_text('["iree==0.1"]')
    assert main(["targets"]) == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("iree ")]
    assert "other versions" in line
