"""The runtimes that deployconv can run a model on, and what each of them can do.

A new runtime is a module with a function ``load``, and a row of `RUNTIMES`. Other code asks for
a capability, never for a name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.flags import Capability
from deployconv.results import ShuffleName

if TYPE_CHECKING:
    from deployconv.runtimes.base import Backend


@dataclass(frozen=True)
class Runtime:
    """One runtime: where its code is, and what it can do.

    Attributes:
        name: what ``--backend`` takes.
        module: its code, imported by `load` only. Its function ``load(name)`` returns the
            `base.Backend`.
        package: the library that the module needs.
        install: how to install that library.
        cost_table: key of its constants in `deployconv.search.cost_table.TABLES`.
        runs_reference: whether the original model is run on it when outputs are compared. If
            not, `options.DEFAULT_RUNTIME` runs the original.
        measures_memory: whether `peak_memory` can tell what a model takes on it.
        profiles_layers: whether its sessions tell the time of each layer (`base.GpuSession`).
        captures_graphs: whether its sessions run as a captured CUDA graph (`base.GpuSession`).
        compiles: whether it compiles engines ahead of time, as ``deployconv build`` does.
        prefers_col2im: whether its Col2Im is so fast that a model is worth raising to opset 18.
        needs_float_bias: whether it refuses an int32 bias in a quantized layer.
        runs_any_size: whether a session runs any size at once, without building a new engine.
        shuffles: those that it runs, the likely fastest first; all of them if empty.
        optimises_inexactly: whether its optimisations compute float32 less exactly; they are off
            in a session that is prepared with ``optimise=False``.
    """

    name: str
    module: str
    package: str
    install: str
    cost_table: str
    runs_reference: bool = True
    measures_memory: bool = False
    profiles_layers: bool = False
    captures_graphs: bool = False
    compiles: bool = False
    prefers_col2im: bool = False
    needs_float_bias: bool = False
    runs_any_size: bool = False
    shuffles: tuple[ShuffleName, ...] = ()
    optimises_inexactly: bool = False

    def load(self) -> Backend:
        """Import the runtime's library and return the backend that prepares models with it.

        Raises BackendUnavailable if the library is not installed or cannot be used here.
        """
        try:
            module = importlib.import_module(self.module)
        except ImportError as error:
            raise BackendUnavailable(
                f"backend {self.name!r} needs {self.package}, which cannot be imported ({error}): "
                f"{self.install}"
            ) from error
        backend: Backend = module.load(self.name)
        return backend


_ORT = "deployconv.runtimes.ort"
_ORT_INSTALL = "pip install 'deployconv[cpu]'"
_ORT_GPU_INSTALL = (
    "pip uninstall onnxruntime, then pip install 'deployconv[gpu]' (onnxruntime-gpu in its place)"
)
_TENSORRT = "deployconv.runtimes.tensorrt.session"

_ROWS = (
    Runtime(
        "ort",
        _ORT,
        "onnxruntime",
        _ORT_INSTALL,
        cost_table="ort",
        measures_memory=True,
        prefers_col2im=True,
        runs_any_size=True,
    ),
    Runtime(
        "ort:cuda",
        _ORT,
        "onnxruntime",
        _ORT_GPU_INSTALL,
        cost_table="not-fitted",
        runs_any_size=True,
    ),
    Runtime(
        "ort:tensorrt",
        _ORT,
        "onnxruntime",
        _ORT_GPU_INSTALL,
        cost_table="tensorrt",
        needs_float_bias=True,
    ),
    Runtime(
        "tensorrt",
        _TENSORRT,
        "tensorrt",
        "pip install 'deployconv[gpu]'",
        cost_table="tensorrt",
        runs_reference=False,
        profiles_layers=True,
        captures_graphs=True,
        compiles=True,
        needs_float_bias=True,
    ),
    Runtime(
        "tensorrt-rtx",
        _TENSORRT,
        "tensorrt_rtx",
        "pip install 'deployconv[rtx]'",
        cost_table="tensorrt",
        runs_reference=False,
        profiles_layers=True,
        captures_graphs=True,
        compiles=True,
        needs_float_bias=True,
    ),
    Runtime(
        "openvino",
        "deployconv.runtimes.openvino",
        "openvino",
        "pip install 'deployconv[openvino]'",
        cost_table="openvino",
        runs_reference=False,
        measures_memory=True,
        runs_any_size=True,
        shuffles=("dcr", "crd", "transpose", "channels-last"),
    ),
    Runtime(
        "tract",
        "deployconv.runtimes.tract",
        "tract",
        "pip install 'deployconv[tract]'",
        cost_table="not-fitted",
        runs_reference=False,
        shuffles=("dcr", "crd", "transpose", "two-step"),
    ),
    Runtime(
        "mnn",
        "deployconv.runtimes.mnn",
        "MNN",
        "pip install 'deployconv[mnn]'",
        cost_table="not-fitted",
        runs_reference=False,
        shuffles=("dcr", "crd", "transpose", "two-step"),
        optimises_inexactly=True,
    ),
)

RUNTIMES: Mapping[str, Runtime] = {row.name: row for row in _ROWS}
"""Every runtime by its name, in the order that messages list them."""


def get_runtime(name: str) -> Runtime:
    """The row of the runtime called ``name``; its library is not imported.

    Raises UsageError if there is no such runtime.
    """
    if name not in RUNTIMES:
        raise UsageError(f"unknown backend {name!r}: choose one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name]


def get_backend(name: str) -> Backend:
    """Load the runtime called ``name``.

    Raises:
        UsageError: there is no such runtime.
        BackendUnavailable: its library is not installed, or cannot be used here.
    """
    return get_runtime(name).load()


def names_with(capability: Capability) -> tuple[str, ...]:
    """Names of the runtimes that have ``capability``."""
    return tuple(name for name, runtime in RUNTIMES.items() if getattr(runtime, capability))
