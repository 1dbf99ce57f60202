"""`--policy cost`: choose for each site the form that a cost model predicts to be fastest.

Nothing is run, unless sizes do not follow from those of the inputs: then one run of the original
shows them. Each form is written as nodes and put in place of the old ones. The work of the
graph (`cost_graph`) times the constants of the backend (`cost_table`) is its predicted time. A form
is taken only if it saves a certain part of the time of the layers that it replaces. Forms are taken
at all only if together they save enough of the time of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph import symbolic
from deployconv.graph.scope import Scope
from deployconv.graph.shapes import Instance, inferred_shapes
from deployconv.graph.splice import Names
from deployconv.graph.symbolic import Known, Size, Unproven
from deployconv.match import ConcatSite, Site, UpsampleSite
from deployconv.proof.inputs import input_shapes
from deployconv.results import Prediction
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.kept import folded_in_place
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.rewrites.planning import Planning
from deployconv.runtimes import get_runtime
from deployconv.runtimes.machine import usable_cpus
from deployconv.runtimes.shapes import input_specs
from deployconv.search.candidates import Candidates
from deployconv.search.choice import AS_IT_WAS, Choice, Decision, Option, TunerOptions
from deployconv.search.computed_sizes import computed_sizes
from deployconv.search.cost_graph import CostGraph, Position, add_work, graph_of
from deployconv.search.cost_table import TABLES, CostTable
from deployconv.search.cost_terms import Work
from deployconv.search.observed_shapes import observed_shapes

_SMALL = 64
"""Most elements of a constant that may be a shape."""


def predict(candidates: Candidates, tuner: TunerOptions) -> Decision:
    """Choose the form of every selected site that is predicted to be fastest.

    Raises UsageError if the inputs of ``tuner`` do not fit the model.
    """
    view = candidates.planning.view
    given = input_shapes(input_specs(view.model.proto), tuner.feed)
    shapes = _shapes(candidates.planning, given)
    predictor = _Predictor(
        table=TABLES[get_runtime(tuner.backend).cost_table],
        threads=tuner.threads or usable_cpus(),
        shapes=shapes,
        static=not view.shapes.dynamic,
        fresh=_fresh(Names(view.names).maker("cost")),
    )
    predicted = _predict_sites(candidates, predictor)
    not_observed = None
    if _lack_sizes(candidates, predicted):
        observed = observed_shapes(view.model, shapes, tuner)
        if isinstance(observed, str):
            not_observed = observed
        else:
            shapes = _shapes(candidates.planning, given, observed)
            predictor = replace(predictor, shapes=shapes, graphs={})
            predicted = _predict_sites(candidates, predictor)
    choices: dict[str, Choice] = {}
    taken: set[str] = set()
    for planned in candidates.planning.default:
        name = planned.id
        best = predicted[name].best if name in predicted and name not in taken else None
        if best is not None and not best.joined.keys() & choices.keys():
            choices[name] = best.choice
            taken |= best.joined.keys()
    if not predictor.is_worth_it([predicted[name] for name in choices]):
        choices, taken = {}, set()
    shown = {
        name: found.predictions(choices.get(name), joins=name in taken)
        for name, found in predicted.items()
    }
    return Decision(choices, shown, not_observed=not_observed)


def _predict_sites(candidates: Candidates, predictor: _Predictor) -> dict[str, _SitePrediction]:
    """What is predicted for every selected site that has forms, by its id."""
    default = candidates.planning.default
    predicted: dict[str, _SitePrediction] = {}
    # The last site first: the saving of a chain is compared with those of the sites in it.
    for planned in reversed(default):
        found = candidates.of_site(planned)
        if found:
            joined = [_joined(option, planned, default, predicted) for option in found]
            predicted[planned.id] = predictor.predict(planned, found, joined)
    return predicted


def _lack_sizes(candidates: Candidates, predicted: Mapping[str, _SitePrediction]) -> bool:
    """Whether a site outside of functions could not be predicted, so that a run may help."""
    return any(
        planned.id in predicted
        and not predicted[planned.id].savings
        and not any(scope.is_function for scope in planned.site.scope.ancestors())
        for planned in candidates.planning.default
    )


def _fresh(name: Callable[[str], str]) -> Callable[[str], str]:
    """A maker of new names with a number each, so that no two forms share a name."""
    number = count()
    return lambda suffix: name(f"{next(number)}/{suffix}")


def _shapes(
    planning: Planning, given: Instance, observed: Sequence[ValueInfoProto] = ()
) -> Instance:
    """All shapes that follow from those of the inputs, and from the geometry of the sites.

    ``observed`` are tensors of the main graph with the shapes that they had in a run.
    """
    shapes = planning.view.shapes
    inside = [value for value in observed if value.type.tensor_type.elem_type]
    seen = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in observed
    }
    known = {**seen, **(shapes.at(given, inside) or shapes.at(given))}
    for site in (planned.site for planned in planning.default):
        if not isinstance(site, UpsampleSite) or site.tail:
            continue
        if site.output in known or site.input not in known:
            continue
        batch, _, *sizes = site.input_axes.of_tensor(known[site.input])
        made = [s * axis.stride + axis.extra for s, axis in zip(sizes, site.axes, strict=True)]
        dtype = helper.np_dtype_to_tensor_dtype(site.weight.dtype)
        shape = (batch, site.channels[1], *made)
        inside.append(helper.make_tensor_value_info(site.output, dtype, shape))
        known = {**seen, **shapes.at(given, inside)}
    return known


@dataclass(frozen=True, eq=False)
class _Saving:
    """The milliseconds that one form saves."""

    choice: Choice
    ms: float
    joined: Mapping[str, float]
    """The other sites that the form replaces, and what each of them saves by itself."""
    worth: bool
    """Whether it may be taken."""

    @property
    def gain(self) -> float:
        """Milliseconds beyond what the other sites that it replaces save by themselves."""
        return self.ms - sum(self.joined.values())


@dataclass(frozen=True, eq=False)
class _SitePrediction:
    """What is predicted for all forms of one site."""

    before_ms: float
    """The time of all layers that any form replaces."""
    graph_ms: float
    """The time of the graph that has the site."""
    needed: bool
    """Whether the backend cannot run the site as it is."""
    savings: tuple[_Saving, ...]

    @property
    def best(self) -> _Saving | None:
        """The form to take; None leaves the site as it is."""
        worth = (saving for saving in self.savings if saving.worth)
        return max(worth, key=lambda saving: saving.gain, default=None)

    def predictions(self, taken: Choice | None, joins: bool) -> tuple[Prediction, ...]:
        """For the report, the site as it was first; empty if no form could be predicted."""
        kept = Prediction(AS_IT_WAS, self.before_ms, taken is None and not joins)
        forms = (
            Prediction(str(saving.choice), self.before_ms - saving.ms, saving.choice == taken)
            for saving in self.savings
        )
        return (kept, *forms) if self.savings else ()


def _joined(
    option: Option,
    planned: PlannedSite,
    sites: Sequence[PlannedSite],
    predicted: Mapping[str, _SitePrediction],
) -> dict[str, float]:
    """The other sites that ``option`` replaces, and what each saves by itself."""
    nodes = {id(node) for node in option.rewrite.nodes}
    found = {}
    for other in sites:
        name = other.id
        if other is not planned and id(other.site.layer) in nodes:
            best = predicted[name].best if name in predicted else None
            found[name] = best.gain if best is not None else 0.0
    return found


@dataclass(frozen=True, eq=False)
class _Predictor:
    """Predicts the time of the graphs of one model with the constants of one backend."""

    table: CostTable
    threads: int
    shapes: Instance
    static: bool
    fresh: Callable[[str], str]
    graphs: dict[tuple[Scope, int], CostGraph] = field(default_factory=dict)
    """The graphs as they were, by scope and size of the blocks of channels."""

    def predict(
        self, planned: PlannedSite, options: Sequence[Option], joined: Sequence[Mapping[str, float]]
    ) -> _SitePrediction:
        """Predict every form of one site, the other sites as they were.

        ``joined`` has for each form the other sites that it replaces, see `_Saving`.
        """
        graph = self._kept(planned)
        before, unknown = graph.work()
        needed = isinstance(planned.site, UpsampleSite) and self.table.needed(planned.site)
        replaced: dict[Position, Work] = {}
        savings = []
        for option, others in zip(options, joined, strict=True):
            changed = self._with(graph, option.rewrite)
            after, still_unknown = changed.work()
            if not still_unknown <= unknown:
                continue
            gone = graph.work_without(changed)
            replaced |= gone
            saved = self._ms(before) - self._ms(after)
            least = self.table.margin * sum(map(self._ms, gone.values()))
            worth = needed or saved > max(least, sum(others.values()))
            worth = worth and not option.needs_measurement
            savings.append(_Saving(option.choice, saved, others, worth))
        total: Work = {}
        for work in replaced.values():
            add_work(total, work)
        return _SitePrediction(self._ms(total), self._ms(before), needed, tuple(savings))

    def is_worth_it(self, chosen: Sequence[_SitePrediction]) -> bool:
        """Whether the best forms of these sites together save enough of the model's time."""
        saved = sum(site.best.ms for site in chosen if site.best is not None)
        whole = max((site.graph_ms for site in chosen), default=0.0)
        return saved >= self.table.least * whole or any(site.needed for site in chosen)

    def _graph(self, site: Site) -> CostGraph:
        """The graph that has ``site``, as it was; in a function no size is known."""
        # Float16 is computed in float32, one node at a time, and never on blocks.
        conv = site.conv if isinstance(site, ConcatSite) else site
        blocked = not isinstance(conv, UpsampleSite) or conv.weight.dtype == np.float32
        key = site.scope, self.table.block if blocked else 0
        if key not in self.graphs:
            scopes = list(site.scope.ancestors())
            self.graphs[key] = graph_of(
                site.scope.proto,
                {} if any(scope.is_function for scope in scopes) else self.shapes,
                static=self.static,
                block=key[1],
                outer=[name for scope in scopes for name in scope.initializers],
            )
        return self.graphs[key]

    def _ms(self, work: Work) -> float:
        return self.table.milliseconds(work, self.threads)

    def _kept(self, planned: PlannedSite) -> CostGraph:
        """The graph with the site as it is if it is kept: affine layers folded into its weight."""
        site, graph = planned.site, self._graph(planned.site)
        folded = folded_in_place(site) if isinstance(site, UpsampleSite) else None
        return graph if folded is None else self._with(graph, folded)

    def _with(self, graph: CostGraph, rewrite: Rewrite) -> CostGraph:
        """``graph`` with the new nodes of ``rewrite`` in place of those that it replaces.

        Nodes that are still read elsewhere stay.
        """
        scope, last = rewrite.scope, rewrite.nodes[-1]
        emitter = Emitter(scope.opset, self.fresh)
        rewrite.emit(emitter)
        nodes = [OnnxExporter.export_node(node) for node in emitter.nodes]
        constants = [t for node in emitter.nodes for t in node.inputs if isinstance(t, gs.Constant)]
        read = {name for node in nodes for name in node.input if name}
        sizes = computed_sizes(read, scope.proto, graph.shapes)
        shapes = _shapes_made(nodes, constants, graph.shapes, scope.opset, sizes)
        names = [tensor.name for tensor in constants]
        return graph.replaced(scope.index(last), nodes, shapes, names)


