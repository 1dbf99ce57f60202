"""The commands on real models, as somebody at a prompt runs them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from deployconv.cli import main
from deployconv.rewrites import conv_emit
from tests.build import run

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(MODELS / "text_detector_head.onnx", tmp_path / "net.onnx"))


@pytest.fixture
def changed(model: Path) -> Path:
    """The same interface, another bias."""
    proto = onnx.load(model)
    bias = next(tensor for tensor in proto.graph.initializer if len(tensor.dims) == 1)
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    path = model.with_name("changed.onnx")
    onnx.save(proto, path)
    return path


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    captured = capsys.readouterr()
    assert captured.err == ""
    loaded: dict[str, Any] = json.loads(captured.out)
    return loaded


def test_inspect_then_rewrite_then_verify_then_bench(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sha256(model)
    assert main(["inspect", str(model), "--json"]) == 0
    planned = document(capsys)
    assert planned["model"]["sha256"] == before
    assert [site["status"] for site in planned["sites"]] == ["rewritten", "rewritten"]

    assert main(["rewrite", str(model), "--json"]) == 0
    done = document(capsys)
    output = model.with_name("net.deploy.onnx")
    assert done["output"] == {"path": str(output), "sha256": sha256(output)}
    assert [site["certificate"] for site in done["sites"]] == ["exact", "exact"]
    assert [site["id"] for site in done["sites"]] == [site["id"] for site in planned["sites"]]
    assert done["parity"]["passed"] is True
    assert done["latency"]["ratio"] > 0
    assert done["not_run"] == []
    assert sha256(model) == before

    assert main(["verify", str(model), str(output), "--json"]) == 0
    assert document(capsys)["parity"][0]["passed"] is True

    pair = [str(model), str(output)]
    assert main(["bench", *pair, "--runs", "3", "--threads", "1", "--json"]) == 0
    (latency,) = document(capsys)["latency"]
    assert (latency["runs"], latency["threads"]) == (3, 1)
    assert latency["after_ms"]["median"] > 0


def test_threads_are_those_of_the_timing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for threads in (1, 2):
        arguments = ["rewrite", str(model), "--threads", str(threads), "--budget", "1"]
        assert main([*arguments, "--dry-run", "--json"]) == 0
        assert document(capsys)["latency"]["threads"] == threads


def test_a_failed_certificate_is_kept_to_be_run_again(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names an element; the models and inputs that are kept show just that one."""

    def spoiled(*given: Any) -> Any:
        return np.roll(phase_weights(*given), 1, axis=0)

    phase_weights = conv_emit.phase_weights
    monkeypatch.setattr(conv_emit, "phase_weights", spoiled)
    folder = model.with_name("kept")
    arguments = ["rewrite", str(model), "--only", "*body.3*", "--no-bench", "--json"]
    assert main([*arguments, "--dump", str(folder)]) == 1

    captured = capsys.readouterr()
    site = json.loads(captured.out)["sites"][0]
    assert (site["id"], site["certificate"]) == ("main//body/body.3/ConvTranspose", "failed")
    said = re.fullmatch(
        r"(\d+) of (\d+) elements differ, first at (\[.*\]): (\S+) expected, (\S+) computed",
        site["certificate_failure"],
    )
    assert said
    assert captured.err == (
        f"deployconv: error: certificate failed: {site['id']} ({site['certificate_failure']}):"
        " nothing was written\n"
    )
    (kept,) = folder.iterdir()
    assert kept.name == "main__body_body.3_ConvTranspose"
    assert sorted(path.name for path in kept.iterdir()) == ["inputs.npz", "new.onnx", "old.onnx"]
    with np.load(kept / "inputs.npz") as arrays:
        feeds = dict(arrays)
    old, new = (run(onnx.load(kept / name), feeds) for name in ("old.onnx", "new.onnx"))
    ((expected, actual),) = zip(old.values(), new.values(), strict=True)
    differs = np.argwhere(expected != actual)
    first = tuple(differs[0])
    assert said.groups() == (
        *(str(len(differs)), str(expected.size), str(differs[0].tolist())),
        *(f"{expected[first]:g}", f"{actual[first]:g}"),
    )
    assert sorted(path.name for path in model.parent.iterdir()) == ["kept", "net.onnx"]


