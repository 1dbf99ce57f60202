"""Run a model in the ONNX reference evaluator: slow, for tiny models without onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from deployconv.graph.reference_operators import ConvTranspose

Array = NDArray[Any]


def run_reference(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run ``model``; all outputs by name. An error of the evaluator is passed on as it is."""
    evaluator = ReferenceEvaluator(model, new_ops=[ConvTranspose])
    results = evaluator.run(None, dict(feeds))
    return dict(zip(evaluator.output_names, map(np.asarray, results), strict=True))
