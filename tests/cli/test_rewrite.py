"""``rewrite``: flags reach the pipeline, results reach the reader, failures too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from deployconv.batch.sources import default_output
from deployconv.cli import main
from deployconv.errors import CheckFailed, DeployconvError
from deployconv.results import Latency, Quantiles
from tests.cli.conftest import FakeApi
from tests.report import samples

DEFAULTS = {
    "output": Path("dir/net.deploy.onnx"),
    "policy": None,
    "backend": None,
    "form": "auto",
    "shuffle": "auto",
    "only": (),
    "skip": (),
    "target": (),
    "shape": {},
    "inputs": None,
    "seed": 0,
    "verify": True,
    "bench": True,
    "strict": False,
    "dump": None,
    "freeze_initializers": False,
    "resample": False,
    "allow_requantize": False,
    "dequantize_weights": False,
    "force": False,
    "dry_run": False,
    "upgrade_opset": None,
    "budget": 60.0,
    "cache": True,
    "max_memory": 1.1,
    "threads": None,
    "report": None,
    "on_progress": ANY,
}


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ([], {}),
        (["-o", "out.onnx"], {"output": Path("out.onnx")}),
        (["--output", "out.onnx", "--force"], {"output": Path("out.onnx"), "force": True}),
        (["--dry-run"], {"output": None, "dry_run": True}),
        (["--policy", "all"], {"policy": "all"}),
        (["--policy", "fastest"], {"policy": "fastest"}),
        (["--backend", "ort:cuda"], {"backend": "ort:cuda"}),
        (["--form", "pad", "--shuffle", "two-step"], {"form": "pad", "shuffle": "two-step"}),
        (["--only", "a*", "--only", "b"], {"only": ("a*", "b")}),
        (["--skip", "main/*"], {"skip": ("main/*",)}),
        (["--target", "sm86", "--target", "sm89"], {"target": ("sm86", "sm89")}),
        (["--shape", "x:1,2", "--shape", "y:3"], {"shape": {"x": (1, 2), "y": (3,)}}),
        (["--inputs", "in.npz", "--seed", "7"], {"inputs": Path("in.npz"), "seed": 7}),
        (["--no-verify", "--no-bench"], {"verify": False, "bench": False}),
        (["--strict"], {"strict": True}),
        (["--freeze-initializers"], {"freeze_initializers": True}),
        (["--resample"], {"resample": True}),
        (["--allow-requantize"], {"allow_requantize": True}),
        (["--dequantize-weights"], {"dequantize_weights": True}),
        (["--upgrade-opset", "--shuffle", "col2im"], {"upgrade_opset": True, "shuffle": "col2im"}),
        (["--budget", "7.5"], {"budget": 7.5}),
        (["--no-cache"], {"cache": False}),
        (["--max-memory", "1.5"], {"max_memory": 1.5}),
        (["--threads", "2"], {"threads": 2}),
        (["--dump", "kept/here"], {"dump": Path("kept/here")}),
        (["--max-memory", "inf"], {"max_memory": float("inf")}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags(api: FakeApi, flags: list[str], changed: dict[str, object]) -> None:
    assert main(["rewrite", "dir/net.onnx", *flags]) == 0
    assert api.calls == [("rewrite", (Path("dir/net.onnx"),), {**DEFAULTS, **changed})]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--policy", "quickest"], "--policy"),
        (["--budget", "0"], "--budget"),
        (["--max-memory", "-1"], "--max-memory"),
        (["--max-memory", "much"], "--max-memory"),
        (["--threads", "0"], "--threads"),
    ],
)
def test_what_is_no_policy_and_no_budget(
    api: FakeApi, capsys: pytest.CaptureFixture[str], flags: list[str], named: str
) -> None:
    assert main(["rewrite", "dir/net.onnx", *flags]) == 2
    assert api.calls == []
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("net.onnx", "net.deploy.onnx"),
        ("a/b.v1.onnx", "a/b.v1.deploy.onnx"),
        ("net", "net.deploy.onnx"),
        ("net.v2", "net.v2.deploy.onnx"),
    ],
)
def test_default_output(model: str, output: str) -> None:
    assert default_output(Path(model)) == Path(output)


def test_console(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", "net.onnx"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("wrote net.deploy.onnx\n")
    assert captured.err == ""


def test_json_is_all_there_is(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", "net.onnx", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["output"]["path"] == "net.deploy.onnx"
    assert captured.err == ""


def test_a_failed_check_is_still_shown(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    failed = replace(samples.REWRITING, parity=samples.FAILED_PARITY, output=None)
    api.answers["rewrite"] = CheckFailed("parity failed on ort", failed)
    assert main(["rewrite", "net.onnx"]) == 1
    captured = capsys.readouterr()
    assert "parity: failed on ort, output z" in captured.out
    assert captured.out.endswith("wrote no model\n")
    assert captured.err == "deployconv: error: parity failed on ort\n"

    assert main(["rewrite", "net.onnx", "--json"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["parity"]["passed"] is False
    assert document["output"] is None
    assert captured.err == "deployconv: error: parity failed on ort\n"


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_warnings_go_to_standard_error(
    api: FakeApi, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    api.answers["rewrite"] = replace(samples.REWRITING, warnings=("IR 12 is new", "two\nlines"))
    assert main(["rewrite", "net.onnx", *flags]) == 0
    assert capsys.readouterr().err == (
        "deployconv: warning: IR 12 is new\ndeployconv: warning: two lines\n"
    )


SLOWER = replace(samples.LATENCY, ratio=0.7, low=0.6, high=0.8)


TOO_LATE = replace(samples.LATENCY, note="not measured in time")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (SLOWER, samples.LATENCY, True),
        (SLOWER, SLOWER, False),
        (SLOWER, None, False),
        (SLOWER, TOO_LATE, False),
        (samples.LATENCY, samples.LATENCY, False),
        (replace(SLOWER, before_ms=Quantiles(500.0, 600.0)), samples.LATENCY, False),
    ],
)
def test_a_slower_model_names_the_command_that_is_faster(
    api: FakeApi,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    first: Latency,
    second: Latency | None,
    said: bool,
) -> None:
    def run_one(command: str, model: Path, timeout: float, **options: Any) -> Any:
        assert (command, options["policy"], timeout) == ("rewrite", "cost", 2.0)
        assert "output" not in options
        if second is TOO_LATE:
            raise DeployconvError("took longer than --timeout 2")
        return replace(samples.REWRITING, latency=second)

    api.answers["rewrite"] = replace(samples.REWRITING, latency=first)
    monkeypatch.setattr(api, "run_one", run_one, raising=False)
    assert main(["rewrite", "net.onnx"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    line = "faster here: deployconv rewrite net.onnx --policy cost: 1.63 times as fast as the"
    assert last.startswith(line) is said
