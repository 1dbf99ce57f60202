"""`--policy cost`: each site takes the form that a static model predicts to be fastest, or none.

Nothing is run. Each form is written as nodes, put in the place of the old ones, and what all
nodes of the graph then have to do (`cost_graph`) is weighed with the constants of the backend
(`cost_table`). A form is taken only if it saves more of the time of the layers it replaces than
the model's margin, and all forms together only if they save something of the whole: what is
predicted to be about as fast stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_graphsurgeon as gs
from onnx import NodeProto, TensorProto, ValueInfoProto, helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.load import LoadedModel
from deployconv.graph.scope import Scope
from deployconv.graph.shapes import Instance, inferred_shapes
from deployconv.graph.splice import Names
from deployconv.match import Site, UpsampleSite
from deployconv.options import RewriteOptions
from deployconv.pipeline import Planning, folds_in_place, plan_model
from deployconv.proof.inputs import input_shapes
from deployconv.results import Prediction
from deployconv.rewrites.joining import Planned, not_selected, peers
from deployconv.rewrites.lowering import new_nodes, with_folded
from deployconv.runtimes import get_runtime
from deployconv.runtimes.measure import usable_cpus
from deployconv.runtimes.shapes import input_specs
from deployconv.search.candidates import options_for
from deployconv.search.choice import Choice, Option
from deployconv.search.cost_graph import CostGraph, add_work, graph_of
from deployconv.search.cost_table import TABLES, CostTable
from deployconv.search.cost_terms import Work
from deployconv.search.figures import AS_IT_WAS
from deployconv.search.tuner import Tuned
from deployconv.search.workbench import TunerOptions

_SMALL = 64
"""Elements of a constant that may be a shape."""


def predict(model: LoadedModel, options: RewriteOptions, tuner: TunerOptions) -> Tuned:
    """The form of every selected site of ``model`` that is predicted to be fastest.

    Raises UsageError where the inputs of ``tuner`` do not fit the model.
    """
    planning = plan_model(model, options)
    view = planning.view
    oracle = _Oracle(
        table=TABLES[get_runtime(tuner.backend).cost_table],
        threads=tuner.threads or usable_cpus(),
        shapes=_shapes(planning, input_shapes(input_specs(model.proto), tuner.feed)),
        static=not view.shapes.dynamic,
        measured=options.policy == "fastest",
        fresh=Names(view.names).maker("cost"),
    )
    barred = not_selected(planning.sites)
    weighed: dict[str, _Weighed] = {}
    # From the last: what a chain saves is compared with what its sites would save by themselves.
    for planned in reversed(planning.sites):
        if id(planned.site.layer) in barred:
            continue
        others = peers(planning.sites, barred)
        found = options_for(planned, view, barred, options.form, options.shuffle, others)
        if found:
            joined = [_joined(option, planned, planning.sites, weighed) for option in found]
            weighed[planned.report.id] = oracle.weigh(planned, found, joined)
    choices: dict[str, Choice] = {}
    taken: set[str] = set()
    for planned in planning.sites:
        name = planned.report.id
        best = weighed[name].best if name in weighed and name not in taken else None
        if best is not None and not best.joined.keys() & choices.keys():
            choices[name] = best.choice
            taken |= best.joined.keys()
    if not oracle.worth_a_model([weighed[name] for name in choices]):
        choices, taken = {}, set()
    shown = {
        name: found.predictions(choices.get(name), joins=name in taken)
        for name, found in weighed.items()
    }
    return Tuned(choices, shown)


def _shapes(planning: Planning, given: Instance) -> Instance:
    """All shapes that follow from those of the inputs, and from what the sites are known to do."""
    shapes = planning.view.shapes
    known, inside = shapes.at(given), []
    for site in (planned.site for planned in planning.sites):
        if not isinstance(site, UpsampleSite) or site.output in known or site.input not in known:
            continue
        batch, _, *sizes = known[site.input]
        made = [s * axis.stride + axis.extra for s, axis in zip(sizes, site.axes, strict=True)]
        dtype = helper.np_dtype_to_tensor_dtype(site.weight.dtype)
        shape = (batch, site.channels[1], *made)
        inside.append(helper.make_tensor_value_info(site.output, dtype, shape))
        known = shapes.at(given, inside)
    return known


@dataclass(frozen=True, eq=False)
class _Saving:
    """What one form saves, in milliseconds, and what the sites it takes in save otherwise."""

    choice: Choice
    ms: float
    joined: Mapping[str, float]
    worth: bool
    """Whether it may be taken."""

    @property
    def gain(self) -> float:
        """Beyond what the sites that it takes in save by themselves."""
        return self.ms - sum(self.joined.values())


@dataclass(frozen=True, eq=False)
class _Weighed:
    """All forms of one site beside the layers that they replace, which take ``before_ms``."""

    before_ms: float
    graph_ms: float
    """Of all layers of the graph that the site stands in."""
    needed: bool
    """Whether the backend cannot run the site as it is."""
    savings: tuple[_Saving, ...]

    @property
    def best(self) -> _Saving | None:
        """The form to take, None to leave the site as it is."""
        worth = (saving for saving in self.savings if saving.worth)
        return max(worth, key=lambda saving: saving.gain, default=None)

    def predictions(self, taken: Choice | None, joins: bool) -> tuple[Prediction, ...]:
        """For the report, the site as it was first; none where no form could be predicted."""
        kept = Prediction(AS_IT_WAS, self.before_ms, taken is None and not joins)
        forms = (
            Prediction(str(saving.choice), self.before_ms - saving.ms, saving.choice == taken)
            for saving in self.savings
        )
        return (kept, *forms) if self.savings else ()


def _joined(
    option: Option, planned: Planned, sites: Sequence[Planned], weighed: Mapping[str, _Weighed]
) -> dict[str, float]:
    """The other sites that ``option`` takes in, and what each saves by itself."""
    nodes = {id(node) for node in option.subject.nodes}
    found = {}
    for other in sites:
        name = other.report.id
        if other is not planned and id(other.site.layer) in nodes:
            best = weighed[name].best if name in weighed else None
            found[name] = best.gain if best is not None else 0.0
    return found


@dataclass(frozen=True, eq=False)
class _Oracle:
    """Predicts graphs of one model with the constants of one backend."""

    table: CostTable
    threads: int
    shapes: Instance
    static: bool
    measured: bool
    """Whether what is chosen is measured: then it may need more memory, and that shows."""
    fresh: Callable[[str], str]

    def weigh(
        self, planned: Planned, options: Sequence[Option], joined: Sequence[Mapping[str, float]]
    ) -> _Weighed:
        """Predict every form of one site, the others as they were.

        ``joined`` has for each form the sites that it takes in, and what they save otherwise.
        """
        graph = self._kept(planned)
        before, unknown = graph.work()
        own = {id(node): work or {} for node, work in graph.own_work()}
        needed = isinstance(planned.site, UpsampleSite) and self.table.needed(planned.site)
        replaced: dict[int, Work] = {}
        savings = []
        for option, others in zip(options, joined, strict=True):
            made = new_nodes(option.subject, option.plan, self.fresh)
            changed = self._with(graph, planned.site.scope, option.subject.nodes[-1], made)
            after, still_unknown = changed.work()
            if not still_unknown <= unknown:
                continue
            left = {id(node) for node in changed.live()}
            gone = {key: work for key, work in own.items() if key not in left}
            replaced |= gone
            saved = self._ms(before) - self._ms(after)
            least = self.table.margin * sum(map(self._ms, gone.values()))
            worth = needed or saved > max(least, sum(others.values()))
            worth = worth and (self.measured or not option.roomy)
            savings.append(_Saving(option.choice, saved, others, worth))
        total: Work = {}
        for work in replaced.values():
            add_work(total, work)
        return _Weighed(self._ms(total), self._ms(before), needed, tuple(savings))

    def worth_a_model(self, chosen: Sequence[_Weighed]) -> bool:
        """Whether all that is to be changed saves enough of the model's time together."""
        saved = sum(site.best.ms for site in chosen if site.best is not None)
        whole = max((site.graph_ms for site in chosen), default=0.0)
        return saved >= self.table.least * whole or any(site.needed for site in chosen)

    def _graph(self, site: Site) -> CostGraph:
        """The graph around ``site`` as it stands; in a function no size is known."""
        scope = site.scope
        places = list(scope.ancestors())
        blocked = not isinstance(site, UpsampleSite) or site.weight.dtype == np.float32
        return graph_of(
            scope.proto,
            {} if any(place.is_function for place in places) else self.shapes,
            static=self.static,
            # Float16 is computed in float32, one node at a time, and never on blocks.
            block=self.table.block if blocked else 0,
            outer=[name for place in places for name in place.initializers],
        )

    def _ms(self, work: Work) -> float:
        return self.table.milliseconds(work, self.threads)

    def _kept(self, planned: Planned) -> CostGraph:
        """The graph with the site as it is where it is kept: affine layers in its weight."""
        site, graph = planned.site, self._graph(planned.site)
        if not isinstance(site, UpsampleSite) or not folds_in_place(site):
            return graph
        return self._with(graph, site.scope, site.nodes[-1], with_folded(site, self.fresh))

    def _with(
        self, graph: CostGraph, scope: Scope, last: gs.Node, made: Sequence[gs.Node]
    ) -> CostGraph:
        """``graph`` with ``made`` in the place of ``last``, and so of what led to that alone."""
        nodes = [OnnxExporter.export_node(node) for node in made]
        constants = [t for node in made for t in node.inputs if isinstance(t, gs.Constant)]
        known = _shapes_behind(nodes, constants, graph.shapes, scope.opset)
        place = scope.index(last)
        old = graph.nodes
        return replace(
            graph,
            nodes=[*old[:place], *nodes, *old[place + 1 :]],
            shapes={**graph.shapes, **known},
            constant={*graph.constant, *(tensor.name for tensor in constants)},
        )


