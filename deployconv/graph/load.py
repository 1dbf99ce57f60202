"""Read a model and check it; a broken one is refused with one line that says what is wrong.

TensorRT and parts of onnxruntime accept broken files in silence, so everything that can be
known without running the model is checked. External data stays on disk.

onnx's checker gets the model without its weights, for three reasons: it would read a model of
2 GB once more, it refuses data files that are links (as in a download cache), and it refuses
outputs without a shape, which every runtime accepts. External data is checked here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import GraphProto, ModelProto, SparseTensorProto, TensorProto, ValueInfoProto

from deployconv.errors import ModelError, UsageError
from deployconv.graph.order import sort_nodes
from deployconv.graph.skeleton import skeleton
from deployconv.graph.tensors import ExternalData, all_tensors, byte_size, is_external, is_onnx
from deployconv.options import path_of
from deployconv.results import ModelInfo

_FIRST_IR_WITH_OPSETS = 3
_LFS_POINTER = b"version https://git-lfs.github.com/"
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_NODE = re.compile(r"Name: (.*?) OpType: (\S+)", re.DOTALL)


def checked_opset(model: ModelProto, name: str) -> int:
    """The version of the ONNX operators that ``model`` imports; 0 if it imports only others.

    Raises ModelError if that, or the IR version, is not one that the installed onnx knows.
    """
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError(f"{name}: holds no graph: not an ONNX model, or an empty one")
    if not _FIRST_IR_WITH_OPSETS <= model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"{name}: IR version {model.ir_version} is not supported: the installed onnx knows"
            f" {_FIRST_IR_WITH_OPSETS} to {onnx.IR_VERSION}; update onnx or export the model again"
        )
    if not model.opset_import:
        raise ModelError(f"{name}: imports no opset: export it again with one")
    versions = {entry.version for entry in model.opset_import if is_onnx(entry.domain)}
    if len(versions) > 1:
        found = " and ".join(map(str, sorted(versions)))
        raise ModelError(f"{name}: imports ONNX opsets {found} at once: export it again with one")
    newest = onnx.defs.onnx_opset_version()
    if not all(1 <= version <= newest for version in versions):
        raise ModelError(
            f"{name}: opset {versions.pop()} is not supported: the installed onnx knows 1 to"
            f" {newest}; update onnx or export an older opset"
        )
    return versions.pop() if versions else 0


def check_model(model: LoadedModel, trusted: Collection[Path] = ()) -> None:
    """Raise ModelError if ``model``, in which `checked_opset` found no fault, is broken.

    Args:
        model: a loaded model.
        trusted: folders that links among its external data may lead to.
    """
    _check_interface(model.proto.graph, model.name)
    check = _DataCheck(model.name, model.folder, trusted)
    for tensor in all_tensors(model.proto):
        check(tensor)
    _check_with_onnx(model)


def _check_interface(graph: GraphProto, name: str) -> None:
    if not graph.output:
        raise ModelError(f"{name}: has no outputs: nothing to rewrite; export it again")
    constant = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        kind = value.type.WhichOneof("value")
        if kind is None or (kind == "tensor_type" and not value.type.tensor_type.elem_type):
            raise ModelError(f"{name}: input '{value.name}' has no element type: export it again")
        if value.name not in constant and 0 in _static_sizes(value):
            raise ModelError(
                f"{name}: input '{value.name}' has a dimension of size 0, so it holds no"
                f" element: export the model with real or dynamic sizes"
            )


def _static_sizes(value: ValueInfoProto) -> list[int]:
    if not value.type.HasField("tensor_type"):
        return []
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value for dim in dims if dim.HasField("dim_value")]


@dataclass
class _DataCheck:
    """Checks the data of tensors, one at a time; looks at each external file once."""

    name: str
    folder: Path | None
    trusted: Collection[Path]
    _sizes: dict[str, int] = field(default_factory=dict)

    def __call__(self, tensor: TensorProto) -> None:
        what = f"{self.name}: tensor '{tensor.name}'"
        try:
            size = byte_size(tensor)
            where = ExternalData.of(tensor) if is_external(tensor) else None
        except ModelError as error:
            raise ModelError(f"{self.name}: {error}") from None
        if where is None:
            length = len(tensor.raw_data)
            if tensor.HasField("raw_data") and size is not None and length != size:
                raise ModelError(
                    f"{what} has {length} bytes where its shape needs {size}: export it again"
                )
            return
        if self.folder is None:
            raise ModelError(
                f"{what} has external data, which a model in memory cannot refer to: pass the"
                f" path, or load it with onnx.load(path)"
            )
        if size is None:
            raise ModelError(f"{what} holds strings, which cannot be external: export it again")
        if where.length not in (None, size):
            raise ModelError(
                f"{what} has {where.length} bytes of external data where its shape needs {size}:"
                f" export the model again"
            )
        if where.location not in self._sizes:
            self._sizes[where.location] = self._file_size(where.location, self.folder, what)
        there, needed = self._sizes[where.location], where.offset + size
        if needed > there:
            raise ModelError(
                f"{what}: external data file '{where.location}' is too short ({there} bytes,"
                f" {needed} needed): copy it again"
            )

    def _file_size(self, location: str, folder: Path, what: str) -> int:
        if not location:
            raise ModelError(f"{what} names no external data file: export the model again")
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        if posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts:
            raise ModelError(
                f"{what} keeps its data outside the model's folder ('{location}'), which is not"
                f" safe to follow: put the data beside the model and save it again"
            )
        try:
            file = (folder / location).resolve(strict=True)
            size = file.stat().st_size if file.is_file() else None
        except (OSError, ValueError, RuntimeError):  # a loop of links, a name that cannot be
            size = None
        if size is None:
            raise ModelError(
                f"{what}: external data file '{location}' is missing: copy it beside the model"
            )
        if not any(home in file.parents for home in (folder, *self.trusted)):
            raise ModelError(
                f"{what}: external data file '{location}' is a link that leads out of the model's"
                f" folder: copy the file itself there"
            )
        return size


def _check_with_onnx(model: LoadedModel) -> None:
    try:
        onnx.checker.check_model(_completed(model.skeleton))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{model.name}: not a valid ONNX model: {_reason(error)}") from error
    except (DecodeError, EncodeError) as error:
        raise ModelError(
            f"{model.name}: its graphs are nested too deep for a model file: export it again"
        ) from error


def _reason(error: Exception) -> str:
    """The message of the checker on one line, with the node that it is about."""
    reason, *context = str(error).split("==> Context:")
    found = _NODE.search(" ".join(context))
    where = f" (node '{found[1]}', {found[2]})" if found else ""
    return f"{' '.join(reason.split())}{where}"


def _completed(skeleton: ModelProto) -> ModelProto:
    """A copy of ``skeleton`` with what the checker requires and no runtime does."""
    bare = ModelProto()
    bare.CopyFrom(skeleton)
    bare.graph.name = bare.graph.name or "graph"
    for value in bare.graph.input:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    for value in bare.graph.output:
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, TensorProto.FLOAT, []))
    for sparse in bare.graph.sparse_initializer:
        _empty_sparse(sparse)
    for tensor in all_tensors(bare):
        if is_external(tensor):
            _empty(tensor)
    return bare


def _empty_sparse(sparse: SparseTensorProto) -> None:
    """Empty values and indices together, as the checker compares their sizes."""
    if is_external(sparse.values) or is_external(sparse.indices):
        _empty(sparse.values)
        _empty(sparse.indices)


def _empty(tensor: TensorProto) -> None:
    """Make ``tensor`` one of no element, which needs no data."""
    tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]))


@dataclass(frozen=True)
class LoadedModel:
    """A valid model. Nothing edits it: a rewritten model is a copy (`splice`).

    The nodes of ``proto`` are in an order in which they can run, also if those of the file are not.
    ``path`` is None for a model given in memory; ``folder`` is the folder of its external data.
    """

    proto: ModelProto
    path: Path | None
    folder: Path | None
    info: ModelInfo

    @property
    def name(self) -> str:
        """The name of this model in messages."""
        return str(self.path) if self.path else "the model"

    @cached_property
    def skeleton(self) -> ModelProto:
        """The model without its weights, for shape inference and for graphsurgeon."""
        return skeleton(self.proto)

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


def load(source: str | Path | bytes | ModelProto) -> LoadedModel:
    """Load and validate a model from a file, from its bytes, or from a ModelProto, which is copied.

    Raises:
        UsageError: the file does not exist or is no file, or ``source`` is nothing of these.
        ModelError: it is not a valid ONNX model of an opset that the installed onnx knows.
    """
    if isinstance(source, (bytes, ModelProto)):
        if isinstance(source, bytes):
            proto = _parsed(source, "the model")
        else:
            proto = ModelProto()
            proto.CopyFrom(source)
        info = ModelInfo(None, None, checked_opset(proto, "the model"), proto.ir_version)
        sort_nodes(proto, "the model")
        loaded = LoadedModel(proto, None, None, info)
        check_model(loaded)
        return loaded
    path = path_of(source)
    proto, digest = _read(path)
    info = ModelInfo(str(path), digest, checked_opset(proto, str(path)), proto.ir_version)
    sort_nodes(proto, str(path))
    folder = path.parent.resolve()
    loaded = LoadedModel(proto, path, folder, info)
    # In a download cache model and data are links into one folder: as good as side by side.
    check_model(loaded, trusted=[path.resolve().parent])
    return loaded


def _read(path: Path) -> tuple[ModelProto, str]:
    """The model in a file, and the SHA-256 of the file."""
    try:
        if not path.exists():
            if _URL.match(str(path)):
                raise UsageError(f"{path}: is a URL: download the file and name it")
            raise UsageError(f"{path}: no such file: check the path")
        if path.is_dir():
            raise UsageError(f"{path}: is a folder: name an .onnx file")
        if not path.is_file():
            raise UsageError(f"{path}: not a file: name an .onnx file")
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    return _parsed(raw, str(path)), hashlib.sha256(raw).hexdigest()


def _parsed(raw: bytes, name: str) -> ModelProto:
    if not raw:
        raise ModelError(f"{name}: is empty: copy or export it again")
    if raw.startswith(_LFS_POINTER):
        raise ModelError(f"{name}: is a Git LFS pointer, not the model: run git lfs pull")
    try:
        proto: ModelProto = ModelProto.FromString(raw)
        return proto
    except (DecodeError, ValueError, RuntimeError) as error:
        if "MaxDepth" in str(error):
            raise ModelError(
                f"{name}: its graphs are nested deeper than a model file may be: export it again"
            ) from error
        raise ModelError(
            f"{name}: not an ONNX model, or cut short: copy or export it again"
        ) from error
