"""Run models with onnxruntime: its CPU, CUDA and TensorRT execution providers.

Threads spin while a model runs, as by default, but not between runs: two sessions in one
process would spin against each other, and on a small machine that doubles every time and moves
every ratio.

onnxruntime raises the same class for a broken model and for one that it merely does not
support. `translate` lets the class decide only if it is unambiguous, and else the text.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort

from deployconv.errors import BackendUnavailable, DeployconvError, ModelError, UsageError
from deployconv.graph.tensors import open_sizes
from deployconv.runtimes.base import Array, Feeds, ModelSource, TensorSpec, label_of
from deployconv.runtimes.machine import chosen_threads
from deployconv.runtimes.registry import get_runtime

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"

# TensorFloat-32 is off, as float32 is to mean float32: its ten bits of mantissa would drown
# what parity looks for.
_PROVIDERS: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "ort": ((_CPU, {}),),
    "ort:cuda": ((_CUDA, {"use_tf32": "0"}), (_CPU, {})),
    "ort:tensorrt": ((_TENSORRT, {}), (_CUDA, {"use_tf32": "0"}), (_CPU, {})),
}

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bfloat16)": np.dtype(ml_dtypes.bfloat16),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype(np.str_),
    **{
        f"tensor({name})": np.dtype(name)
        for sign in ("int", "uint")
        for name in (f"{sign}8", f"{sign}16", f"{sign}32", f"{sign}64")
    },
}
_NOT_A_TENSOR = np.dtype(object)

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_BFLOAT16_ONNX_TYPE = 16  # TensorProto.BFLOAT16; onnx itself is not needed to run a model

_FATAL = 4
# The session's own level does not reach what a provider says when its libraries do not load.
ort.set_default_logger_severity(_FATAL)


def load(name: str) -> OrtBackend:
    """Return the backend called ``name``; the registry of runtimes calls this."""
    return OrtBackend(name)


class OrtBackend:
    """One execution provider of onnxruntime; the CPU runs what a GPU provider does not take."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runtime = f"onnxruntime {ort.__version__}"

    def prepare(
        self, model: ModelSource, *, threads: int | None = None, optimise: bool = True
    ) -> OrtSession:
        """Load ``model`` on the provider that was asked for, and on no other one.

        Args:
            model: a file, or a serialized ModelProto without external data.
            threads: how many run one operator; default: every CPU this process may use.
            optimise: whether onnxruntime may rewrite the graph before it runs it.

        Raises:
            ModelError: unreadable or invalid.
            BackendUnavailable: the provider is missing, was replaced, or lacks an operator.
            UsageError: ``threads`` is not positive.
        """
        threads = chosen_threads(threads)
        providers = _PROVIDERS[self.name]
        wanted = providers[0][0]
        if wanted not in ort.get_available_providers():
            raise BackendUnavailable(
                f"backend {self.name!r}: this build of {self.runtime} has no {wanted}: "
                f"{get_runtime(self.name).install}"
            )
        label = label_of(model)
        try:
            session = ort.InferenceSession(
                str(model) if isinstance(model, Path) else model,
                _session_options(threads, optimise),
                providers=list(providers),
                # The fallback announces itself on standard output, which is for JSON only.
                enable_fallback=0,
            )
        except Exception as error:
            raise translate(error, self.runtime, label, loading=True) from error
        provider = session.get_providers()[0]
        if provider != wanted:
            raise BackendUnavailable(
                f"backend {self.name!r}: {self.runtime} silently replaced {wanted} by {provider}: "
                "check the driver and that the CUDA, cuDNN or TensorRT libraries can be found"
            )
        return OrtSession(session, self.runtime, label, provider, threads)


