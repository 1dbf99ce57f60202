"""Write a model whole or not at all: to a file beside its destination, synced, then renamed.

A model with external data keeps its data external, in one file ``NAME.onnx.data``. It holds the
bytes of every external tensor, copied without being read into memory, and then the new weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import EncodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import GraphProto, ModelProto, TensorProto

from deployconv.errors import ModelError, UsageError
from deployconv.graph.load import LoadedModel
from deployconv.graph.tensors import ExternalData, all_tensors, byte_size, is_external
from deployconv.results import OutputFile
from deployconv.temporary import temporary_folder

_PROTO_LIMIT = (1 << 31) - (1 << 20)
_PAGE = 1 << 16
"""Large tensors start at a multiple of this: a runtime can map them on every platform."""
_LARGE = 1 << 20
_SMALL = 1 << 10
"""Tensors below this many bytes stay in the model file: runtimes infer shapes from them."""


@dataclass(frozen=True)
class StagedModel:
    """A complete model in a temporary folder, to be verified and then published.

    ``proto`` is the model as written: its external tensors refer to the staged data file.
    ``digest`` is the SHA-256 of the model file.
    """

    proto: ModelProto
    path: Path
    data: Path | None
    digest: str

    def publish(self, output: Path, force: bool) -> OutputFile:
        """Move the files to their place. Raises UsageError if that fails."""
        if not force:
            refuse_existing(output, self.data is not None)
        try:
            if self.data is None:
                self.path.replace(output)
            else:
                _replace_together([(self.data, data_path(output)), (self.path, output)])
        except OSError as error:
            raise _cannot_write(output, error) from error
        _sync_folder(output.parent)
        return OutputFile(str(output), self.digest)


def data_path(output: Path) -> Path:
    """Where the external data of a model written to ``output`` goes."""
    return output.with_name(output.name + ".data")


def _replace_together(moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename each first file to the second, the model last; all of them, or none.

    A model must never lie beside the data of another model. So old files are renamed to
    ``.NAME.old`` first; a process that is killed then leaves them under this name.
    """
    old: list[Path] = []
    with contextlib.ExitStack() as undo:
        for _, place in reversed(moves):
            if os.path.lexists(place):
                aside = place.with_name(f".{place.name}.old")
                aside.unlink(missing_ok=True)
                undo.callback(_restore, aside, place)
                place.replace(aside)
                old.append(aside)
        for staged_file, place in moves:
            undo.callback(place.unlink, missing_ok=True)
            staged_file.replace(place)
        undo.pop_all()
    for aside in old:
        aside.unlink(missing_ok=True)


def _restore(aside: Path, place: Path) -> None:
    if os.path.lexists(aside):
        aside.replace(place)


def _cannot_write(output: Path, error: OSError) -> UsageError:
    reason = error.strerror or str(error)
    return UsageError(f"{output}: cannot be written ({reason}): check the folder and free space")


def refuse_existing(output: Path, with_data: bool) -> None:
    """Raise UsageError if ``output``, or its data file if it will have one, exists."""
    for file in (output, data_path(output)) if with_data else (output,):
        if file.exists() or file.is_symlink():
            raise UsageError(f"{file}: exists: pass --force to replace it, or -o for another name")


def refuse_inputs(output: Path, model: LoadedModel) -> None:
    """Raise UsageError if writing ``output`` would change a file of ``model``."""
    inputs = [file for file in (model.path, *model.external_files) if file is not None]
    try:
        if not output.parent.is_dir():
            raise UsageError(f"{output}: folder '{output.parent}' does not exist: create it first")
        if output.is_dir():
            raise UsageError(f"{output}: is a folder: name a file")
        if output.exists() and not output.is_file():
            # A rename would put a file in the place of the device itself.
            raise UsageError(f"{output}: is a device or a pipe: name a file")
        for target in (output, data_path(output)):
            if target.exists() and any(file.samefile(target) for file in inputs):
                raise UsageError(
                    f"{target}: belongs to the input model, which is never changed: pass -o with"
                    f" another name"
                )
    except OSError as error:
        raise _cannot_write(output, error) from error


@contextlib.contextmanager
def staged(
    proto: ModelProto,
    folder: Path | None,
    output: Path | None,
    new: Collection[str] = (),
    external: bool = False,
) -> Iterator[StagedModel]:
    """Write ``proto`` to a temporary folder that is gone at the end.

    Args:
        proto: the model; not changed.
        folder: the folder of its external data.
        output: the path that it will be published to by a rename; None for a model that is only
            looked at.
        new: names of the tensors that a rewrite added; they become external if others are.
        external: True if the model had external data, even if none of it is left.

    Raises:
        UsageError: the folder of ``output`` cannot be written.
        ModelError: the model is over 2 GB even with its weights in another file.
    """
    with contextlib.ExitStack() as stack:
        path = Path("a temporary model")
        try:
            place = temporary_folder(None if output is None else output.parent)
            temporary = stack.enter_context(place)
            path = temporary / ("model.onnx" if output is None else output.name)
            durable = output is not None
            if external or needs_external_data(proto):
                written = _write_external(proto, folder, path, new, durable)
            else:
                written = _write_whole(proto, path, durable)
        except OSError as error:
            raise _cannot_write(output or path, error) from error
        yield written


