"""Files that are broken in one way each: every function writes one to a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.build import node
from tests.runtimes.tiny import constant, upsampler

Maker = Callable[[Path], Path]
"""Writes a model to a folder and returns its path."""


def raw(content: bytes) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / "net.onnx"
        path.write_bytes(content)
        return path

    return make


def spoiled(edit: Callable[[ModelProto], object], **attributes: Any) -> Maker:
    """A good upsampler after ``edit``."""

    def make(folder: Path) -> Path:
        proto = upsampler(**attributes)
        edit(proto)
        return raw(proto.SerializeToString())(folder)

    return make


def keep(proto: ModelProto) -> None:
    """The model is good; the call is not."""


good = spoiled(keep)


def external(edit: Callable[[Path], object] = lambda folder: None, **entries: str) -> Maker:
    """A good upsampler with external data, after ``entries`` and then the files were changed."""

    def make(folder: Path) -> Path:
        proto = upsampler()
        (weight,) = proto.graph.initializer
        (folder / "w.bin").write_bytes(weight.raw_data)
        found = {"location": "w.bin", "offset": "0", "length": str(len(weight.raw_data))}
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, text in {**found, **entries}.items():
            weight.external_data.add(key=key, value=text)
        edit(folder)
        return raw(proto.SerializeToString())(folder)

    return make


def link_outside(folder: Path) -> None:
    outside = folder.parent / "elsewhere.bin"
    shutil.move(folder / "w.bin", outside)
    (folder / "w.bin").symlink_to(outside)


def attribute(**attributes: Any) -> Maker:
    return spoiled(keep, **attributes)


def weights(dtype: int, *shape: int, fill: float = 1.0) -> Callable[[ModelProto], None]:
    def edit(proto: ModelProto) -> None:
        proto.graph.initializer[0].CopyFrom(constant("w", np.full(shape, fill), dtype))

    return edit


def bias(dtype: int, *shape: int) -> Callable[[ModelProto], None]:
    def edit(proto: ModelProto) -> None:
        proto.graph.node[0].input.append("b")
        proto.graph.initializer.append(constant("b", np.zeros(shape), dtype))

    return edit


def opset(version: int) -> Callable[[ModelProto], None]:
    def edit(proto: ModelProto) -> None:
        proto.opset_import[0].version = version

    return edit


def ir(version: int) -> Callable[[ModelProto], None]:
    def edit(proto: ModelProto) -> None:
        proto.ir_version = version

    return edit


def cyclic(proto: ModelProto) -> None:
    proto.graph.node[0].input[0] = "z"
    proto.graph.node.append(node("Relu", ["y"], ["z"]))


def twice(proto: ModelProto) -> None:
    proto.graph.node.append(node("Relu", ["x"], ["y"]))


def custom_operator(proto: ModelProto) -> None:
    proto.graph.node[0].output[0] = "h"
    proto.graph.node.append(node("Mystery", ["h"], ["y"], domain="local"))


def unknown_operator(proto: ModelProto) -> None:
    proto.graph.node[0].op_type = "ConvTransposed"


def unknown_type(proto: ModelProto) -> None:
    proto.graph.initializer[0].data_type = 77


def short_weight(proto: ModelProto) -> None:
    proto.graph.initializer[0].raw_data = b"1234"


def negative_shape(proto: ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -2


def nested(folder: Path) -> Path:
    """Bodies in bodies: more levels than a protobuf reader follows, so written by hand."""
    content = b""
    for _ in range(40):
        for number in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            content = message(number, content)
    return raw(message(7, content))(folder)  # ModelProto.graph


def message(number: int, content: bytes) -> bytes:
    """Field ``number`` of a protobuf message."""
    length, size = b"", len(content)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def no_outputs(proto: ModelProto) -> None:
    del proto.graph.output[:]


def no_opset(proto: ModelProto) -> None:
    del proto.opset_import[:]


def two_opsets(proto: ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("", 13))


def zero_input(proto: ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 0


def untyped_input(proto: ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UNDEFINED


def sequence_input(proto: ModelProto) -> None:
    element = proto.graph.input[0].type.tensor_type
    proto.graph.input[0].type.sequence_type.elem_type.tensor_type.CopyFrom(element)


def nobody(proto: ModelProto) -> None:
    proto.graph.node[0].input[0] = "nobody"


def no_weight(proto: ModelProto) -> None:
    del proto.graph.initializer[:]


def npz(content: bytes) -> Maker:
    def make(folder: Path) -> Path:
        (folder / "in.npz").write_bytes(content)
        return good(folder)

    return make


def beside(name: str) -> Maker:
    """A good model with a file of ``name`` beside it."""

    def make(folder: Path) -> Path:
        (folder / name).write_text("mine")
        return good(folder)

    return make


def folder_beside(folder: Path) -> Path:
    (folder / "out").mkdir()
    return good(folder)


def pipe_beside(folder: Path) -> Path:
    os.mkfifo(folder / "out")
    return good(folder)


def unreadable(folder: Path) -> Path:
    path = good(folder)
    path.chmod(0)
    return path