class OrtSession:
    """A model loaded by onnxruntime; a `deployconv.runtimes.base.Session`.

    An input of unknown rank has shape ``()``, as onnxruntime reports it like a scalar.
    """

    def __init__(self, session: Any, runtime: str, label: str, provider: str, threads: int) -> None:
        self.provider = provider
        self.threads = threads
        self.inputs: Sequence[TensorSpec] = tuple(_spec(arg) for arg in session.get_inputs())
        self.outputs: Sequence[TensorSpec] = tuple(_spec(arg) for arg in session.get_outputs())
        self._session = session
        self._types: dict[str, str] = {arg.name: arg.type for arg in session.get_outputs()}
        self._runtime = runtime
        self._label = label
        self._timed: tuple[Feeds, Callable[[], object]] | None = None

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once and return every output by name.

        The items of a sequence are named ``name[0]``, ``name[1]``, ...; a map gives ``name[keys]``
        and ``name[values]``.

        Raises:
            UsageError: ``feeds`` do not fit the model's inputs.
            BackendUnavailable: an operator failed.
        """
        return self._run(feeds, None)

    def run_within(self, feeds: Feeds, seconds: float) -> dict[str, Array]:
        """Like `run`, but stop with BackendUnavailable after ``seconds``, between two operators."""
        options = ort.RunOptions()
        timer = threading.Timer(seconds, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            return self._run(feeds, options)
        except BackendUnavailable as error:
            if not options.terminate:
                raise
            text = f"{self._label}: one run takes longer than {seconds:g} s: give a smaller --shape"
            raise BackendUnavailable(text) from error
        finally:
            timer.cancel()

    def _run(self, feeds: Feeds, options: Any) -> dict[str, Array]:
        names = [spec.name for spec in self.outputs]
        try:
            if any(spec.dtype == _BFLOAT16 for spec in (*self.inputs, *self.outputs)):
                values = {name: _to_ort_value(array) for name, array in feeds.items()}
                results = self._session.run_with_ort_values(names, values, options)
                return {
                    name: _from_ort_value(value) for name, value in zip(names, results, strict=True)
                }
            results = self._session.run(names, dict(feeds), options)
        except Exception as error:
            raise translate(error, self._runtime, self._label, loading=False) from error
        return {
            key: array
            for name, value in zip(names, results, strict=True)
            for key, array in _flatten(name, value, self._types[name])
        }

    def timed_run(self, feeds: Feeds) -> None:
        """Run once, outputs left on the device; the first call with ``feeds`` binds them."""
        try:
            if self._timed is None or self._timed[0] is not feeds:
                self._timed = (feeds, self._bind(feeds))
            self._timed[1]()
        except Exception as error:
            raise translate(error, self._runtime, self._label, loading=False) from error

    def _bind(self, feeds: Feeds) -> Callable[[], object]:
        """Return a call that runs the model on ``feeds``, converted and moved once."""
        names = [spec.name for spec in self.outputs]
        if any(spec.dtype.kind in "OU" for spec in (*self.inputs, *self.outputs)):
            plain = dict(feeds)  # strings and sequences cannot be bound
            return lambda: self._session.run(names, plain)
        # Calls without a binding take 50 us longer, in which nothing of the model runs.
        device = "cpu" if self.provider == _CPU else "cuda"
        values = {name: _to_ort_value(array, device) for name, array in feeds.items()}
        binding = self._session.io_binding()

        def call() -> None:
            """Bind and run: some releases keep no input alive, and outputs may differ in size."""
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in names:
                binding.bind_output(name, device)
            self._session.run_with_iobinding(binding)

        return call


def _session_options(threads: int, optimise: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.graph_optimization_level = (
        ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        if optimise
        else ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    )
    return options


def _spec(arg: Any) -> TensorSpec:
    return TensorSpec(arg.name, _DTYPES.get(arg.type, _NOT_A_TENSOR), open_sizes(arg.shape))


def _to_ort_value(array: Array, device: str = "cpu") -> Any:
    """Convert ``array`` for onnxruntime; on the CPU it is not copied.

    bfloat16 stays on the CPU: onnxruntime's Python interface cannot move a type that NumPy
    does not know, so a timing on CUDA counts the copy of such an input.
    """
    array = np.asarray(array, order="C")
    if array.dtype == _BFLOAT16:
        bits = array.view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _BFLOAT16_ONNX_TYPE)
    return ort.OrtValue.ortvalue_from_numpy(array, device)


def _from_ort_value(value: Any) -> Array:
    """Copy a value into an array; bfloat16 by its bits, as ``OrtValue.numpy`` refuses it."""
    if value.data_type() != "tensor(bfloat16)":
        array: Array = value.numpy()
        return array
    shape = tuple(value.shape())
    size = int(np.prod(shape, dtype=np.int64))
    if size == 0:
        return np.empty(shape, _BFLOAT16)
    bits = (ctypes.c_uint16 * size).from_address(value.data_ptr())
    return np.asarray(np.ctypeslib.as_array(bits).view(_BFLOAT16)).reshape(shape).copy()


def _flatten(name: str, value: Any, kind: str) -> Iterator[tuple[str, Array]]:
    """Yield a result of onnxruntime type ``kind`` as named arrays; an empty optional has none."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flatten(f"{name}[{index}]", item, kind)
    elif isinstance(value, dict):
        # In one array: the tolerance of a comparison is scaled by the largest value in the array.
        dtype = np.float32 if "tensor(float)" in kind else None
        yield f"{name}[keys]", np.asarray(list(value))
        yield f"{name}[values]", np.asarray(list(value.values()), dtype)
    elif value is not None:
        yield name, np.asarray(value)