def _shapes_behind(
    nodes: Sequence[NodeProto], constants: Sequence[gs.Constant], known: Instance, opset: int
) -> Instance:
    """Shapes of what ``nodes`` make, inferred from what they read."""
    made = {name for node in nodes for name in node.output}
    given = {tensor.name: tensor for tensor in constants}
    read = {name for node in nodes for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, known[name])
        for name in sorted(read - made - given.keys())
        if name in known
    ]
    outputs = [ValueInfoProto(name=name) for name in nodes[-1].output]
    graph = helper.make_graph(nodes, "form", inputs, outputs, [*map(_bare, given.values())])
    opsets = [helper.make_opsetid("", opset)]
    return inferred_shapes(helper.make_model(graph, opset_imports=opsets))


def _bare(tensor: gs.Constant) -> TensorProto:
    """The tensor without its values, unless they may be sizes."""
    if prod(tensor.shape) <= _SMALL:
        small: TensorProto = OnnxExporter.export_tensor_proto(tensor)
        return small
    bare = TensorProto(name=tensor.name, dims=tensor.shape)
    bare.data_type = helper.np_dtype_to_tensor_dtype(tensor.dtype)
    bare.data_location = TensorProto.EXTERNAL
    bare.external_data.add(key="location", value="weights")
    return bare
