"""Times of an engine's layers, and which ONNX nodes a layer was made of. Worker only."""

from __future__ import annotations

import json
import re
from typing import Any

from deployconv.runtimes.tensorrt import buildlog

_MOVED = re.compile(r"^Reformatting CopyNode for \w+ Tensor \d+ to ")
_SEPARATORS = re.compile(r" \+ |, |[()\[\]{}]|\.\.\.")


def make_profiler(trt: Any) -> Any:
    """A profiler that adds up the milliseconds of each layer, by its name."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.milliseconds: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.milliseconds[layer_name] = self.milliseconds.get(layer_name, 0.0) + ms

    return Profiler()


def layer_nodes(trt: Any, engine: Any, context: Any) -> dict[str, list[str]]:
    """Layer name -> the ONNX nodes it was made of, as the inspector tells; best effort.

    The engine must have been built at verbosity DETAILED; one that was not names no nodes.
    """
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return {
            str(layer["Name"]): buildlog.nodes(str(layer.get("Metadata", "")))
            for layer in json.loads(text)["Layers"]
            if isinstance(layer, dict) and "Name" in layer
        }
    except (ValueError, KeyError, TypeError):
        return {}


def named_nodes(layer: str) -> list[str]:
    """What may be names of ONNX nodes in the name of a layer that tells nothing else.

    TensorRT 10 calls a layer after what was fused to it: ``conv1 + relu1``, ``PWN(a, b)``.
    """
    parts = (part.strip() for part in _SEPARATORS.split(_MOVED.sub("", layer)))
    return [part for part in parts if part and part not in ("PWN", "ForeignNode")]