_LONGEST_MESSAGE = 400

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_ ]+ : ")
_NODE_FAILED = re.compile(
    r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: "
)
_SOURCE_LOCATION = re.compile(
    r"\S+\.(?:cc|cpp|h|hpp|cu|cuh):\d+ "  # /onnxruntime_src/.../reshape_helper.h:91
    r"(?:[^()'\"]*::~?\w+(?:<[^()]*>)?\([^()]*\)(?: const)?(?: \[with [^\]]*\])? "  # signature
    r"|\w+ )?"  # or the bare function name
)

_MODEL_CLASSES = frozenset({"InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile"})
_RUNTIME_CLASSES = frozenset({"EPFail", "EngineError", "NotImplemented"})
_MODEL_PHRASES = (
    "nvalid model",
    "No graph was found",
    "Type Error",
    "TypeInferenceError",
    "ShapeInferenceError",
    "xternal data",
    "raw_data size",
)
_RUNTIME_PHRASES = (
    "is under development",
    "Unsupported model IR version",
    "not a registered function/op",
    "output_padding",
)
_FEED_PHRASES = (
    "Got invalid dimensions for input",
    "Invalid input name",
    "Invalid rank for input",
    "Required inputs",
    "Unexpected input data type",
)


def translate(error: Exception, runtime: str, label: str, *, loading: bool) -> DeployconvError:
    """Turn an exception of onnxruntime into a deployconv error with a message of one line.

    Args:
        error: what onnxruntime raised.
        runtime: library and version.
        label: which model, e.g. its file name.
        loading: True if the model was being loaded, False if it was run.

    Returns:
        ModelError if the model is at fault, UsageError if the arrays fed to it are,
        BackendUnavailable if the runtime does not support it.
    """
    text = clean_message(str(error))
    kind = type(error).__name__
    if not loading and any(phrase in text for phrase in _FEED_PHRASES):
        return UsageError(f"{label}: the inputs do not fit the model: {text}")
    if kind not in _RUNTIME_CLASSES and not any(phrase in text for phrase in _RUNTIME_PHRASES):
        by_text = loading and any(phrase in text for phrase in _MODEL_PHRASES)
        if kind in _MODEL_CLASSES or by_text:
            return ModelError(
                f"{label}: {runtime} refuses the model as invalid: {text}: "
                "repair the model or export it again"
            )
    step = "load" if loading else "run"
    return BackendUnavailable(
        f"{label}: {runtime} cannot {step} the model: {text}: try another --backend"
        + ("" if loading else " or another --shape")
    )


def clean_message(text: str) -> str:
    """Put ``text`` on one line, without onnxruntime's status prefix and C++ source locations."""
    text = " ".join(text.split()) + " "
    text = _PREFIX.sub("", text)
    text = _NODE_FAILED.sub(r"\1 node '\2': ", text)
    text = _SOURCE_LOCATION.sub("", text).strip().rstrip(".")
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 3] + "..."
