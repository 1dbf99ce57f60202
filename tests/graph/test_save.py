"""Models are written whole or not at all, whatever fails on the way."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

import deployconv
from deployconv.cli import main
from deployconv.errors import ModelError, UsageError
from deployconv.graph import save
from deployconv.graph.load import LoadedModel, load
from deployconv.graph.save import data_path, staged
from tests.build import model, node, upsampler
from tests.runtimes.tiny import FLOAT, constant, graph, value

ROOT = Path(__file__).parents[2]


def net(seed: int = 0) -> ModelProto:
    """A ConvTranspose and a Conv whose weights take some KiB each."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("ConvTranspose", ["x", "w"], ["h"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["h", "c", "b"], ["y"]),
    ]
    weights = [
        constant("w", rng.standard_normal((8, 16, 4, 4))),
        constant("c", rng.standard_normal((16, 16, 3, 3))),
        constant("b", rng.standard_normal(16)),
    ]
    x, y = value("x", FLOAT, [1, 8, 5, 5]), value("y", FLOAT, [1, 16, 8, 8])
    return model(graph(nodes, [x], [y], weights))


def written(folder: Path, name: str, external: bool, seed: int = 0) -> Path:
    path = folder / name
    if external:
        onnx.save(net(seed), path, save_as_external_data=True, location=f"{name}.data")
    else:
        onnx.save(net(seed), path)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.iterdir())}


# Modes and sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("external", [False, True])
def test_the_umask_decides_who_may_read(external: bool, tmp_path: Path) -> None:
    path = written(tmp_path, "net.onnx", external)
    umask = os.umask(0o027)
    try:
        deployconv.rewrite(path, output=tmp_path / "out.onnx", verify=False, bench=False)
    finally:
        os.umask(umask)
    results = list(tmp_path.glob("out.onnx*"))
    assert len(results) == 1 + external
    assert {stat.S_IMODE(path.stat().st_mode) for path in results} == {0o640}


def test_a_model_too_large_for_one_file_moves_its_weights_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = net()
    monkeypatch.setattr(save, "_PROTO_LIMIT", proto.ByteSize() // 2)
    before = proto.SerializeToString(deterministic=True)
    done = deployconv.rewrite(proto, output=tmp_path / "out.onnx", bench=False)
    assert proto.SerializeToString(deterministic=True) == before
    assert done.parity is not None
    assert done.parity.passed
    assert sorted(files(tmp_path)) == ["out.onnx", "out.onnx.data"]
    on_disk = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    places = {tensor.name: tensor.data_location for tensor in on_disk.graph.initializer}
    assert places["c"] == TensorProto.EXTERNAL
    assert places["b"] == TensorProto.DEFAULT
    whole = onnx.load(tmp_path / "out.onnx")
    kept = {tensor.name: tensor.raw_data for tensor in whole.graph.initializer}
    assert all(kept[t.name] == t.raw_data for t in proto.graph.initializer if t.name in kept)
    assert list(kept)[:2] == ["c", "b"]


def test_a_model_too_large_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save, "_PROTO_LIMIT", 100)
    with pytest.raises(ModelError, match="over 2 GB even without its weights"):
        deployconv.rewrite(net(), output=tmp_path / "out.onnx", verify=False, bench=False)
    assert files(tmp_path) == {}


