"""onnxruntime's exceptions as one line each, with the exit status that they deserve.

onnxruntime raises the same class for a broken model and for one that it merely does not
support, so the class decides only where it is unambiguous and the text decides elsewhere.
"""

from __future__ import annotations

import re

from deployconv.errors import BackendUnavailable, DeployconvError, ModelError, UsageError

_LONGEST = 400

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
    """The deployconv error that says on one line what onnxruntime said on many.

    Args:
        error: what onnxruntime raised.
        runtime: library and version.
        label: which model, e.g. its file name.
        loading: whether the model was being loaded or run.

    Returns:
        ModelError where the model is at fault, UsageError where the arrays fed to it are,
        BackendUnavailable where the runtime does not support it.
    """
    text = one_line(str(error))
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


def one_line(text: str) -> str:
    """``text`` without onnxruntime's status prefix and C++ source locations, on one line."""
    text = " ".join(text.split()) + " "
    text = _PREFIX.sub("", text)
    text = _NODE_FAILED.sub(r"\1 node '\2': ", text)
    text = _SOURCE_LOCATION.sub("", text).strip().rstrip(".")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
