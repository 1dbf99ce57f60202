"""What one node of a model has that a target does not take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import onnx
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto

from deployconv.graph.tensors import dtype_name, is_onnx, qualified_name
from deployconv.results import MisfitCode
from deployconv.targets.profile import Profile, Takes

Said = Iterator[tuple[MisfitCode, str]]
"""The code and the text of each misfit."""

_WEIGHTS = "Constant"
"""The operator that is a constant, not a layer: every target takes it."""
_LARGEST_SHAPE = 64
"""Elements of the largest constant that can be the shape of a tensor."""
_BIAS_OF_QLINEARCONV = 8
"""The place of the bias among the inputs of a QLinearConv."""


class Tensor(NamedTuple):
    """The element type and the shape of a tensor; None for what is not known."""

    dtype: str | None = None
    sizes: tuple[int | None, ...] | None = None

    @property
    def rank(self) -> int | None:
        """The number of dimensions."""
        return None if self.sizes is None else len(self.sizes)


_UNKNOWN = Tensor()


@dataclass(frozen=True)
class Known:
    """What is known of the tensors that the nodes of a graph see, by their names.

    Two bodies of a node may use one name for different tensors.

    Attributes:
        tensors: element types and shapes.
        integers: the values of constants that can be shapes.
        fixed: all constants, and what the calls of a function may give it as constants.
        made_by: the operator of ONNX that makes a tensor.
    """

    tensors: Mapping[str, Tensor]
    integers: Mapping[str, list[int]]
    fixed: frozenset[str]
    made_by: Mapping[str, str]

    @classmethod
    def of(
        cls,
        graph: GraphProto | FunctionProto,
        inferred: GraphProto | None = None,
        outer: Known | None = None,
    ) -> Known:
        """Read what is known from a graph.

        Args:
            graph: the graph, a body or a function.
            inferred: the same graph with inferred shapes, if there is one.
            outer: what is known in the graph that it is the body of.
        """
        tensors = dict(outer.tensors) if outer is not None else {}
        integers = dict(outer.integers) if outer is not None else {}
        fixed = set(outer.fixed) if outer is not None else set()
        made_by = dict(outer.made_by) if outer is not None else {}
        if isinstance(graph, FunctionProto):
            fixed.update(graph.input)
        if inferred is not None:
            declared = (*inferred.input, *inferred.value_info, *inferred.output)
            tensors |= {value.name: tensor_of(value) for value in declared}
        held = list(graph.initializer) if isinstance(graph, GraphProto) else []
        tensors |= {one.name: _tensor(one.data_type, tuple(one.dims)) for one in held}
        values = {one.name: _values(one) for one in held}
        fixed |= {one.name for one in held}
        if isinstance(graph, GraphProto):
            fixed |= {one.values.name for one in graph.sparse_initializer}
        for node in graph.node:
            if is_onnx(node.domain):
                made_by |= dict.fromkeys(node.output, node.op_type)
            if node.op_type == _WEIGHTS:
                fixed.update(node.output)
                values |= dict.fromkeys(node.output, _constant(node))
        integers |= {name: made for name, made in values.items() if made is not None}
        return cls(tensors, integers, frozenset(fixed), made_by)

    def tensor(self, name: str) -> Tensor:
        """What is known of the tensor of this name."""
        return self.tensors.get(name, _UNKNOWN)


def misfits_of(node: NodeProto, known: Known, profile: Profile) -> Said:
    """Yield what a target does not take of one node.

    Args:
        node: the node.
        known: what is known of the tensors of its graph.
        profile: the target.
    """
    name, takes = profile.name, profile.takes
    if node.op_type == _WEIGHTS and is_onnx(node.domain):
        return
    yield from _of_tensors(node, known, name, takes)
    operator = qualified_name(node.domain, node.op_type)
    if takes.operators is not None and operator not in takes.operators:
        yield "operator", f"{operator}, which {name} does not take"
    elif is_onnx(node.domain) and not any(one.ref_attr_name for one in node.attribute):
        # What is a parameter of a function is known only where the function is called.
        for code, text in _of_operator(node, known, takes):
            yield code, f"{text}, which {name} does not take"
        if node.op_type == "Col2Im" and not takes.restrictions.col2im:
            yield "operator", f"Col2Im, which {name} is not known to take"
        yield from _of_depth_to_space(node, name, takes)


def _of_tensors(node: NodeProto, known: Known, name: str, takes: Takes) -> Said:
    """Yield which limits of a target the tensors break that the node reads or makes."""
    made = [known.tensor(one) for one in node.output if one]
    all_of_them = [*made, *(known.tensor(one) for one in node.input if one)]
    rank = max((one.rank for one in all_of_them if one.rank is not None), default=0)
    if takes.max_rank is not None and rank > takes.max_rank:
        yield "rank", f"{node.op_type} over {rank} dimensions, where {name} takes {takes.max_rank}"
    for dtype in dict.fromkeys(one.dtype for one in made):
        if dtype is not None and takes.dtypes is not None and dtype not in takes.dtypes:
            allowed = ", ".join(sorted(takes.dtypes))
            yield "dtype", f"{node.op_type} in {dtype}, where {name} takes {allowed}"


def _of_operator(node: NodeProto, known: Known, takes: Takes) -> Said:
    """Yield which limits the operator of a node breaks; the texts do not name the target."""
    if node.op_type == "Reshape":
        yield from _of_reshape(node, known, takes)
    elif node.op_type == "Slice":
        if not takes.computed_shapes and any(
            one not in known.fixed for one in node.input[1:] if one
        ):
            yield "slice", "Slice of computed sizes"
        if not takes.crops and _crops_a_shuffle(node, known):
            yield "slice", "a Slice that crops the result of a shuffle"
    elif node.op_type == "ConvTranspose":
        if not takes.transposed_pads and _is_padded(node, known):
            yield "transposed-pads", "ConvTranspose with pads"
    elif node.op_type == "Pad":
        if not takes.edge_pads and _attributes(node).get("mode") == b"edge":
            yield "edge-pad", "Pad of mode edge"
    elif node.op_type == "MatMul":
        if not takes.matrix_first and _is_constant(node.input[0], known):
            yield "constant-first", "MatMul whose first input is a constant"
    elif not takes.integer_bias and _integer_bias(node, known):
        yield "integer-bias", f"{node.op_type} with an int32 bias"


def _of_reshape(node: NodeProto, known: Known, takes: Takes) -> Said:
    if len(node.input) < 2:
        shape = list(_attributes(node).get("shape", ()))
    elif node.input[1] in known.integers:
        shape = known.integers[node.input[1]]
    else:
        if not takes.computed_shapes and node.input[1] not in known.fixed:
            yield "reshape", "Reshape to a computed shape"
        return
    for value, allowed in ((0, takes.reshape_zero), (-1, takes.reshape_minus_one)):
        if value in shape and not allowed:
            yield "reshape", f"Reshape with a literal {value}"


def _is_constant(name: str, known: Known) -> bool:
    """Whether a tensor is a constant of the graph, not what a call gives to a function."""
    own = name in known.tensors or known.made_by.get(name) == _WEIGHTS
    return own and name in known.fixed


def _crops_a_shuffle(node: NodeProto, known: Known) -> bool:
    """Whether a Slice takes rows or columns of what a DepthToSpace makes."""
    if known.made_by.get(node.input[0]) != "DepthToSpace":
        return False
    axes = _attributes(node).get("axes")
    if len(node.input) > 3 and node.input[3]:
        axes = known.integers.get(node.input[3])
    return axes is None or any(axis % 4 >= 2 for axis in axes)


def _is_padded(node: NodeProto, known: Known) -> bool:
    """Whether a ConvTranspose has pads, as far as its sizes are known."""
    given = _attributes(node)
    same = given.get("auto_pad", b"NOTSET").startswith(b"SAME")
    stated = given.get("output_shape")
    if stated is None and not same:
        return given.get("auto_pad") != b"VALID" and any(given.get("pads", ()))
    weight = known.tensor(node.input[1]).sizes or ()
    kernel = given.get("kernel_shape", weight[2:])
    rank = len(kernel)
    ones, zeros = [1] * rank, [0] * rank
    strides = given.get("strides", ones)
    before = (known.tensor(node.input[0]).sizes or (None,) * (rank + 2))[2:]
    after = stated[-rank:] if stated is not None else [None] * rank
    for size, taps, stride, step, added, asked in zip(
        *(before, kernel, strides, given.get("dilations", ones)),
        *(given.get("output_padding", zeros), after),
        strict=False,
    ):
        total = (taps - 1) * step + 1 - stride + added
        if asked is not None:
            # Without the size of its input nothing is known of the pads.
            total = 0 if size is None else total + stride * size - asked
        if total > 0:
            return True
    return False


def _integer_bias(node: NodeProto, known: Known) -> bool:
    """Whether a node has an int32 bias of a quantized layer, or turns one into floats."""
    place = {"DequantizeLinear": 0, "QLinearConv": _BIAS_OF_QLINEARCONV}.get(node.op_type)
    if place is None or len(node.input) <= place:
        return False
    bias = node.input[place]
    return bias in known.fixed and known.tensor(bias).dtype == "int32"


def _of_depth_to_space(node: NodeProto, name: str, takes: Takes) -> Said:
    if node.op_type != "DepthToSpace" or takes.depth_to_space is None:
        return
    attributes = _attributes(node)
    mode, block = attributes.get("mode", b"DCR").decode(), attributes["blocksize"]
    modes = takes.depth_to_space
    if mode not in modes:
        yield "operator", f"DepthToSpace in mode {mode}, which {name} does not take"
        return
    blocks = modes[mode]
    if blocks is not None and block not in blocks:
        taken = " or ".join(map(str, blocks))
        yield "block-size", f"DepthToSpace of {block}, where {name} takes {taken}"


def tensor_of(value: ValueInfoProto) -> Tensor:
    """What a declaration says of a tensor."""
    kind = value.type.tensor_type
    sizes = None
    if kind.HasField("shape"):
        dims = kind.shape.dim
        sizes = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
    return _tensor(kind.elem_type, sizes)


def _tensor(kind: int, sizes: tuple[int | None, ...] | None) -> Tensor:
    known = kind not in (0, TensorProto.STRING)
    return Tensor(dtype_name(kind) if known else None, sizes)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


def _constant(node: NodeProto) -> list[int] | None:
    """The values of a Constant that can be a shape or axes; None for any other."""
    given = _attributes(node)
    if "value_ints" in given:
        return list(given["value_ints"])
    return _values(given["value"]) if "value" in given else None


def _values(tensor: TensorProto) -> list[int] | None:
    """The values of a constant that can be a shape or axes; None for any other."""
    small = len(tensor.dims) == 1 and tensor.dims[0] <= _LARGEST_SHAPE
    whole = tensor.data_type in (TensorProto.INT64, TensorProto.INT32)
    if not whole or not small or tensor.external_data:
        return None
    return [int(one) for one in onnx.numpy_helper.to_array(tensor)]
