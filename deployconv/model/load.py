"""Read a model and refuse what is broken, with one line that says what and where.

TensorRT and parts of onnxruntime accept broken files in silence, so everything that can be
known without running the model is checked here. External data stays on disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto

from deployconv.errors import ModelError, UsageError
from deployconv.model.tensors import ExternalData, all_tensors, byte_size, is_external
from deployconv.results import ModelInfo

_CHUNK = 1 << 20


@dataclass(frozen=True)
class LoadedModel:
    """A valid model. ``proto`` belongs to whoever loaded it and may be edited.

    ``path`` is None for a model given in memory; ``folder`` is where its external data lies.
    """

    proto: ModelProto
    path: Path | None
    folder: Path | None
    info: ModelInfo

    @property
    def name(self) -> str:
        """How messages call this model."""
        return str(self.path) if self.path else "the model"

    @property
    def external_files(self) -> tuple[Path, ...]:
        """The external data files that this model refers to."""
        if self.folder is None:
            return ()
        locations = {
            ExternalData.of(tensor).location
            for tensor in all_tensors(self.proto)
            if is_external(tensor)
        }
        return tuple(self.folder / location for location in sorted(locations))


def load(source: str | Path | ModelProto) -> LoadedModel:
    """Load and validate a model from a file, or from a ModelProto, which is copied.

    Raises:
        UsageError: the file does not exist or is no file.
        ModelError: it is not a valid ONNX model of an opset that the installed onnx knows.
    """
    if isinstance(source, ModelProto):
        proto = ModelProto()
        proto.CopyFrom(source)
        loaded = LoadedModel(proto, None, None, _info(proto, None, None))
    else:
        path = Path(source)
        proto, digest = _read(path)
        loaded = LoadedModel(proto, path, path.resolve().parent, _info(proto, path, digest))
    _check_graph(loaded)
    _check_external_data(loaded)
    _check_with_onnx(loaded)
    return loaded


def _read(path: Path) -> tuple[ModelProto, str]:
    if not path.exists():
        raise UsageError(f"{path}: no such file: check the path")
    if not path.is_file():
        raise UsageError(f"{path}: not a file: name an .onnx file")
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    except (DecodeError, UnicodeDecodeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path}: not an ONNX model, or cut short: copy or export it again"
        ) from error
    return proto, digest.hexdigest()


def _info(proto: ModelProto, path: Path | None, digest: str | None) -> ModelInfo:
    where = str(path) if path else "the model"
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{where}: holds no graph: not an ONNX model, or an empty one")
    if not versions:
        raise ModelError(f"{where}: imports no ONNX opset: export it again with an opset")
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= versions[0] <= newest:
        raise ModelError(
            f"{where}: opset {versions[0]} is not supported: the installed onnx knows 1 to"
            f" {newest}; update onnx or export an older opset"
        )
    return ModelInfo(str(path) if path else None, digest, versions[0], proto.ir_version)


def _check_graph(loaded: LoadedModel) -> None:
    graph = loaded.proto.graph
    if not graph.output:
        raise ModelError(f"{loaded.name}: has no outputs: nothing to rewrite; export it again")
    constant = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in constant and 0 in _static_sizes(value):
            raise ModelError(
                f"{loaded.name}: input '{value.name}' has a dimension of size 0, so it holds no"
                f" element: export the model with real or dynamic sizes"
            )


def _static_sizes(value: ValueInfoProto) -> list[int]:
    if not value.type.HasField("tensor_type"):
        return []
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value for dim in dims if dim.HasField("dim_value")]


def _check_external_data(loaded: LoadedModel) -> None:
    for tensor in all_tensors(loaded.proto):
        if is_external(tensor):
            _check_external_tensor(tensor, loaded)


def _check_external_tensor(tensor: TensorProto, loaded: LoadedModel) -> None:
    what = f"{loaded.name}: tensor '{tensor.name}'"
    if loaded.folder is None:
        raise ModelError(
            f"{what} has external data, which a model in memory cannot refer to: pass the path,"
            f" or load it with onnx.load(path)"
        )
    where = ExternalData.of(tensor)
    if not where.location:
        raise ModelError(f"{what} names no external data file: export the model again")
    posix, windows = PurePosixPath(where.location), PureWindowsPath(where.location)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts:
        raise ModelError(
            f"{what} keeps its data outside the model's folder ('{where.location}'), which is"
            f" not safe to follow: put the data beside the model and save it again"
        )
    file = loaded.folder / where.location
    if not file.is_file():
        raise ModelError(
            f"{what}: external data file '{where.location}' is missing: copy it beside the model"
        )
    if loaded.folder not in file.resolve().parents:
        raise ModelError(
            f"{what}: external data file '{where.location}' is a link that leads out of the"
            f" model's folder: copy the file itself there"
        )
    size = byte_size(tensor)
    length = where.length if where.length is not None else size
    if size is not None and length != size:
        raise ModelError(
            f"{what} has {length} bytes of external data where its shape needs {size}:"
            f" export the model again"
        )
    if where.offset + (length or 0) > file.stat().st_size:
        raise ModelError(
            f"{what}: external data file '{where.location}' is too short ({file.stat().st_size}"
            f" bytes, {where.offset + (length or 0)} needed): copy it again"
        )


def _check_with_onnx(loaded: LoadedModel) -> None:
    try:
        # By path the checker finds external data and takes models over 2 GB.
        onnx.checker.check_model(str(loaded.path) if loaded.path else loaded.proto)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split("==> Context:")[0].split())
        raise ModelError(f"{loaded.name}: not a valid ONNX model: {reason}") from error
