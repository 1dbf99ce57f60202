"""Take from an exported graph what nobody runs; needs no framework."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages inside it."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for child in value if isinstance(value, Iterable) else (value,):
                yield from _messages(child)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without doc_strings, metadata and inferred shapes: traces, paths, most of the bytes.

    What is computed, and every name, stays.
    """
    for message in _messages(model):
        for name in ("doc_string", "metadata_props"):
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)
    del model.graph.value_info[:]
    return model