# What fails on the way ----------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["one file", "external data"])
def external(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[False, True], ids=["new", "forced"])
def call(request: pytest.FixtureRequest, tmp_path: Path, external: bool) -> Iterator[list[str]]:
    """A rewrite that fails, if asked for over an old output: nothing may change."""
    path = written(tmp_path, "net.onnx", external)
    if request.param:
        written(tmp_path, "out.onnx", external, seed=1)
    before = files(tmp_path)
    out = str(tmp_path / "out.onnx")
    yield ["rewrite", str(path), "-o", out, "--force", "--no-bench", "--no-verify"]
    assert files(tmp_path) == before


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_space_left(
    call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", no_space)
    assert main(call) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "out.onnx: cannot be written (No space left on device)" in captured.err


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_interrupted_while_it_is_verified(
    call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deployconv.proof.parity.check_parity", interrupt)
    call.remove("--no-verify")
    assert main(call) == 130
    assert capsys.readouterr().err == "deployconv: error: interrupted\n"


class Failing:
    """`Path.replace` that raises at its ``nth`` call, before or after the rename."""

    def __init__(self, nth: int, after: bool, error: BaseException) -> None:
        self.left, self.after, self.error = nth, after, error
        self.real = Path.replace

    def __call__(self, source: Path, target: Path) -> Path:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise self.error
        moved = self.real(source, target)
        if self.left == 0:
            raise self.error
        return moved


def publish(
    loaded: LoadedModel, output: Path, force: bool, meanwhile: Callable[[], object]
) -> None:
    with staged(loaded.proto, loaded.folder, output) as candidate:
        meanwhile()
        candidate.publish(output, force)


def publishing_fails(
    tmp_path: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    path = written(tmp_path, "net.onnx", external=True)
    if old:
        written(tmp_path, "out.onnx", external=True, seed=1)
    before = files(tmp_path)
    loaded = load(path)

    def fail_from_now_on() -> None:
        monkeypatch.setattr(Path, "replace", lambda *paths: failing(*paths))

    with pytest.raises((UsageError, KeyboardInterrupt)):
        publish(loaded, tmp_path / "out.onnx", True, fail_from_now_on)
    assert failing.left <= 0
    assert files(tmp_path) == before


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_interrupted_while_old_files_are_replaced(
    nth: int, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing_fails(tmp_path, Failing(nth, after, KeyboardInterrupt()), monkeypatch, old=True)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("old", [False, True], ids=["new", "forced"])
def test_no_space_while_files_are_put_in_place(
    nth: int, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    publishing_fails(tmp_path, Failing(nth + 2 * old, False, error), monkeypatch, old)


def test_a_folder_that_cannot_be_synced_has_its_model_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "net.onnx", external=False)
    real = os.open

    def no_folders(target: Any, *rest: Any, **more: Any) -> int:
        if Path(target).is_dir() and Path(target) == tmp_path:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(target, *rest, **more)

    monkeypatch.setattr(os, "open", no_folders)
    deployconv.rewrite(path, output=tmp_path / "out.onnx", verify=False, bench=False)
    assert sorted(files(tmp_path)) == ["net.onnx", "out.onnx"]


def test_an_output_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    with pytest.raises(UsageError, match="exists"):
        publish(load(net()), output, False, lambda: output.write_text("mine"))
    assert files(tmp_path) == {"out.onnx": b"mine"}


KILLED = """
import os, signal, sys
from pathlib import Path
from deployconv.graph.load import load
from deployconv.graph.save import staged

source, output, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
real = Path.replace

def replace(path, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return real(path, target)

loaded = load(source)
with staged(loaded.proto, loaded.folder, output) as candidate:
    Path.replace = replace
    candidate.publish(output, force=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_killed_while_old_files_are_replaced(moves: int, tmp_path: Path) -> None:
    """No model lies beside the data of another; neither the old nor the new one is lost."""
    path = written(tmp_path, "net.onnx", external=True)
    output = written(tmp_path, "out.onnx", external=True, seed=1)
    old = [output.read_bytes(), data_path(output).read_bytes()]
    before = files(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, path, output, str(moves)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    if moves == 0:
        assert [output.read_bytes(), data_path(output).read_bytes()] == old
    else:
        assert not output.exists()
        aside = [tmp_path / ".out.onnx.old", tmp_path / ".out.onnx.data.old"]
        if moves == 1:
            aside[1] = data_path(output)
        assert [file.read_bytes() for file in aside] == old
    for name in ("net.onnx", "net.onnx.data"):
        assert (tmp_path / name).read_bytes() == before[name]
    deployconv.rewrite(path, output=output, verify=False, bench=False, force=True)
    onnx.checker.check_model(output, full_check=True)


MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_the_parts_of_a_model_file_are_its_bytes(file: Path, tmp_path: Path) -> None:
    proto = onnx.load(file)
    with staged(proto, None, tmp_path / "y.onnx") as candidate:
        assert candidate.path.read_bytes() == proto.SerializeToString()


def test_so_are_those_of_a_model_with_every_field(tmp_path: Path) -> None:
    proto = upsampler()
    proto.doc_string = "of the model"
    proto.graph.doc_string = "of the graph"
    proto.metadata_props.add(key="k", value="v")
    proto.functions.add(name="f", domain="d")
    proto.training_info.add().initialization.name = "t"
    proto.graph.sparse_initializer.add().dims.extend([2, 3])
    proto.graph.value_info.add(name="v")
    proto.graph.quantization_annotation.add(tensor_name="x")
    large = onnx.numpy_helper.from_array(np.zeros(70_000, np.float32), "large")
    proto.graph.initializer.append(large)
    with staged(proto, None, tmp_path / "y.onnx") as candidate:
        assert candidate.path.read_bytes() == proto.SerializeToString()


def test_so_are_those_of_a_model_with_fields_that_onnx_does_not_know(tmp_path: Path) -> None:
    unknown = b"\xf2\x3f\x01u"  # field 1022, one byte
    proto = ModelProto.FromString(upsampler().SerializeToString() + unknown)
    proto.graph.MergeFromString(unknown)
    assert proto.SerializeToString().count(unknown) == 2
    with staged(proto, None, tmp_path / "y.onnx") as candidate:
        assert candidate.path.read_bytes() == proto.SerializeToString()