def test_a_certificate_that_holds_leaves_nothing(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.with_name("kept")
    assert main(["rewrite", str(model), "--no-bench", "--dry-run", "--dump", str(folder)]) == 0
    assert "certificate: exact" in capsys.readouterr().out
    assert list(model.parent.iterdir()) == [model]


def test_the_console_ends_with_the_proof(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", str(model)]) == 0
    # Where the rewritten model is slower, one more line may name a faster command.
    lines = [one for one in capsys.readouterr().out.splitlines() if "faster here" not in one]
    *_, sites, certificate, parity, latency, wrote = lines
    assert sites == "2 sites: 2 rewritten"
    assert certificate == "certificate: exact (2 sites)"
    assert parity.startswith("parity: passed on ort, max |difference| ")
    assert latency.startswith("latency: ")
    assert wrote == f"wrote {model.with_name('net.deploy.onnx')}"


def test_what_was_not_asked_for_is_not_called_passed(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rewrite", str(model), "--no-verify", "--no-bench", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "parity: not run - " in printed
    assert "latency: not run - " in printed
    assert "exact" not in printed
    assert "passed" not in printed
    assert list(model.parent.iterdir()) == [model]


def test_an_existing_output_is_kept_unless_forced(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = model.with_name("out.onnx")
    output.write_text("mine")
    arguments = ["rewrite", str(model), "-o", str(output), "--no-bench"]
    assert main(arguments) == 2
    assert str(output) in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert main([*arguments, "--force"]) == 0
    onnx.checker.check_model(output)


def test_strict_fails_if_a_site_is_left_alone(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["rewrite", str(model), "--skip", "*body.3*", "--no-bench", "--json"]
    assert main([*arguments, "--strict"]) == 1
    captured = capsys.readouterr()
    left = json.loads(captured.out)
    assert sorted(site["status"] for site in left["sites"]) == ["kept", "rewritten"]
    assert captured.err.startswith("deployconv: error: ")
    assert captured.err.count("\n") == 1
    assert list(model.parent.iterdir()) == [model]


def test_verify_finds_a_difference(
    model: Path, changed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(model), str(changed)]) == 1
    captured = capsys.readouterr()
    assert "parity: failed on ort" in captured.out
    assert captured.err.startswith(f"deployconv: error: {changed} against {model}: parity: failed")


def test_check_of_a_folder(model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(model, folder / "good.onnx")
    assert main(["check", str(folder), "--json"]) == 0
    assert [entry["status"] for entry in document(capsys)["models"]] == ["passed"]

    (folder / "broken.onnx").write_text("no model")
    assert main(["check", str(folder), "--junit", str(tmp_path / "report.xml")]) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "2 models: 1 error, 1 passed"
    assert (tmp_path / "report.xml").read_text().count("<testcase") == 2
    assert [path.name for path in sorted(folder.iterdir())] == ["broken.onnx", "good.onnx"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "missing.onnx"],
        ["rewrite", "missing.onnx"],
        ["rewrite", "{model}", "--backend", "abacus"],
        ["rewrite", "{model}", "--shape", "nothing:1"],
        ["rewrite", "{model}", "--inputs", "missing.npz"],
        ["verify", "{model}", "missing.onnx"],
        ["bench", "missing.onnx"],
        ["check", "missing"],
    ],
    ids=" ".join,
)
def test_faults_of_the_call(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([argument.format(model=model) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("deployconv: error: ")
    assert captured.err.count("\n") == 1
    assert list(model.parent.iterdir()) == [model]


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="shows what happens without CUDA, and this onnxruntime has it",
)
def test_a_backend_that_is_not_there(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", str(model), "--backend", "ort:cuda"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert list(model.parent.iterdir()) == [model]
