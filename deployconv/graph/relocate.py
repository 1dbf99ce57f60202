"""Gather the bytes of external tensors in one new file, without reading them into memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, TensorProto

from deployconv.graph.tensors import ExternalData, all_tensors, byte_size, is_external

_PAGE = 1 << 16
"""Large tensors start where a runtime can map them on every platform."""
_LARGE = 1 << 20
_SMALL = 1 << 10
"""Tensors below this many bytes stay in the model file: runtimes infer shapes from them."""


def relocated(
    proto: ModelProto, folder: Path | None, target: BinaryIO, movable: Collection[str] | None
) -> ModelProto:
    """A copy of ``proto`` whose external tensors all lie in ``target``.

    Args:
        proto: the model; not changed.
        folder: where its external data lies.
        target: an empty file; the copy refers to it by its name.
        movable: names of the tensors that move out of the model; None for all.
    """
    copy = ModelProto()
    copy.CopyFrom(proto)
    placed: dict[tuple[str, int, int], int] = {}
    for tensor in all_tensors(copy):
        if is_external(tensor):
            source = ExternalData.of(tensor)
            length = byte_size(tensor) or 0
            if not length:
                _embed_nothing(tensor)
                continue
            key = (source.location, source.offset, length)
            if key not in placed:
                file = (folder or Path()) / source.location
                placed[key] = _copy(file, source.offset, length, target)
            _refer(tensor, target, placed[key], length)
        elif movable is None or tensor.name in movable:
            raw = tensor.raw_data
            if len(raw) >= _SMALL:
                tensor.ClearField("raw_data")
                offset = _align(target, len(raw))
                target.write(raw)
                _refer(tensor, target, offset, len(raw))
    return copy


def _embed_nothing(tensor: TensorProto) -> None:
    """Readers take an external length of 0 for "up to the end of the file"."""
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    tensor.raw_data = b""


def _refer(tensor: TensorProto, data: BinaryIO, offset: int, length: int) -> None:
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    location = Path(data.name).name
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _align(target: BinaryIO, length: int) -> int:
    boundary = _PAGE if length >= _LARGE else 16
    target.seek(-(-target.tell() // boundary) * boundary)
    return target.tell()


def _copy(file: Path, offset: int, length: int, target: BinaryIO) -> int:
    """Append ``length`` bytes of ``file`` to ``target``; returns where they start."""
    start = _align(target, length)
    target.flush()
    with file.open("rb") as source:
        remaining = length
        if hasattr(os, "copy_file_range"):
            with contextlib.suppress(OSError):  # other file systems: copied below
                while remaining:
                    position = offset + length - remaining
                    there = start + length - remaining
                    count = os.copy_file_range(
                        source.fileno(), target.fileno(), remaining, position, there
                    )
                    if count == 0:
                        break
                    remaining -= count
        source.seek(offset + length - remaining)
        target.seek(start + length - remaining)
        while remaining:
            chunk = source.read(min(remaining, _LARGE))
            if not chunk:
                raise OSError(0, f"'{file.name}' ended early")
            target.write(chunk)
            remaining -= len(chunk)
    target.seek(start + length)
    return start
