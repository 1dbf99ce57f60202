"""What a toolchain computes is compared with onnxruntime, and gates a rewritten model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from matrix.forms import FORMS

import deployconv
from deployconv.errors import BackendUnavailable, CheckFailed, UsageError
from deployconv.proof import toolchain_builds
from deployconv.proof.toolchain_builds import compare
from deployconv.runtimes.toolchains import catalogue, environments
from deployconv.runtimes.toolchains.catalogue import Device
from tests.runtimes.toolchains import TWICE, failing, toolchain

EXACT = Device()
INT8 = Device("", 0.3, integer=True)
RIGHT = TWICE.replace("import numpy as np", "import numpy as np, onnx, onnxruntime").replace(
    "[2 * array for array in feeds.values()]", "self.session.run(None, feeds)"
)
SESSION = """made = Session()
    made.session = onnxruntime.InferenceSession(str(job.model))
    return made"""
RUNS = RIGHT.replace("return Session()", SESSION)
"""Computes a model with onnxruntime."""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, adapter: str) -> None:
    """Install a toolchain for ``iree`` with this adapter, and none for another target."""
    npu = toolchain(folder, adapter, "iree")

    def of(target: str) -> object:
        return npu if target == "iree" else None

    for module in (toolchain_builds, environments, catalogue):
        monkeypatch.setattr(module, "toolchain_of", of)
    for module in (toolchain_builds, environments):
        monkeypatch.setattr(module, "installed", lambda one: Path(sys.executable))


def test_equal_outputs_pass() -> None:
    value = np.ones((1, 2), np.float32)
    assert compare("y", value, value, EXACT).passed
    assert not compare("y", value + 0.001, value, EXACT).passed
    assert compare("y", value + 0.05, value, EXACT, step=0.05).passed
    assert compare("y", value + 0.004, value.astype(np.float16), EXACT).passed


def test_a_wrong_shape_and_nan_fail() -> None:
    value = np.ones((1, 2), np.float32)
    other = compare("y", np.ones((1, 3), np.float32), value, EXACT)
    assert other.problem == "has shape [1, 3] instead of [1, 2]"
    assert not compare("y", value * np.nan, value, EXACT).passed
    assert not compare("y", value * np.nan, value, INT8).passed


def test_eight_bits_may_saturate_but_not_move_pixels() -> None:
    value = np.random.default_rng(0).standard_normal((1, 4, 9, 9)).astype(np.float32)
    assert compare("y", np.clip(value, -2, 2), value, INT8).passed
    assert not compare("y", np.roll(value, 1, axis=2), value, INT8).passed


def test_a_model_that_the_target_computes_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path, RUNS)
    report = deployconv.build(FORMS["k2s2"].model(), target="iree")
    (built,) = report.targets
    assert report.runtime == "twice 1.0"
    assert built.builds
    assert not built.misread
    assert built.conversion is not None
    assert built.conversion.notes == {"cycles": 7}
    assert [one.passed for one in built.conversion.outputs] == [True]


def test_a_model_that_the_target_computes_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path, TWICE)
    (built,) = deployconv.build(FORMS["k2s2"].model(), target="iree").targets
    assert built.misread
    assert built.failure is not None
    assert built.failure.reason == "output 'y' has shape [1, 16, 20, 20] instead of [1, 8, 40, 40]"


def test_a_model_that_the_target_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, failing("raise RuntimeError('no')"))
    (built,) = deployconv.build(FORMS["k2s2"].model(), target="iree").targets
    assert not built.builds
    assert built.failure is not None
    assert (built.failure.name, built.failure.reason) == ("build", "no")


def test_a_rewritten_model_that_is_refused_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refuses = """if any(n.op_type == "Conv" for n in onnx.load(job.model).graph.node):
        raise RuntimeError("no Conv")
    """
    install(monkeypatch, tmp_path, RIGHT.replace("return Session()", refuses + SESSION))
    with pytest.raises(CheckFailed, match="iree: builds as exported, not rewritten: no Conv"):
        deployconv.rewrite(FORMS["k4s2p1"].model(), target="iree", bench=False)


def test_a_rewritten_model_that_is_right_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path, RUNS)
    result = deployconv.rewrite(FORMS["k4s2p1"].model(), target="iree", bench=False)
    assert result.compiled is not None
    assert result.compiled.passed
    assert [after.misread for _, after in result.compiled.pairs] == [False]


def test_an_input_file_is_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(FORMS["k2s2"].model(), file)
    before = file.read_bytes()
    install(monkeypatch, tmp_path, failing("job.model.write_bytes(b''); return Session()"))
    deployconv.build(file, target="iree")
    assert file.read_bytes() == before


def test_a_toolchain_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, TWICE)
    monkeypatch.setattr(toolchain_builds, "installed", lambda one: None)
    with pytest.raises(BackendUnavailable, match="deployconv target install iree"):
        deployconv.build(FORMS["k2s2"].model(), target="iree")


@pytest.mark.parametrize(
    ("done", "words"),
    [
        ('["npu==0.9"]', "iree: its toolchain is installed in other versions than deployconv now"),
        ("", "iree: its toolchain is being installed, or that was cut off: deployconv target"),
    ],
)
def test_a_toolchain_of_other_versions_is_not_passed_over(
    done: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_other_versions(monkeypatch, tmp_path, done)
    with pytest.raises(BackendUnavailable, match=f"^--target {words}"):
        deployconv.build(FORMS["k4s2p1"].model(), target="iree")
    result = deployconv.rewrite(FORMS["k4s2p1"].model(), target="iree", bench=False)
    (warning,) = result.warnings
    assert warning.startswith("iree: not tested with its toolchain: ")
    quiet = deployconv.rewrite(FORMS["k4s2p1"].model(), target="iree", bench=False, verify=False)
    assert quiet.warnings == ()


def of_other_versions(monkeypatch: pytest.MonkeyPatch, folder: Path, done: str) -> None:
    """Make an environment for ``iree`` that is not one of the versions of today."""
    monkeypatch.setattr(environments, "environments_folder", lambda: folder)
    python = folder / "iree" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (folder / "iree" / "deployconv.json").write_text(done)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": ["iree", "sm89"]}, "--target sm89: build it in a call of its own"),
        ({"target": "iree", "engine": "net.engine"}, "--engine: is of TensorRT"),
        ({"target": "iree", "fp16": True}, "--fp16: is of TensorRT"),
    ],
)
def test_what_only_tensorrt_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    install(monkeypatch, tmp_path, TWICE)
    with pytest.raises(UsageError, match=words):
        deployconv.build(FORMS["k2s2"].model(), **options)  # type: ignore[arg-type]