def _shapes_made(
    nodes: Sequence[NodeProto],
    constants: Sequence[gs.Constant],
    known: Instance,
    opset: int,
    sizes: Mapping[str, NDArray[np.int64]],
) -> Instance:
    """Infer the shapes of the tensors that ``nodes`` make from those that they read.

    ``sizes`` are values of tensors that they read.
    """
    made = {name for node in nodes for name in node.output}
    given = {tensor.name: tensor for tensor in constants}
    read = {name for node in nodes for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, known[name])
        for name in sorted(read - made - given.keys() - sizes.keys())
        if name in known
    ]
    outputs = [ValueInfoProto(name=name) for name in nodes[-1].output]
    held = [*map(_bare, given.values())]
    held += [numpy_helper.from_array(values, name) for name, values in sizes.items()]
    graph = helper.make_graph(nodes, "form", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    found = inferred_shapes(model)
    if _with_sizes_of_col2im(model.graph, found):
        found = inferred_shapes(model)
    return found


def _with_sizes_of_col2im(graph: GraphProto, shapes: Instance) -> bool:
    """Make computed sizes that a Col2Im reads into initializers; whether there are any.

    Shape inference takes the size of its image from an initializer only.
    """
    computed = [node for node in graph.node if node.op_type == "Col2Im"]
    computed = [node for node in computed if node.output[0] not in shapes]
    if not computed:
        return False
    known = {name: Known(tuple(map(Size.of, shape))) for name, shape in shapes.items()}
    for tensor in graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            known[tensor.name] = Known.of(numpy_helper.to_array(tensor))
    for node in graph.node:
        with suppress(Unproven, KeyError):
            made = symbolic.run(node, [known[name] for name in node.input])
            known.update(zip(node.output, made, strict=False))
    for node in computed:
        with suppress(Unproven, KeyError):
            sizes = numpy_helper.from_array(np.array(known[node.input[1]].ints(), np.int64))
            sizes.name = node.input[1] = f"{node.output[0]}/sizes"
            graph.initializer.append(sizes)
    return True


def _bare(tensor: gs.Constant) -> TensorProto:
    """The tensor without its values, unless these may be sizes."""
    if prod(tensor.shape) <= _SMALL:
        small: TensorProto = OnnxExporter.export_tensor_proto(tensor)
        return small
    bare = TensorProto(name=tensor.name, dims=tensor.shape)
    bare.data_type = helper.np_dtype_to_tensor_dtype(tensor.dtype)
    bare.data_location = TensorProto.EXTERNAL
    bare.external_data.add(key="location", value="weights")
    return bare
