"""Whatever is wrong with a model or a call: the documented status, one line, and no trace."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto

import deployconv
from deployconv.cli import main
from deployconv.errors import DeployconvError
from deployconv.graph.load import load
from tests.build import node
from tests.runtimes.tiny import DOUBLE, FLOAT, upsampler, value
from tests.spoil import (
    Maker,
    attribute,
    beside,
    bias,
    custom_operator,
    cyclic,
    external,
    folder_beside,
    good,
    ir,
    link_outside,
    negative_shape,
    nested,
    no_opset,
    no_outputs,
    no_weight,
    nobody,
    npz,
    opset,
    pipe_beside,
    raw,
    sequence_input,
    short_weight,
    spoiled,
    twice,
    two_opsets,
    unknown_operator,
    unknown_type,
    unreadable,
    untyped_input,
    weights,
    zero_input,
)

ROOT = Path(__file__).parents[1]
FLOAT16, INT64 = TensorProto.FLOAT16, TensorProto.INT64


@dataclass(frozen=True)
class Case:
    """A call that must fail: how its files are made and what the message says."""

    name: str
    make: Maker
    says: str
    status: int = 2
    arguments: tuple[str, ...] = ()
    marks: Any = field(default=())


AS_ROOT = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read and write everything"
)
WITH_CUDA = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="shows what happens without CUDA, and this onnxruntime has it",
)
NO_PIPE = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
NO_PROC = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a folder that not even root can write to"
)

NET = upsampler().SerializeToString()
OUT = ("-o", "{folder}/out.onnx")

CASES = [
    # The file
    Case("empty", raw(b""), "is empty"),
    Case("text", raw(b"no model, just words\n"), "not an ONNX model, or cut short"),
    Case("json", raw(b'{"irVersion": "8"}'), "not an ONNX model, or cut short"),
    Case("noise", raw(np.random.default_rng(3).bytes(5000)), "not an ONNX model"),
    Case("zeros", raw(bytes(100)), "not an ONNX model"),
    Case("truncated", raw(NET[: len(NET) // 2]), "cut short"),
    Case("folder", lambda folder: folder, "holds no .onnx file"),
    Case("missing", lambda folder: folder / "net.onnx", "no such file"),
    Case("name too long", lambda folder: folder / ("n" * 300), "name too long"),
    Case("unreadable", unreadable, "Permission denied", marks=AS_ROOT),
    # External data
    Case("no data", external(lambda folder: (folder / "w.bin").unlink()), "is missing"),
    Case("short data", external(lambda f: (f / "w.bin").write_bytes(b"12")), "too short (2 bytes"),
    Case("absolute path", external(location="/etc/passwd"), "outside the model's folder"),
    Case("path upwards", external(location="../w.bin"), "outside the model's folder"),
    Case("path through", external(location="a/../../w.bin"), "outside the model's folder"),
    Case("Windows path", external(location="C:\\w.bin"), "outside the model's folder"),
    Case("Windows upwards", external(location="..\\w.bin"), "outside the model's folder"),
    Case("empty location", external(location=""), "names no external data file"),
    Case("NUL in location", external(location="w\0.bin"), "is missing"),
    Case("long location", external(location="w" * 300), "is missing"),
    Case("data a folder", external(location="."), "is missing"),
    Case("link outside", external(link_outside), "a link that leads out"),
    Case("offset beyond", external(offset="1000000"), "too short"),
    Case("offset no number", external(offset="many"), "'many' as the offset"),
    Case("offset negative", external(offset="-4"), "'-4' as the offset"),
    Case("length contradicts", external(length="8"), "its shape needs 384"),
    # The graph
    Case("cyclic", spoiled(cyclic), "in a circle, so none can run first: Conv"),
    Case("input that nobody makes", spoiled(nobody), "'nobody'"),
    Case("weight that nobody makes", spoiled(no_weight), "'w'"),
    Case("output made twice", spoiled(twice), "single static assignment"),
    Case("no outputs", spoiled(no_outputs), "has no outputs"),
    Case("nested too deep", nested, "nested deeper"),
    Case("unknown operator", spoiled(unknown_operator), "No Op registered for ConvTransposed"),
    Case("custom operator", spoiled(custom_operator), "Mystery", status=3),
    # Versions
    Case("opset 0", spoiled(opset(0)), "opset 0 is not supported"),
    Case("opset 999", spoiled(opset(999)), "opset 999 is not supported"),
    Case("opset -1", spoiled(opset(-1)), "opset -1 is not supported"),
    Case("no opset", spoiled(no_opset), "imports no opset"),
    Case("two opsets", spoiled(two_opsets), "imports ONNX opsets 13 and 22"),
    Case("IR 0", spoiled(ir(0)), "IR version 0 is not supported"),
    Case("IR 99", spoiled(ir(99)), "IR version 99 is not supported"),
    # Attributes
    Case("pads too few", attribute(pads=[1, 1]), "'pads' has 2 values, not 4"),
    Case("strides too many", attribute(strides=[2, 2, 2]), "'strides' has 3 values, not 2"),
    Case("dilations too few", attribute(dilations=[1]), "'dilations' has 1 values, not 2"),
    Case("kernel_shape too few", attribute(kernel_shape=[4]), "'kernel_shape' has 1 values"),
    Case("output_padding too few", attribute(output_padding=[1]), "'output_padding' has 1"),
    Case("output_shape too few", attribute(output_shape=[10]), "'output_shape' has 1 values"),
    Case("kernel_shape contradicts", attribute(kernel_shape=[3, 3]), "'kernel_shape' is [3, 3]"),
    Case("group contradicts", attribute(group=3), "'group' is 3 for 2"),
    Case("group 0", attribute(group=0), "'group' is 0"),
    Case("stride 0", attribute(strides=[0, 2]), "'strides' is [0, 2], below 1"),
    Case("stride negative", attribute(strides=[2, -2]), "'strides' is [2, -2], below 1"),
    Case("unknown auto_pad", attribute(auto_pad="SAME"), "'auto_pad' is 'SAME'"),
    Case("pads a float", attribute(pads=1.5), "Mismatched attribute type"),
    Case("pads of ages", attribute(pads=[2**62] * 4), "above 2147483647"),
    Case("pads beyond the output", attribute(pads=[9, 9, 9, 9]), "leaves no output"),
    Case("dilation of ages", attribute(dilations=[2**40, 1]), "above 2147483647"),
    Case("stride of ages", attribute(strides=[2**40, 1]), "above 2147483647"),
    # Weights
    Case("NaN weight", spoiled(weights(FLOAT, 2, 3, 4, 4, fill=np.nan)), "'w' holds NaN"),
    Case("infinite weight", spoiled(weights(FLOAT, 2, 3, 4, 4, fill=np.inf)), "infinite"),
    Case("weight without element", spoiled(weights(FLOAT, 2, 0, 4, 4)), "[2, 0, 4, 4]"),
    Case("weight without taps", spoiled(weights(FLOAT, 2, 3)), "[2, 3]"),
    Case("weight cut short", spoiled(short_weight), "4 bytes where its shape needs 384"),
    Case("weight of no type", spoiled(unknown_type), "element type 77"),
    Case("weight of negative shape", spoiled(negative_shape), "negative shape"),
    Case("weight of another type", spoiled(weights(FLOAT16, 2, 3, 4, 4)), "float16"),
    Case("weight of integers", spoiled(weights(INT64, 2, 3, 4, 4)), "int64"),
    Case("weight of other channels", spoiled(weights(FLOAT, 5, 3, 4, 4)), "has 2 channels"),
    Case("weight of another rank", spoiled(weights(FLOAT, 2, 3, 4)), "not 1"),
    Case("bias of another type", spoiled(bias(DOUBLE, 3)), "b"),
    Case("bias of another size", spoiled(bias(FLOAT, 4)), "bias 'b' is float32[4]"),
    Case("bias of another rank", spoiled(bias(FLOAT, 1, 3)), "bias 'b' is float32[1, 3]"),
    Case("input of no type", spoiled(untyped_input), "input 'x' has no element type"),
    Case("input a sequence", spoiled(sequence_input), "invalid"),
    Case("input without element", spoiled(zero_input), "dimension of size 0"),
    # The call
    Case("shape of no input", good, "no such input", arguments=("--shape", "z:1,2,5,5")),
    Case("shape of another rank", good, "x:", arguments=("--shape", "x:1,2,5")),
    Case("shape that contradicts", good, "has size 6", arguments=("--shape", "x:1,2,6,5")),
    Case("shape of nothing", good, "x", arguments=("--shape", "x:0,2,5,5")),
    Case("shape garbage", good, "expected NAME:SIZE", arguments=("--shape", "x=big")),
    Case("shape negative", good, "expected NAME:SIZE", arguments=("--shape", "x:-1,2,5,5")),
    Case("inputs no archive", npz(b"PK no"), "in.npz", arguments=("--inputs", "{folder}/in.npz")),
    Case("inputs missing", good, "none.npz", arguments=("--inputs", "{folder}/none.npz")),
    Case("unknown backend", good, "abacus", arguments=("--backend", "abacus")),
    Case("no CUDA", good, "CUDA", 3, ("--backend", "ort:cuda"), marks=WITH_CUDA),
    Case("unknown flag", good, "--no-such-flag", arguments=("--no-such-flag",)),
    Case("no site", good, "no site matches", arguments=("--only", "nothing*")),
    # The output
    Case("existing", beside("out.onnx"), "exists: pass --force", arguments=OUT),
    Case("output the input", good, "belongs to the input", arguments=("-o", "{model}", "--force")),
    Case(
        "output the data", external(), "belongs to", arguments=("-o", "{folder}/w.bin", "--force")
    ),
    Case("output a folder", folder_beside, "is a folder", arguments=("-o", "{folder}/out")),
    Case(
        "output a pipe", pipe_beside, "a pipe", 2, ("-o", "{folder}/out", "--force"), marks=NO_PIPE
    ),
    Case("no folder", good, "does not exist", arguments=("-o", "{folder}/none/out.onnx")),
    Case("folder a file", good, "does not exist", arguments=("-o", "{model}/out.onnx")),
    Case("name too long for output", good, "too long", arguments=("-o", "{folder}/" + "n" * 300)),
    Case("unwritable", good, "cannot be written", 2, ("-o", "/proc/self/out.onnx"), marks=NO_PROC),
]


def contents(folder: Path) -> dict[str, tuple[bytes | None, int]]:
    """Bytes and time of change of all that lies in ``folder``."""
    found: dict[str, tuple[bytes | None, int]] = {}
    for path in sorted(folder.rglob("*")):
        readable = path.is_file() and os.access(path, os.R_OK)
        found[str(path)] = (path.read_bytes() if readable else None, path.lstat().st_mtime_ns)
    return found


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=case.marks) for case in CASES]
)
def test_one_line_and_no_trace(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    path = case.make(folder)
    before = contents(folder)
    arguments = [part.format(folder=folder, model=path) for part in case.arguments]
    status = main(["rewrite", str(path), "--json", "--no-bench", *arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("deployconv: error: ")
    assert captured.err.count("\n") == 1
    assert case.says in captured.err
    assert status == case.status
    assert contents(folder) == before


def test_a_kernel_that_no_file_can_hold_is_left_alone() -> None:
    (site,) = deployconv.inspect(upsampler(dilations=[2**30, 1])).sites
    assert site.status == "skipped"
    assert site.reason is not None
    assert site.reason.code == "too-large"


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    proto = upsampler()
    del proto.opset_import[1:]  # a model without its last import would still be whole
    content = proto.SerializeToString()
    for end in range(len(content)):
        path = raw(content[:end])(tmp_path)
        with pytest.raises(DeployconvError):
            load(path)


@settings(max_examples=300)
@given(st.integers(0, len(NET) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(position: int, byte: int) -> None:
    """Whatever it does to the model, it ends in a rewrite or in one of our errors."""
    content = bytearray(NET)
    content[position] = byte
    try:
        proto = ModelProto.FromString(bytes(content))
    except DecodeError:
        return
    with contextlib.suppress(DeployconvError):
        deployconv.rewrite(proto, verify=False, bench=False)


@pytest.mark.parametrize("name", ["empty", "no data", "NaN weight", "unknown backend"])
def test_as_a_process(name: str, tmp_path: Path) -> None:
    """The same through the interpreter: whatever libraries print of their own would show here."""
    case = next(case for case in CASES if case.name == name)
    path = case.make(tmp_path)
    before = contents(tmp_path)
    command = [sys.executable, "-m", "deployconv", "rewrite", str(path), "--json", *case.arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == case.status
    assert done.stdout == ""
    assert done.stderr.startswith("deployconv: error: ")
    assert done.stderr.count("\n") == 1
    assert contents(tmp_path) == before


def test_a_lying_value_info_is_not_believed(tmp_path: Path) -> None:
    """The shape that a model states for an intermediate tensor decides nothing."""
    proto = upsampler()
    proto.graph.node[0].input[0] = "h"
    proto.graph.node.insert(0, node("Relu", ["x"], ["h"]))
    proto.graph.value_info.append(value("h", FLOAT, [7, 2, 1, 9]))
    done = deployconv.rewrite(raw(proto.SerializeToString())(tmp_path), bench=False)
    assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]
    assert done.parity is not None
    assert done.parity.passed
