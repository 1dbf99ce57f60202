"""TensorRT 10 as far as deployconv uses it, with the ONNX reference evaluator for a GPU.

It stands in for the library and the driver that no machine without a GPU has, so that the way
of the bytes, shapes and types through the worker can be tested. `test_tensorrt_session` holds
its names against the real tensorrt_rtx.
"""

from __future__ import annotations

import ctypes
import enum
import json
import pickle
from typing import Any

import numpy as np
import onnx
from cuda.bindings import runtime as cuda
from onnx import helper
from onnx.reference import ReferenceEvaluator

__version__ = "10.13.fake"


class _Driver:
    """libcuda with one GPU of compute capability 8.7."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 1
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _: Any) -> int:
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cuDeviceGetName(self, name: Any, *_: Any) -> int:
        name.value = b"Fake GPU"
        return 0


_cdll = ctypes.CDLL
ctypes.CDLL = lambda name, *rest, **more: (  # type: ignore[assignment,misc]
    _Driver() if name == "libcuda.so.1" else _cdll(name, *rest, **more)
)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    FP16 = 0
    TF32 = 6


class ProfilingVerbosity(enum.IntEnum):
    DETAILED = 1


class LayerInformationFormat(enum.IntEnum):
    JSON = 1


class TensorIOMode(enum.IntEnum):
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.IntEnum):
    DEVICE = 0


class Severity(enum.IntEnum):
    ERROR = 1
    INFO = 3


DataType = enum.Enum("DataType", "FLOAT HALF BF16 INT8 INT32 INT64 BOOL UINT8 DOUBLE")
_TYPES = {
    "float32": DataType.FLOAT,
    "float16": DataType.HALF,
    "bfloat16": DataType.BF16,
    "int64": DataType.INT64,
    "bool": DataType.BOOL,
    "float64": DataType.DOUBLE,
}


class ILogger:
    pass


class IProfiler:
    """Abstract, as TensorRT's own: who profiles derives a class and overrides its method."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class ParserError:
    def desc(self) -> str:
        return "No importer registered for op: Refused"

    def node_name(self) -> str:
        return "wrong"

    def node_operator(self) -> str:
        return "Refused"


class INetworkDefinition:
    num_layers = 0

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model = onnx.ModelProto()

    @property
    def num_outputs(self) -> int:
        return len(self.model.graph.output)


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self.num_errors = 0

    def parse_from_file(self, model: str) -> bool:
        self._network.model = onnx.load(model)
        for node in self._network.model.graph.node:
            _misread(node)
        self.num_errors = sum(node.domain == "refused" for node in self._network.model.graph.node)
        return not self.num_errors

    def get_error(self, index: int) -> ParserError:
        return ParserError()


def _misread(node: onnx.NodeProto) -> None:
    """As the real importer does: output_padding is forgotten beside SAME_UPPER."""
    kept = [one for one in node.attribute if one.name != "output_padding"]
    if any(one.name == "auto_pad" and one.s == b"SAME_UPPER" for one in kept):
        del node.attribute[:]
        node.attribute.extend(kept)


def _refused(node: onnx.NodeProto) -> bool:
    """As the real compiler does: stride with dilation."""
    above_1 = {one.name for one in node.attribute if one.ints and max(one.ints) > 1}
    return node.op_type == "ConvTranspose" and above_1 >= {"strides", "dilations"}


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = (min, opt, max)


class ITimingCache:
    """Holds what it was made from, and a mark for each build that used it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content)


class IBuilderConfig:
    profiling_verbosity = ProfilingVerbosity.DETAILED
    builder_optimization_level = 3

    def __init__(self) -> None:
        self.flags = 1 << BuilderFlag.TF32
        self._profiles: list[IOptimizationProfile] = []
        self._timings = ITimingCache(b"")

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._timings = cache
        return not cache._content.startswith(b"of another GPU")

    def get_timing_cache(self) -> ITimingCache:
        return self._timings

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags |= 1 << flag

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags &= ~(1 << flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Builder:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> IHostMemory | None:
        if any(map(_refused, network.model.graph.node)):
            self._logger.log(Severity.ERROR, "Strided & Dilated Deconv are not supported")
            return None
        tensors = [value.type.tensor_type for value in network.model.graph.input]
        dynamic = any(dim.dim_param for tensor in tensors for dim in tensor.shape.dim)
        if dynamic and not config._profiles:
            self._logger.log(Severity.ERROR, "no optimization profile has been defined")
            return None
        self._logger.log(Severity.INFO, "Total Weights Memory: 1 bytes")
        config._timings._content += b"|built"
        settings = {"network": network.flags, "builder": config.flags}
        settings["level"] = config.builder_optimization_level
        shapes = config._profiles[0]._shapes if config._profiles else {}
        return IHostMemory(pickle.dumps((network.model.SerializeToString(), shapes, settings)))


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        return ICudaEngine(*pickle.loads(serialized_engine))


class ICudaEngine:
    def __init__(self, model: bytes, shapes: Any, settings: Any) -> None:
        self._model = onnx.load_model_from_string(model)
        graph = self._model.graph
        self._inputs = {value.name: value for value in graph.input}
        self._values = {**self._inputs, **{value.name: value for value in graph.output}}
        self._shapes = shapes
        # The name tells a test what it cannot see otherwise.
        self._settings = settings

    @property
    def num_io_tensors(self) -> int:
        return len(self._values)

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        kind = self._values[name].type.tensor_type.elem_type
        return _TYPES[helper.tensor_dtype_to_np_dtype(kind).name]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def _layers(self) -> dict[str, list[str]]:
        """Each node is a layer, except that a Relu is fused to the layer before it."""
        groups: list[list[str]] = []
        for node in self._model.graph.node:
            name = node.name or f"node_of_{node.output[0]}"
            if node.op_type == "Relu" and groups:
                groups[-1].append(name)
            else:
                groups.append([name])
        return {" + ".join(names): names for names in groups}


class EngineInspector:
    execution_context: Any = None

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        layers = [
            {"Name": name, "Metadata": "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)}
            for name, nodes in self._engine._layers().items()
        ]
        return json.dumps({"Layers": layers, "Bindings": []})


class IExecutionContext:
    profiler: IProfiler | None = None

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine._shapes.get(name, (shape, shape, shape))
        self._shapes[name] = shape
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        zeros = {name: self._array(name, None) for name in self._engine._inputs}
        return dict(self._results(zeros))[name].shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory in cuda.MEMORY

    def execute_async_v3(self, stream_handle: int) -> bool:
        if cuda.capturing() and self._engine._model.graph.name == "cannot be captured":
            return False
        cuda.enqueue(self._execute)
        return True

    def _execute(self) -> None:
        for number, name in enumerate(self._engine._layers() if self.profiler else ()):
            self.profiler.report_layer_time(name, 1.0 + number)
        feeds = {
            name: self._array(name, cuda.MEMORY[self._addresses[name]])
            for name in self._engine._inputs
        }
        for name, result in self._results(feeds):
            data = np.ascontiguousarray(result).tobytes()
            cuda.MEMORY[self._addresses[name]][: len(data)] = data

    def _results(self, feeds: Any) -> Any:
        evaluator = ReferenceEvaluator(self._engine._model)
        return zip(evaluator.output_names, evaluator.run(None, feeds), strict=True)

    def _array(self, name: str, memory: bytearray | None) -> Any:
        kind = self._engine._inputs[name].type.tensor_type.elem_type
        dtype, shape = helper.tensor_dtype_to_np_dtype(kind), self._shapes[name]
        if memory is None:
            return np.zeros(shape, dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(bytes(memory[:size]), dtype).reshape(shape)