def _write_whole(proto: ModelProto, path: Path, durable: bool) -> StagedModel:
    parts = _Parts.of(proto)
    if parts is None:  # too large with its new weights: all of them move out
        return _write_external(proto, None, path, None, durable)
    digest = _write_file(path, parts, durable)
    return StagedModel(proto, path, None, digest)


def _write_external(
    proto: ModelProto, folder: Path | None, path: Path, new: Collection[str] | None, durable: bool
) -> StagedModel:
    data = data_path(path)
    with data.open("wb") as target:
        moved = relocated(proto, folder, target, new)
        empty = target.tell() == 0
        _sync(target, durable)
    parts = _Parts.of(moved)
    if parts is None:
        raise ModelError(f"{path.name}: over 2 GB even without its weights: split the model")
    digest = _write_file(path, parts, durable)
    if empty:
        data.unlink()
    return StagedModel(moved, path, None if empty else data, digest)


@dataclass(frozen=True, eq=False)
class _Parts:
    """The bytes of a model in parts, so that no second copy of all its weights is made.

    Attributes:
        head: what is written before the initializers of the main graph.
        tensors: the initializers of the main graph.
        tail: what is written after the initializers.
    """

    head: bytes
    tensors: Sequence[TensorProto]
    tail: bytes

    @classmethod
    def of(cls, proto: ModelProto) -> _Parts | None:
        """None if ``proto`` has more bytes than a model file can hold."""
        graph = proto.graph
        # A field that this version of onnx does not know has no position among the others.
        whole = len(UnknownFieldSet(proto)) or len(UnknownFieldSet(graph))
        tensors = () if whole else tuple(graph.initializer)
        try:
            if whole:
                parts = cls(proto.SerializeToString(), (), b"")
                return parts if len(parts.head) <= _PROTO_LIMIT else None
            sizes = [tensor.ByteSize() for tensor in tensors]
            size = sum(size + len(_prefix(_INITIALIZER, size)) for size in sizes)
            before, after = _around(graph, GraphProto(), "initializer")
            size += len(before) + len(after)
            head, tail = _around(proto, ModelProto(), "graph")
        except (EncodeError, ValueError):
            return None
        if len(head) + size + len(tail) > _PROTO_LIMIT:
            return None
        if proto.HasField("graph"):
            head += _prefix(_GRAPH, size)
        return cls(head + before, tensors, after + tail)

    def __iter__(self) -> Iterator[bytes]:
        """All bytes, in order, as `SerializeToString` would give them."""
        yield self.head
        for tensor in self.tensors:
            raw = tensor.SerializeToString()
            yield _prefix(_INITIALIZER, len(raw))
            yield raw
        yield self.tail


_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number


def _prefix(field: int, length: int) -> bytes:
    """The bytes before a message of ``length`` bytes in ``field`` (1 to 15) of another message."""
    prefix = bytearray([field << 3 | 2])
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix)


def _around(message: Message, empty: Message, name: str) -> tuple[bytes, bytes]:
    """The bytes of all fields of ``message`` before, and of all after, the one called ``name``.

    ``empty`` is a new message of the same type.
    """
    number = message.DESCRIPTOR.fields_by_name[name].number
    parts = [b"", b""]
    for field, value in message.ListFields():
        if field.number == number:
            continue
        empty.Clear()
        if hasattr(value, "extend"):
            getattr(empty, field.name).extend(value)
        elif field.message_type is not None:
            getattr(empty, field.name).CopyFrom(value)
        else:
            setattr(empty, field.name, value)
        parts[field.number > number] += empty.SerializeToString()
    return parts[0], parts[1]


def needs_external_data(proto: ModelProto) -> bool:
    """True if bytes of ``proto`` lie in other files."""
    return any(is_external(tensor) for tensor in all_tensors(proto))


def _write_file(path: Path, parts: Iterable[bytes], durable: bool) -> str:
    """Write ``parts``; returns the SHA-256 of them all."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in parts:
            digest.update(part)
            file.write(part)
        _sync(file, durable)
    return digest.hexdigest()


def _sync(file: BinaryIO, durable: bool) -> None:
    file.flush()
    if durable:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the renames durable, if the file system can."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def relocated(
    proto: ModelProto, folder: Path | None, target: BinaryIO, movable: Collection[str] | None
) -> ModelProto:
    """A copy of ``proto`` whose external tensors all lie in ``target``.

    Args:
        proto: the model; not changed.
        folder: the folder of its external data.
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
    """Make a tensor of no element internal: an external length of 0 means "to the end"."""
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
