"""Observe the sizes inside a model in one run, where they do not follow from those of the inputs.

In a text-to-speech model, for example, the number of samples follows from durations that the model
computes itself. Shape inference ends there, and so would the cost model.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, helper

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.graph.load import LoadedModel
from deployconv.graph.save import staged
from deployconv.graph.shapes import Instance
from deployconv.graph.skeleton import infer_shapes
from deployconv.graph.splice import Names
from deployconv.graph.tensors import used_names
from deployconv.options import DEFAULT_RUNTIME
from deployconv.proof.inputs import make_feeds
from deployconv.proof.memory import require_memory
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import InterruptibleSession
from deployconv.runtimes.shapes import input_specs
from deployconv.search.choice import TunerOptions

_LONGEST_RUN = 15.0
"""Seconds after which the run is stopped."""
_PART_OF_BUDGET = 1 / 4
"""The part of the time to measure that the run may take, at the most."""
_NO_TENSORS = ("Sequence", "Optional", "ZipMap")
"""Parts of the names of operators whose outputs may be no tensors, if inference does not tell."""


def observed_shapes(
    model: LoadedModel, known: Instance, tuner: TunerOptions
) -> list[ValueInfoProto] | str:
    """The shapes of tensors of the main graph in one run on the inputs of ``tuner``.

    The default runtime runs a copy of the model that has the shapes of these tensors as outputs.

    Args:
        model: the original.
        known: tensors that need not be observed.
        tuner: the inputs, the threads, and the time to measure, of which the run takes a part.

    Returns:
        Each tensor with its type and shape, without those that have no element; or why there was
        no run.
    """
    types = _types(model)
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    outputs = _add_shapes(proto, _unknown(model, known, types))
    limit = min(_LONGEST_RUN, _PART_OF_BUDGET * tuner.budget)
    try:
        feeds = make_feeds(input_specs(proto), tuner.feed).arrays
        require_memory(model.proto, feeds)
        with staged(proto, model.folder, None) as copy:
            backend = get_backend(DEFAULT_RUNTIME)
            session = backend.prepare(copy.path, threads=tuner.threads, optimise=False)
            if not isinstance(session, InterruptibleSession):
                return f"{backend.runtime} cannot stop a run that takes too long"
            values = session.run_within(feeds, limit)
    except (BackendUnavailable, ModelError, UsageError) as error:
        return str(error)
    shapes = {name: values[output].tolist() for output, name in outputs.items()}
    return [
        helper.make_tensor_value_info(name, types[name].tensor_type.elem_type, shape)
        if name in types
        else helper.make_tensor_value_info(name, TensorProto.UNDEFINED, shape)
        for name, shape in shapes.items()
        if prod(shape) > 0
    ]


def _types(model: LoadedModel) -> dict[str, TypeProto]:
    """The types of the tensors of the main graph, as far as shape inference finds them."""
    inferred = infer_shapes(model.skeleton, model.name).graph
    return {value.name: value.type for value in (*inferred.value_info, *inferred.output)}


def _unknown(model: LoadedModel, known: Instance, types: Mapping[str, TypeProto]) -> list[str]:
    """The tensors that nodes of the main graph make and whose shapes are not known."""
    return [
        name
        for node in model.proto.graph.node
        if not any(part in node.op_type for part in _NO_TENSORS)
        for name in node.output
        if name and name not in known and _may_be_tensor(types.get(name))
    ]


def _may_be_tensor(kind: TypeProto | None) -> bool:
    return kind is None or kind.WhichOneof("value") in (None, "tensor_type")


def _add_shapes(proto: ModelProto, names: list[str]) -> dict[str, str]:
    """Make the shapes of these tensors the only outputs of ``proto``; tensor by output name."""
    fresh = Names(used_names(proto)).maker("observed")
    outputs = {fresh(str(number)): name for number, name in enumerate(names)}
    for output, name in outputs.items():
        proto.graph.node.append(helper.make_node("Shape", [name], [output]))
    del proto.graph.output[:]
    proto.graph.output.extend(
        helper.make_tensor_value_info(output, TensorProto.INT64, [None]) for output in outputs
    )
    return outputs
