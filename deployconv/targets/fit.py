"""What in a whole model a target does not take: operators, ranks, element types, opset, sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto

from deployconv.graph.skeleton import infer_shapes, skeleton
from deployconv.graph.tensors import (
    all_graphs,
    declared_sizes,
    dtype_name,
    is_onnx,
    qualified_name,
)
from deployconv.results import Misfit, MisfitCode, TargetModel
from deployconv.targets.profile import Profile, Takes

_WEIGHTS = "Constant"
"""The operator that is a constant, not a layer: every target takes it."""
_LARGEST_SHAPE = 64
"""Elements of the largest constant that can be the shape of a tensor."""


class _Tensor(NamedTuple):
    """The element type and the shape of a tensor; None for what is not known."""

    dtype: str | None
    sizes: tuple[int | None, ...] | None

    @property
    def rank(self) -> int | None:
        return None if self.sizes is None else len(self.sizes)


def target_models(model: ModelProto, profiles: Sequence[Profile]) -> tuple[TargetModel, ...]:
    """Say for each target what ``model`` has that it does not take."""
    if not profiles:
        return ()
    checked = _Checked(model)
    return tuple(
        TargetModel(
            profile.name,
            profile.title,
            profile.version,
            profile.source,
            tuple(checked.misfits(profile)),
        )
        for profile in profiles
    )


class _Checked:
    """A model with what is known of its tensors, for the checks of one or more targets."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        inferred = infer_shapes(skeleton(model), "the model")
        self._tensors: dict[str, _Tensor] = {}
        self._shapes: dict[str, list[int]] = {}
        for graph in all_graphs(inferred):
            if isinstance(graph, GraphProto):
                values = (*graph.input, *graph.value_info, *graph.output)
                self._tensors |= {value.name: _tensor(value) for value in values}
        for graph in all_graphs(model):
            if isinstance(graph, GraphProto):
                self._shapes |= dict(_small_integers(graph))

    def misfits(self, profile: Profile) -> Iterator[Misfit]:
        """Yield what the target does not take, each kind of thing once."""
        name, takes = profile.name, profile.takes
        yield from self._of_the_whole(name, takes)
        found: dict[tuple[MisfitCode, str], list[str]] = defaultdict(list)
        for graph in all_graphs(self._model):
            for node in graph.node:
                for code, text in self._of_node(node, name, takes):
                    found[code, text].append(node.name or (node.output[0] if node.output else ""))
        for (code, text), nodes in found.items():
            yield Misfit(code, text, tuple(nodes))

    def _of_the_whole(self, name: str, takes: Takes) -> Iterator[Misfit]:
        versions = [one.version for one in self._model.opset_import if is_onnx(one.domain)]
        most = takes.max_opset
        for version in versions:
            if version < takes.min_opset or (most is not None and version > most):
                limits = f"{takes.min_opset} to {most}" if most else f"{takes.min_opset} on"
                yield Misfit("opset", f"opset {version}, where {name} takes {limits}")
        weights = {one.name for one in self._model.graph.initializer}
        for given in self._model.graph.input:
            if given.name in weights or not given.type.HasField("tensor_type"):
                continue
            if not takes.dynamic_sizes and not all(
                isinstance(size, int) for size in declared_sizes(given)
            ):
                text = f"input '{given.name}' has dynamic sizes, and {name} takes fixed ones only"
                yield Misfit("dynamic-size", text)

    def _of_node(
        self, node: NodeProto, name: str, takes: Takes
    ) -> Iterator[tuple[MisfitCode, str]]:
        if node.op_type == _WEIGHTS and is_onnx(node.domain):
            return
        operator = qualified_name(node.domain, node.op_type)
        if takes.operators is not None and operator not in takes.operators:
            yield "operator", f"{operator}, which {name} does not take"
            return
        tensors = [self._tensors.get(one, _Tensor(None, None)) for one in node.output if one]
        data = self._tensors.get(node.input[0]) if node.input else None
        both = tensors if data is None else [data, *tensors]
        rank = max((one.rank for one in both if one.rank is not None), default=0)
        if takes.max_rank is not None and rank > takes.max_rank:
            text = f"{node.op_type} over {rank} dimensions, where {name} takes {takes.max_rank}"
            yield "rank", text
        for dtype in dict.fromkeys(one.dtype for one in tensors):
            if dtype is not None and takes.dtypes is not None and dtype not in takes.dtypes:
                allowed = ", ".join(sorted(takes.dtypes))
                yield "dtype", f"{node.op_type} in {dtype}, where {name} takes {allowed}"
        if is_onnx(node.domain):
            yield from _of_depth_to_space(node, name, takes)
            yield from self._of_reshape(node, name, takes)

    def _of_reshape(
        self, node: NodeProto, name: str, takes: Takes
    ) -> Iterator[tuple[MisfitCode, str]]:
        if node.op_type != "Reshape" or len(node.input) < 2:
            return
        shape = self._shapes.get(node.input[1])
        if shape is None:
            if not takes.computed_shapes:
                yield "reshape", f"Reshape to a computed shape, which {name} does not take"
            return
        for value, allowed in ((0, takes.reshape_zero), (-1, takes.reshape_minus_one)):
            if value in shape and not allowed:
                yield "reshape", f"Reshape with a literal {value}, which {name} does not take"


def _of_depth_to_space(
    node: NodeProto, name: str, takes: Takes
) -> Iterator[tuple[MisfitCode, str]]:
    if node.op_type != "DepthToSpace" or takes.depth_to_space is None:
        return
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    mode, block = attributes.get("mode", b"DCR").decode(), attributes["blocksize"]
    modes = takes.depth_to_space
    if mode not in modes:
        yield "operator", f"DepthToSpace in mode {mode}, which {name} does not take"
        return
    blocks = modes[mode]
    if blocks is not None and block not in blocks:
        taken = " or ".join(map(str, blocks))
        yield "block-size", f"DepthToSpace of {block}, where {name} takes {taken}"


def _tensor(value: ValueInfoProto) -> _Tensor:
    kind = value.type.tensor_type
    sizes = tuple(map(_size, kind.shape.dim)) if kind.HasField("shape") else None
    known = kind.elem_type not in (0, TensorProto.STRING)
    dtype = dtype_name(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) if known else None
    return _Tensor(dtype, sizes)


def _size(dim: TensorShapeProto.Dimension) -> int | None:
    return dim.dim_value if dim.HasField("dim_value") else None


def _small_integers(graph: GraphProto) -> Iterator[tuple[str, list[int]]]:
    """Yield the constants of a graph that can be shapes, by name."""
    held: list[tuple[str, TensorProto]] = [(one.name, one) for one in graph.initializer]
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == _WEIGHTS and attribute.name == "value":
                held.append((node.output[0], attribute.t))
            elif node.op_type == _WEIGHTS and attribute.name == "value_ints":
                yield node.output[0], list(attribute.ints)
    for name, tensor in held:
        small = len(tensor.dims) == 1 and tensor.dims[0] <= _LARGEST_SHAPE
        if tensor.data_type == TensorProto.INT64 and small and not tensor.external_data:
            yield name, [int(one) for one in onnx.numpy_helper.to_array(tensor)]
