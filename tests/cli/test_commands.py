"""``inspect``, ``verify``, ``bench`` and ``check``."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deployconv.cli import main
from deployconv.results import CheckReport
from tests.cli.conftest import FakeApi
from tests.report import samples

A, B = Path("a.onnx"), Path("b.onnx")
ONE_PROCESS = {"jobs": 1, "timeout": None, "resume": None, "cluster": None}


def test_inspect(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "a.onnx"]) == 0
    assert samples.REWRITTEN.id in capsys.readouterr().out
    assert api.calls == [("inspect", (A,), {"target": (), "freeze_initializers": False})]
    assert main(["inspect", "a.onnx", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["sites"]) == 2
    assert main(["inspect", "a.onnx", "--target", "dla", "--freeze-initializers"]) == 0
    assert api.calls[-1][2] == {"target": ("dla",), "freeze_initializers": True}


def test_verify_flags(api: FakeApi) -> None:
    flags = ["--backend", "ort", "--backend", "ort:cuda", "--shape", "x:1", "--seed", "3"]
    flags += ["--inputs", "in.npz", "--threads", "2"]
    assert main(["verify", "a.onnx", "b.onnx", *flags]) == 0
    backends = ("ort", "ort:cuda")
    options = {"backend": backends, "shape": {"x": (1,)}, "inputs": Path("in.npz"), "seed": 3}
    assert api.calls == [("verify", (A, B), {**options, "threads": 2, "report": None})]


def test_verify_passes(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "a.onnx", "b.onnx"]) == 0
    assert api.options["backend"] == ("ort",)
    captured = capsys.readouterr()
    assert "parity: passed on ort" in captured.out
    assert captured.err == ""


def test_verify_fails_if_one_backend_does(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["verify"] = (samples.PARITY, samples.FAILED_PARITY)
    assert main(["verify", "a.onnx", "b.onnx", "--json"]) == 1
    captured = capsys.readouterr()
    assert [parity["passed"] for parity in json.loads(captured.out)["parity"]] == [True, False]
    assert captured.err == (
        "deployconv: error: b.onnx against a.onnx: parity: failed on ort, "
        "output z: max |difference| 0.5 (tolerance 1e-05)\n"
    )


def test_bench(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "a.onnx", "b.onnx", "--threads", "2", "--runs", "9"]) == 0
    options = {"backend": ("ort",), "shape": {}, "inputs": None, "seed": 0, "threads": 2, "runs": 9}
    options |= {"budget": 10.0, "profile": False, "cuda_graph": False, "report": None}
    assert api.calls == [("bench", (A, B), options)]
    assert "1.63 times as fast" in capsys.readouterr().out


def test_bench_on_given_inputs(api: FakeApi) -> None:
    assert main(["bench", "a.onnx", "b.onnx", "--inputs", "in.npz", "--seed", "3"]) == 0
    assert (api.options["inputs"], api.options["seed"]) == (Path("in.npz"), 3)


def test_bench_profile_and_graph(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["bench"] = (samples.PROFILED,)
    flags = ["--backend", "tensorrt", "--profile", "--cuda-graph"]
    assert main(["bench", "a.onnx", "b.onnx", *flags]) == 0
    assert (api.options["profile"], api.options["cuda_graph"]) == (True, True)
    assert "profile on tensorrt, means of 20 runs:" in capsys.readouterr().out
    assert main(["bench", "a.onnx", "b.onnx", *flags, "--json"]) == 0
    (latency,) = json.loads(capsys.readouterr().out)["latency"]
    assert latency["profiles"][0]["sites"][0]["layers"][0]["nodes"] == ["up", "relu"]


def test_bench_of_one_model_as_json(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "a.onnx", "--json"]) == 0
    assert api.calls[0][1] == (A, None)
    assert json.loads(capsys.readouterr().out)["latency"][0]["runs"] == 30


@pytest.mark.parametrize(
    ("models", "status"),
    [
        (samples.CHECK_REPORT.models[:1], 0),
        (samples.CHECK_REPORT.models, 1),
        (samples.CHECK_REPORT.models[2:], 2),
        (samples.CHECK_REPORT.models[3:], 3),
    ],
)
def test_check_statuses(
    api: FakeApi, capsys: pytest.CaptureFixture[str], models: tuple[object, ...], status: int
) -> None:
    api.answers["check"] = CheckReport(models)  # type: ignore[arg-type]
    assert main(["check", "a.onnx", "models"]) == status
    options = {
        **{"target": (), "backend": None, "skip": (), "shape": {}},
        **{"inputs": None, "seed": 0, "strict": False, "report": None, **ONE_PROCESS},
    }
    assert api.calls == [("check", (("a.onnx", "models"),), options)]
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith(f"{len(models)} model")
    assert captured.err.count("\n") == bool(status)


def test_check_flags(api: FakeApi) -> None:
    given = ["--backend", "ort:cuda", "--seed", "3", "--skip", "a*", "--skip", "b", "--strict"]
    given += ["--target", "ncnn", "--target", "npu.toml"]
    assert main(["check", "models", *given, "--shape", "x:1,3", "--inputs", "i.npz"]) == 1
    assert api.options == {
        **{"backend": "ort:cuda", "seed": 3, "skip": ("a*", "b"), "strict": True, "report": None},
        **{"shape": {"x": (1, 3)}, "inputs": Path("i.npz"), "target": ("ncnn", "npu.toml")},
        **ONE_PROCESS,
    }


def test_check_json_and_junit(
    api: FakeApi, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    junit = tmp_path / "report.xml"
    assert main(["check", "models", "--json", "--junit", str(junit)]) == 1
    assert len(json.loads(capsys.readouterr().out)["models"]) == 4
    assert len(list(ElementTree.parse(junit).getroot().iter("testcase"))) == 4
