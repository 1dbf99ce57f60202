"""Read a model and refuse what is broken, with one line that says what and where.

TensorRT and parts of onnxruntime accept broken files in silence, so everything that can be
known without running the model is checked (`check.py`). External data stays on disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from deployconv.errors import ModelError, UsageError
from deployconv.graph.check import check_model, checked_opset
from deployconv.graph.skeleton import skeleton
from deployconv.graph.tensors import ExternalData, all_tensors, is_external
from deployconv.results import ModelInfo


@dataclass(frozen=True)
class LoadedModel:
    """A valid model, which nothing edits: a rewrite is a copy (`splice`).

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


def load(source: str | Path | ModelProto) -> LoadedModel:
    """Load and validate a model from a file, or from a ModelProto, which is copied.

    Raises:
        UsageError: the file does not exist or is no file.
        ModelError: it is not a valid ONNX model of an opset that the installed onnx knows.
    """
    if isinstance(source, ModelProto):
        proto = ModelProto()
        proto.CopyFrom(source)
        info = ModelInfo(None, None, checked_opset(proto, "the model"), proto.ir_version)
        loaded = LoadedModel(proto, None, None, info)
        check_model(proto, loaded.skeleton, loaded.name, None)
        return loaded
    path = Path(source)
    proto, digest = _read(path)
    info = ModelInfo(str(path), digest, checked_opset(proto, str(path)), proto.ir_version)
    folder = path.parent.resolve()
    loaded = LoadedModel(proto, path, folder, info)
    # In a download cache model and data are links into one folder: as good as side by side.
    check_model(proto, loaded.skeleton, loaded.name, folder, trusted=[path.resolve().parent])
    return loaded


def _read(path: Path) -> tuple[ModelProto, str]:
    """The model and the SHA-256 of exactly the bytes that it was made of."""
    try:
        if not path.exists():
            raise UsageError(f"{path}: no such file: check the path")
        if not path.is_file():
            raise UsageError(f"{path}: not a file: name an .onnx file")
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    if not raw:
        raise ModelError(f"{path}: is empty: copy or export it again")
    try:
        return ModelProto.FromString(raw), hashlib.sha256(raw).hexdigest()
    except (DecodeError, ValueError, RuntimeError) as error:
        if "MaxDepth" in str(error):
            raise ModelError(
                f"{path}: its graphs are nested deeper than a model file may be: export it again"
            ) from error
        raise ModelError(
            f"{path}: not an ONNX model, or cut short: copy or export it again"
        ) from error
