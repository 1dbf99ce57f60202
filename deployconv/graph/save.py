"""Write a model whole or not at all: staged beside its place, synced, then renamed.

A model with external data keeps its data external: one file ``NAME.onnx.data`` with the
bytes of every external tensor, copied from where they lie without being read into memory,
and the new weights behind them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import EncodeError
from onnx import ModelProto

from deployconv.errors import ModelError, UsageError
from deployconv.graph.load import LoadedModel
from deployconv.graph.relocate import relocated
from deployconv.graph.tensors import all_tensors, is_external
from deployconv.results import OutputFile

_CHUNK = 1 << 20
_PROTO_LIMIT = (1 << 31) - (1 << 20)


@dataclass(frozen=True)
class StagedModel:
    """A complete model in a temporary folder, to be verified and then published.

    ``proto`` is the model as written: its external tensors refer to the staged data file.
    """

    proto: ModelProto
    path: Path
    data: Path | None

    def publish(self, output: Path, force: bool) -> OutputFile:
        """Move the files to their place. Raises UsageError where that fails."""
        if not force:
            refuse_existing(output, self.data is not None)
        digest = _sha256(self.path)
        try:
            if self.data is None:
                self.path.replace(output)
            else:
                _replace_together([(self.data, data_path(output)), (self.path, output)])
        except OSError as error:
            raise _cannot_write(output, error) from error
        _sync_folder(output.parent)
        return OutputFile(str(output), digest)


def data_path(output: Path) -> Path:
    """Where the external data of a model written to ``output`` goes."""
    return output.with_name(output.name + ".data")


def _replace_together(moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename each first file to the second, the model last; all of them, or none.

    As a model must never stand beside data that belongs to another, old files step aside
    first. A process that is killed just then leaves them beside their place as ``.NAME.old``.
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
    """Raise UsageError where ``output``, or its data file if it will have one, exists."""
    for file in (output, data_path(output)) if with_data else (output,):
        if file.exists() or file.is_symlink():
            raise UsageError(f"{file}: exists: pass --force to replace it, or -o for another name")


def refuse_inputs(output: Path, model: LoadedModel) -> None:
    """Raise UsageError where writing ``output`` would change a file of ``model``."""
    inputs = [file for file in (model.path, *model.external_files) if file is not None]
    try:
        if not output.parent.is_dir():
            raise UsageError(f"{output}: folder '{output.parent}' does not exist: create it first")
        if output.is_dir():
            raise UsageError(f"{output}: is a folder: name a file")
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
        folder: where its external data lies.
        output: the place it shall have, so that publishing is a rename; None for a model that
            is only looked at.
        new: names of the tensors that a rewrite added; they join a model's external data.
        external: True where the model had external data, though none of it may be left.

    Raises:
        UsageError: the folder of ``output`` cannot be written.
        ModelError: the model is over 2 GB even with its weights in another file.
    """
    parent = None if output is None else output.parent
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".deployconv-", dir=parent))
    except OSError as error:
        raise _cannot_write(output or Path(tempfile.gettempdir()), error) from error
    try:
        path = temporary / ("model.onnx" if output is None else output.name)
        try:
            durable = output is not None
            if external or needs_external_data(proto):
                written = _write_external(proto, folder, path, new, durable)
            else:
                written = _write_whole(proto, path, durable)
        except OSError as error:
            raise _cannot_write(output or path, error) from error
        yield written
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_whole(proto: ModelProto, path: Path, durable: bool) -> StagedModel:
    raw = _serialized(proto)
    if raw is None:  # too large with its new weights: all of them move out
        return _write_external(proto, None, path, None, durable)
    _write_file(path, raw, durable)
    return StagedModel(proto, path, None)


def _write_external(
    proto: ModelProto, folder: Path | None, path: Path, new: Collection[str] | None, durable: bool
) -> StagedModel:
    data = data_path(path)
    with data.open("wb") as target:
        moved = relocated(proto, folder, target, new)
        empty = target.tell() == 0
        _sync(target, durable)
    raw = _serialized(moved)
    if raw is None:
        raise ModelError(f"{path.name}: over 2 GB even without its weights: split the model")
    _write_file(path, raw, durable)
    if empty:
        data.unlink()
    return StagedModel(moved, path, None if empty else data)


def _serialized(proto: ModelProto) -> bytes | None:
    """The bytes of ``proto``; None where they are more than a model file can hold."""
    try:
        raw = proto.SerializeToString()
    except (EncodeError, ValueError):
        return None
    return raw if len(raw) <= _PROTO_LIMIT else None


def needs_external_data(proto: ModelProto) -> bool:
    """True where bytes of ``proto`` lie in other files."""
    return any(is_external(tensor) for tensor in all_tensors(proto))


def _write_file(path: Path, raw: bytes, durable: bool) -> None:
    with path.open("wb") as file:
        file.write(raw)
        _sync(file, durable)


def _sync(file: BinaryIO, durable: bool) -> None:
    file.flush()
    if durable:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the renames durable, where the file system knows how to."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
