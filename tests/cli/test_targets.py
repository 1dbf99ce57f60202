"""``deployconv targets``, and ``--target`` on the other commands."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import onnx
import pytest

from deployconv.cli import main
from deployconv.runtimes.toolchains import environments
from deployconv.targets import describe
from deployconv.targets.catalogue import target_names
from tests.build import conv_transpose, integers
from tests.runtimes.rtx import MODELS
from tests.targets.npu import NPU, dcgan, written

UNET = str(MODELS / "unet_decoder.onnx")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(list(arguments)) == status
    return capsys.readouterr().out


def test_a_list_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "targets").splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(target_names())]] == list(target_names())
    assert any("onnxruntime, CPU" in line and "installed" in line for line in lines)
    document = json.loads(printed(capsys, "targets", "--json"))
    assert [one["name"] for one in document["targets"]] == list(target_names())
    assert document["schema_version"] == 1


def test_one_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "targets", "iree")
    assert "tested with: 3.13.0 (recorded runs of 43 layers" in shown
    assert "\nwhat was run: upsampling layers, Resizes by themselves\n" in shown
    assert "- DepthToSpace in mode DCR: any block size" in shown
    assert (
        "operator ConvTranspose, asymmetric pads: is refused (import), it is rewritten: " in shown
    )
    (one,) = json.loads(printed(capsys, "targets", "iree", "--json"))["targets"]
    assert one["rules"][0]["when"] == {"operator": "ConvTranspose", "asymmetric_pads": True}


@pytest.mark.parametrize("here", [True, False])
def test_what_is_installed_is_told_of_the_backend_and_of_the_toolchain_of_build(
    here: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = "installed" if here else "not installed"
    monkeypatch.setattr(environments, "state_of", lambda toolchain: state)
    monkeypatch.setattr(describe, "is_installed", lambda profile: not here)
    first, other = ("not installed", "installed") if here else ("installed", "not installed")
    shown = printed(capsys, "targets", "openvino")
    assert f"\nbackend openvino (Python package openvino): {first}\n" in shown
    advice = "" if here else ": deployconv target install openvino"
    assert f"\ntoolchain of build: {other}{advice}\n" in shown
    shown = printed(capsys, "targets", "rk3588")
    assert f"\ntoolchain of build: {other}" in shown
    assert "ackend" not in shown.replace("tested with", "")
    (one,) = json.loads(printed(capsys, "targets", "openvino", "--json"))["targets"]
    assert (one["package_here"], one["environment"], one["installed"]) == (not here, other, True)
    lines = printed(capsys, "targets").splitlines()
    (row,) = (line for line in lines if line.startswith("openvino "))
    assert re.search(rf" {first} +{other} ", row)
    (row,) = (line for line in lines if line.startswith("rk3588 "))
    assert re.search(rf" - +{other} ", row)


def test_conditions_of_rules_are_data_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stated = """
[[layers]]
text = "x"
[layers.when]
auto_pad = ["SAME_UPPER", "SAME_LOWER"]
dilated = true
stride = 2
kernel = {min = 3}
channels_in = {min = 1, max = 4}
"""
    target = written(tmp_path, stated)
    (one,) = json.loads(printed(capsys, "targets", target, "--json"))["targets"]
    assert one["rules"][0]["conditions"] == {
        "auto_pad": ["SAME_UPPER", "SAME_LOWER"],
        "dilated": True,
        "stride": [2],
        "kernel": {"min": 3},
        "channels_in": {"min": 1, "max": 4},
    }
    assert one["rules"][0]["when"]["auto_pad"] == "SAME_UPPER or SAME_LOWER"


def test_a_file_in_plain_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "targets", written(tmp_path, NPU))
    assert shown.startswith("npu: an NPU with five operators\n")
    assert "- operators: Concat, Conv, Relu, Reshape, Transpose\n" in shown
    assert "- tensors of at most 4 dimensions\n" in shown
    assert "- not a Slice that crops the result\n" in shown


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "inspect", UNET, "--target", "rk3588")
    assert "would be kept - slower-on-target: rk3588: " in shown
    assert shown.count("a ConvTranspose of stride 2 runs as it is") == 2  # one for each site
    assert "this is what rewrite for rk3588 would do; nothing was changed" in shown
    document = json.loads(printed(capsys, "inspect", UNET, "--target", "rk3588", "--json"))
    (target,) = document["targets"]
    assert (target["name"], target["version"]) == ("rk3588", "rknn-toolkit2 2.5.0")
    (said,) = document["sites"][0]["targets"]
    assert (said["verdict"], said["action"]) == ("fits", "keep")
    assert said["source"].startswith("recorded run")
    assert "target" not in document


def test_inspect_of_several_models_says_why_as_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(dcgan("Tanh"), tmp_path / "dcgan.onnx")
    onnx.save(conv_transpose(integers(2, 3, 2, 2), (4, 5), strides=[2, 2]), tmp_path / "up.onnx")
    few = '[[layers]]\nwhen = {stride = 2}\ntext = "fast"\naction = "keep"\n'
    target = written(tmp_path, f"{NPU}{few}")
    for name in ("dcgan", "up"):
        alone = printed(capsys, "inspect", str(tmp_path / f"{name}.onnx"), "--target", target)
        told = [line for line in alone.splitlines() if line.startswith(("main/", "npu: "))]
        told = [line for line in told if " - " in line or "left in the model" in line]
        assert told
        both = printed(capsys, "inspect", str(tmp_path), "--target", target)
        assert [line for line in told if f"{'':8}{line}" not in both.splitlines()] == []
    assert "1 site: would be 1 rewritten" in both


def test_rewrite_says_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "dcgan.onnx"
    onnx.save(dcgan("Tanh"), model)
    before = sha256(model.read_bytes()).hexdigest()
    target = written(tmp_path, NPU)
    assert main(["rewrite", str(model), "--target", target, "--no-bench"]) == 0
    captured = capsys.readouterr()
    left = "npu: left in the model: Tanh, which npu does not take"
    assert captured.err == f"deployconv: warning: {left}\n"
    output = tmp_path / "dcgan.deploy.onnx"
    output.unlink()
    strict = ["rewrite", str(model), "--target", target, "--strict", "--json"]
    assert main(strict) == 1
    captured = capsys.readouterr()
    assert f"--strict: {left}: nothing was written" in captured.err
    assert json.loads(captured.out)["targets"][0]["misfits"][0]["code"] == "operator"
    assert not output.exists()
    assert sha256(model.read_bytes()).hexdigest() == before


def test_strict_names_layers_left_alone_and_what_a_target_does_not_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "dcgan.onnx"
    onnx.save(dcgan("Tanh"), model)
    call = ["rewrite", str(model), "--target", written(tmp_path, NPU), "--skip", "*", "--json"]
    assert main([*call, "--strict"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    alone = ", ".join(site["id"] for site in document["sites"])
    (found,) = document["targets"]
    assert [one["code"] for one in found["misfits"]].count("operator") > 1
    assert f"--strict: left alone: {alone}; npu: left in the model: " in captured.err
    assert not document["changed"]


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(dcgan(), tmp_path / "good.onnx")
    onnx.save(dcgan("Tanh"), tmp_path / "left.onnx")
    target = written(tmp_path, NPU)
    assert main(["check", str(tmp_path), "--target", target]) == 0
    captured = capsys.readouterr()
    assert "2 models: 2 passed" in captured.out
    left = "npu: left in the model: Tanh, which npu does not take"
    warning = f"deployconv: warning: {tmp_path / 'left.onnx'}: {left}\n"
    assert captured.err == warning
    shown = printed(capsys, "check", str(tmp_path), "--target", target, "--strict", status=1)
    assert "Tanh, which npu does not take" in shown
    assert main(["check", str(tmp_path), "--target", target, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == warning
    document = json.loads(captured.out)
    assert [len(one["targets"][0]["misfits"]) for one in document["models"]] == [0, 1]
    call = ["rewrite", str(tmp_path), "--target", target, "--no-bench", "--dry-run"]
    assert main(call) == 0
    assert capsys.readouterr().err == warning


def test_a_layer_that_its_target_takes_is_no_failure_of_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "up.onnx"
    onnx.save(conv_transpose(integers(2, 3, 2, 2), (4, 5), strides=[2, 2]), model)
    call = ["rewrite", str(model), "--dry-run", "--no-bench", "--strict"]
    shown = printed(capsys, *call, "--target", "rk3588")
    assert "kept - slower-on-target" in shown
    bf16 = written(
        tmp_path,
        '[[layers]]\nwhen = {stride = 2}\nverdict = "refused"\n'
        'action = "keep"\ntext = "in no form"\n',
    )
    assert main([*call, "--target", bf16]) == 1
    assert "--strict: left alone: main/up" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "rewrite", "check", "build"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("openvno", "--target openvno: there is no such target: did you mean openvino?"),
        ("missing.toml", "--target missing.toml: no such file"),
        ("wrong.toml", "wrong.toml, line 2: 'takes.max_rnk' is no key of a target: did you mean"),
    ],
)
def test_a_target_that_there_is_not(
    command: str,
    given: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "[takes]\nmax_rnk = 4\n", "wrong.toml")
    assert main([command, UNET, "--target", given]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"deployconv: error: {message}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("ort", "it runs models as they are: deployconv bench --backend ort"),
        ("portable", "deployconv inspect --target portable says what it takes"),
    ],
)
def test_a_target_without_a_toolchain_is_not_built(
    name: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", UNET, "--target", name]) == 2
    said = f"--target {name}: there is no toolchain to build with: {advice}"
    assert capsys.readouterr().err == f"deployconv: error: {said}\n"


def test_tensorrt_is_built_for_a_compute_capability(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", UNET, "--target", "tensorrt"]) == 2
    assert "--target tensorrt: name a compute capability such as sm89" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["targets", "sm999"],
        *(
            [command, UNET, "--target", "sm999"]
            for command in ("inspect", "rewrite", "check", "build")
        ),
    ],
    ids=" ".join,
)
def test_a_compute_capability_that_there_is_not(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """TensorRT-RTX is installed for some tests only, so `build` may also lack it."""
    assert main(words) in ((2, 3) if words[0] == "build" else (2,))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    near = "sm999: there is no such target: did you mean sm90 or sm89?"
    assert words[0] == "build" or near in captured.err


def test_strict_names_the_options_that_left_steps_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = written(tmp_path, "[takes]\nopset = {min = 19}\n", "new.toml")
    options = ["--strict", "--no-bench", "--no-verify", "--dry-run"]
    assert (
        main(["rewrite", str(MODELS / "dcgan_generator.onnx"), "--target", target, *options]) == 1
    )
    out = capsys.readouterr().out
    assert "certificate: not run - --no-verify" in out
    assert "parity: not run - --no-verify" in out
    assert "latency: not run - --no-bench" in out


@pytest.mark.parametrize("name", ["nope", "nope.toml"])
def test_targets_speaks_of_no_option_that_it_lacks(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["targets", name]) == 2
    assert capsys.readouterr().err.startswith(f"deployconv: error: {name}: ")
