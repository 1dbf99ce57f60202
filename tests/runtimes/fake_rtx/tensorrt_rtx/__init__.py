"""TensorRT-RTX as far as it differs from the stand-in for TensorRT 10: the runtime cache.

`test_tensorrt_session` holds its names against the real library.
"""

from __future__ import annotations

import enum
import pickle
from typing import Any

from tensorrt import *  # noqa: F403
from tensorrt import Builder as Builder10
from tensorrt import ICudaEngine as Engine10
from tensorrt import IExecutionContext, IHostMemory
from tensorrt import Runtime as Runtime10

__version__ = "1.7.fake"


class ComputeCapability(enum.IntEnum):
    CURRENT = 0
    SM87 = 87


class DynamicShapesKernelSpecializationStrategy(enum.IntEnum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class IRuntimeCache:
    def __init__(self) -> None:
        self._content = b""

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content)

    def deserialize(self, blob: bytes) -> bool:
        self._content = b"half of it" if blob.startswith(b"of another") else blob
        return self._content == blob

    def reset(self) -> bool:
        self._content = b""
        return True


class IRuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def __init__(self) -> None:
        self._cache = IRuntimeCache()

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> IRuntimeCache:
        return self._cache


class ICudaEngine(Engine10):
    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any = None) -> IExecutionContext:
        # A kernel is compiled as soon as all sizes are known, and marks the cache.
        strategies = DynamicShapesKernelSpecializationStrategy
        assert runtime_config.dynamic_shapes_kernel_specialization_strategy is strategies.EAGER
        runtime_config.get_runtime_cache()._content += b"|compiled"
        return IExecutionContext(self)


class Runtime(Runtime10):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine:
        return ICudaEngine(*pickle.loads(serialized_engine))


class Builder(Builder10):
    def create_builder_config(self) -> Any:
        config = super().create_builder_config()
        config.num_compute_capabilities = 0
        config.set_compute_capability = lambda capability, index: None
        return config
