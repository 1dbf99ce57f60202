"""What in a whole model a target does not take: operators, ranks, element types, opset, sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from onnx import FunctionProto, GraphProto, ModelProto, ValueInfoProto

from deployconv.graph.declared import names_sizes
from deployconv.graph.skeleton import infer_shapes, skeleton
from deployconv.graph.tensors import declared_sizes, graph_attributes, is_onnx
from deployconv.results import Misfit, MisfitCode, TargetModel
from deployconv.targets.fit_nodes import Known, Said, misfits_of, tensor_of
from deployconv.targets.profile import Profile, Takes


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
        self._graphs = list(_known(model.graph, inferred.graph))
        for function in model.functions:
            # The tensors of a function have the shapes that its calls give them.
            self._graphs += _known(function)

    def misfits(self, profile: Profile) -> Iterator[Misfit]:
        """Yield what the target does not take, each kind of thing once."""
        for code, text in self._of_the_whole(profile.name, profile.takes):
            yield Misfit(code, text)
        found: dict[tuple[MisfitCode, str], list[str]] = defaultdict(list)
        for graph, known in self._graphs:
            for node in graph.node:
                for code, text in misfits_of(node, known, profile):
                    name = node.name or (node.output[0] if node.output else "")
                    found[code, text].append(name)
        for (code, text), nodes in found.items():
            yield Misfit(code, text, tuple(nodes))

    def _of_the_whole(self, name: str, takes: Takes) -> Said:
        versions = [one.version for one in self._model.opset_import if is_onnx(one.domain)]
        most = takes.max_opset
        for version in versions:
            if version < takes.min_opset or (most is not None and version > most):
                limits = f"{takes.min_opset} to {most}" if most else f"{takes.min_opset} on"
                yield "opset", f"opset {version}, where {name} takes {limits}"
        weights = {one.name for one in self._model.graph.initializer}
        for given in self._model.graph.input:
            if given.name not in weights and given.type.HasField("tensor_type"):
                yield from _of_input(given, name, takes)
        if not takes.symbolic_shapes and names_sizes(self._model):
            yield (
                "symbolic-shape",
                f"value_info that names dynamic sizes, which {name} does not take",
            )


def _known(
    graph: GraphProto | FunctionProto,
    inferred: GraphProto | None = None,
    outer: Known | None = None,
) -> Iterator[tuple[GraphProto | FunctionProto, Known]]:
    """Yield a graph and the bodies of its nodes, at any depth, with what is known of each."""
    known = Known.of(graph, inferred, outer)
    yield graph, known
    same = inferred.node if inferred is not None else [None] * len(graph.node)
    for node, twin in zip(graph.node, same, strict=True):
        shapes = {} if twin is None else dict(graph_attributes(twin))
        for attribute, body in graph_attributes(node):
            yield from _known(body, shapes.get(attribute), known)


def _of_input(given: ValueInfoProto, name: str, takes: Takes) -> Said:
    ranked = given.type.tensor_type.HasField("shape")
    if not takes.dynamic_sizes and not (
        ranked and all(isinstance(size, int) for size in declared_sizes(given))
    ):
        yield (
            "dynamic-size",
            f"input '{given.name}' has dynamic sizes, and {name} takes fixed ones only",
        )
    dtype = tensor_of(given).dtype
    if takes.dtypes is not None and dtype is not None and dtype not in takes.dtypes:
        allowed = ", ".join(sorted(takes.dtypes))
        yield "dtype", f"input '{given.name}' in {dtype}, where {name} takes {allowed}"
