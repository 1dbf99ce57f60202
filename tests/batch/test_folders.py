"""Folders of models: one table, the worst status, and every good model written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

import deployconv
from deployconv.api import many
from deployconv.cli import main
from deployconv.errors import Interrupted, UsageError
from deployconv.results import ModelRun
from tests.batch import stubs
from tests.build import ops, tensor, upsampler

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"good": 30, "malformed": 5, "incomplete": 4, "hang": 1}


def write(path: Path, kind: str, name: str = "x") -> None:
    """Write a model of a kind; one that hangs is a good one, and a stub makes it hang."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = upsampler()
    made.graph.input[0].name = made.graph.node[0].input[0] = name
    if kind == "malformed":
        path.write_bytes(made.SerializeToString()[:-40])
    elif kind == "incomplete":
        made.graph.initializer.append(tensor("unused", np.ones(400, np.float32)))
        onnx.save(made, path, save_as_external_data=True, location=f"{path.name}.data")
        path.with_name(f"{path.name}.data").unlink()
    else:
        onnx.save(made, path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 models in some folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(many, "_one_of", stubs.hang_by_name)
    for kind, number in KINDS.items():
        for at in range(number):
            write(Path("in", f"folder{at % 3}", f"{kind}-{at}.onnx"), kind)
    return tmp_path


def test_forty_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good, malformed, without their external data, and one that hangs."""
    arguments = ["rewrite", "in", "-o", "out", "--no-bench", "--jobs", "2", "--timeout", "5"]
    assert main([*arguments, "--json"]) == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    rows = {Path(row["path"]): row for row in document["models"]}
    assert list(rows) == sorted(Path("in").rglob("*.onnx"))
    for path, row in rows.items():
        good = path.name.startswith("good")
        output = Path("out", path.relative_to("in"))
        assert row["status"] == ("passed" if good else "error"), row["message"]
        assert output.exists() is (good or path.name.startswith("hang"))
        if good:
            assert row["output"]["path"] == str(output)
            assert ops(onnx.load(output))["ConvTranspose"] == 0
        else:
            assert row["model"] is row["output"] is None
    said = {path.name.partition("-")[0]: row["message"] for path, row in rows.items()}
    assert "not an ONNX model, or cut short" in said["malformed"]
    assert "external data file" in said["incomplete"]
    assert "took longer than --timeout 5 and was ended" in said["hang"]
    assert captured.err.splitlines()[-1] == ("deployconv: error: 40 models: 30 passed, 10 error")
    assert list(Path("out").rglob(".deployconv-*")) == []


def test_table_json_and_junit_hold_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "in/folder0", "--junit", "part.xml"]) == 2
    table = capsys.readouterr().out.splitlines()
    assert table[-1] == "15 models: 11 passed, 4 error"
    assert main(["check", "in", "--junit", "check.xml", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    cases = ElementTree.parse("check.xml").getroot().iter("testcase")
    in_json = {row["path"]: row["status"] for row in document["models"]}
    in_junit = {
        case.attrib["name"]: "passed" if case.find("error") is None else "error" for case in cases
    }
    in_table = {line.split()[-1]: line.split()[0] for line in table if " s  " in line}
    assert in_json == in_junit
    assert in_table.items() <= in_json.items()
    assert (len(in_json), len(in_table)) == (40, 15)


def test_several_models_of_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    write(paths[0], "good")
    write(paths[1], "malformed")
    given = [str(path) for path in paths]
    assert main(["inspect", *given]) == 2
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[:2]] == ["passed", "error"]
    assert main(["inspect", *given, "--json"]) == 2
    rows = json.loads(capsys.readouterr().out)["models"]
    assert [len(row["sites"]) for row in rows] == [1, 0]
    assert main(["rewrite", str(tmp_path), "--no-bench"]) == 2
    assert (tmp_path / "a.deploy.onnx").exists()
    # Its own results are not taken for models.
    assert main(["rewrite", str(tmp_path / "*.onnx"), "--no-bench", "--force"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.deploy.onnx", "a.onnx", "b.onnx")
    ]


@pytest.mark.parametrize("statuses", [["failed", "error", "not-run"], ["error", "not-run"]])
def test_the_worst_status(statuses: list[Any]) -> None:
    runs = tuple(ModelRun(status, status, 0.0) for status in ("passed", *statuses))
    worst = {"failed": 1, "error": 2, "not-run": 3}[statuses[0]]
    assert deployconv.BatchReport(runs).exit_status == worst


def test_models_are_timed_one_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.onnx", "good")
    assert main(["rewrite", str(tmp_path), "--jobs", "2", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(
        "deployconv: warning: --jobs 2: one model at a time, as times are measured"
    )
    document = json.loads(captured.out)
    assert len(document["warnings"]) == 1
    assert document["models"][0]["latency"]["threads"] > 0


def test_engines_of_several_models_have_no_name() -> None:
    with pytest.raises(UsageError, match="--engine: names one file"):
        deployconv.run_all("build", ["in"], engine="net.engine")


# --- interruptions

PROGRAM = """
from deployconv.api import many
from deployconv.cli import run
from tests.batch import stubs
many._one_of = stubs.hang_by_name
run()
"""


def interrupted(number: signal.Signals, folder: Path, *options: str) -> tuple[int, Any]:
    """Send a signal to a run that works on the model that hangs; return its status and JSON."""
    arguments = ["rewrite", "in", "-o", "out", "--no-bench", "--json", *options]
    path = os.pathsep.join((str(ROOT), str(ROOT / "scripts")))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what runs in the background with SIGINT ignored, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while process.poll() is None and not list(folder.glob("in/*.begun")):
            time.sleep(0.05)
        os.killpg(process.pid, number)  # as a terminal does: to all processes
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert err.count("\n") == 1, err
    return process.returncode, json.loads(out)


@pytest.mark.skipif(os.name != "posix", reason="sends signals to a group of processes")
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_finished_later(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    status: int,
    jobs: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "b.onnx", "hang.onnx", "sub/z.onnx"):
        write(Path("in", name), "good")
    ended, document = interrupted(number, tmp_path, "--jobs", jobs)
    assert ended == status
    assert document["interrupted"] == number.name
    done = [row["path"] for row in document["models"]]
    assert done
    assert sorted([*done, *document["remaining"]]) == [
        *("in/a.onnx", "in/b.onnx", "in/hang.onnx", "in/sub/z.onnx")
    ]
    # Outputs are whole, and those that no row tells of are not there.
    written = {str(path) for path in Path("out").rglob("*") if path.is_file()}
    assert written == {row["output"]["path"] for row in document["models"]}
    before = {path: Path(path).stat().st_mtime_ns for path in written}

    Path("run.json").write_text(json.dumps(document))
    again = ["rewrite", "in", "-o", "out", "--no-bench", "--json", "--resume", "run.json"]
    assert main(again) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["interrupted"] is None
    assert [row["path"] for row in whole["models"]] == sorted([*done, *document["remaining"]])
    assert [row for row in whole["models"] if row["path"] in done] == document["models"]
    assert {path: Path(path).stat().st_mtime_ns for path in written} == before
    assert len(list(Path("out").rglob("*.onnx"))) == 4


def test_what_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, kind in {"a": "good", "b": "good", "c": "good", "d": "malformed"}.items():
        write(tmp_path / "in" / f"{name}.onnx", kind)
    out, saved = tmp_path / "out", tmp_path / "run.json"
    call = ["rewrite", str(tmp_path / "in"), "-o", str(out), "--no-bench", "--json"]
    assert main(call) == 2
    saved.write_text(capsys.readouterr().out)
    (out / "a.onnx").unlink()
    write(tmp_path / "in" / "b.onnx", "good", name="other")
    again: list[str] = []
    report = deployconv.run_all(
        *("rewrite", [tmp_path / "in"]),
        output=out,
        bench=False,
        resume=saved,
        on_result=lambda run: again.append(Path(run.path).name),
    )
    # The output of one is gone, another is not the same model any more, and its output is there.
    assert again == ["a.onnx", "b.onnx"]
    assert [run.status for run in report.models] == ["passed", "error", "passed", "error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rewrite", "in", "--no-bench"], "made with another --output: give the same"),
        (["rewrite", "in", "-o", "out"], "made with another --bench"),
        (["check", "in"], "is from deployconv rewrite, not check"),
    ],
)
def test_a_run_goes_on_as_it_began(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("in/a.onnx"), "good")
    assert main(["rewrite", "in", "-o", "out", "--no-bench", "--json"]) == 0
    Path("run.json").write_text(capsys.readouterr().out)
    assert main([*arguments, "--resume", "run.json"]) == 2
    assert words in capsys.readouterr().err


def test_interrupted_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(run: ModelRun) -> None:
        raise KeyboardInterrupt

    for name in "ab":
        write(tmp_path / f"{name}.onnx", "good")
    with pytest.raises(Interrupted) as caught:
        deployconv.check([tmp_path], on_result=interrupt)
    report = caught.value.report
    assert [Path(run.path).name for run in report.models] == ["a.onnx"]
    assert [Path(path).name for path in report.remaining] == ["b.onnx"]
