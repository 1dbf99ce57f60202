"""The ONNX reference evaluator, for whoever has no onnxruntime; slow, so for tiny models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_conv_transpose import ConvTranspose as _ConvTranspose

Array = NDArray[Any]


class ConvTranspose(_ConvTranspose):
    """The reference's own, group by group.

    By itself it gives every group the first biases (onnx 1.23), and stops where a group has
    more than one output channel. What a group is leaves no doubt, so each is run alone.
    """

    op_domain = ""

    def _run(  # type: ignore[override]
        self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any
    ) -> tuple[Array]:
        groups = attributes.pop("group")
        biases = [None] * groups if bias is None else np.split(bias, groups)
        split = zip(np.split(x, groups, axis=1), np.split(weight, groups), biases, strict=True)
        compute: Callable[..., tuple[Array]] = super()._run
        parts = [compute(*operands, group=1, **attributes)[0] for operands in split]
        return (np.concatenate(parts, axis=1),)


def run_reference(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs by name. Raises whatever the evaluator raises where it cannot."""
    evaluator = ReferenceEvaluator(model, new_ops=[ConvTranspose])
    results = evaluator.run(None, dict(feeds))
    return dict(zip(evaluator.output_names, map(np.asarray, results), strict=True))
