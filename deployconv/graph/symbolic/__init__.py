"""Run nodes on polynomials in the sizes that a model leaves open: at all sizes at once.

A Slice beyond the end, a Squeeze without axes, a Max with a constant do one thing at some sizes and
another at others. These have no result here. A node that has one behaves alike at every size.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import NodeProto

from deployconv.graph.symbolic import arrange, elementwise, layers
from deployconv.graph.symbolic.known import FEW, Call, Known, Spread, Unproven
from deployconv.graph.symbolic.size import Size
from deployconv.graph.tensors import is_onnx

_OPERATORS = {**layers.OPERATORS, **arrange.OPERATORS, **elementwise.OPERATORS}


def run(node: NodeProto, inputs: Sequence[Known | None]) -> tuple[Known, ...]:
    """The outputs of ``node``: all of a Split, the first one of every other operator.

    Args:
        node: a node of any operator.
        inputs: what is known of its inputs; None for one that is left out.

    Raises:
        Unproven: the operator is not known here, or may behave otherwise at some sizes.
    """
    if not is_onnx(node.domain) or any(a.ref_attr_name for a in node.attribute):
        raise Unproven
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    call = Call(node.op_type, inputs, attributes, len(node.output))
    try:
        if node.op_type == "Split":
            return arrange.split(call)
        return (_OPERATORS[node.op_type](call),)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise Unproven from error


__all__ = ["FEW", "Known", "Size", "Spread", "Unproven", "run"]
