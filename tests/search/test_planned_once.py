"""Each form of a site is planned once, and listing, choosing and writing forms changes no model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from itertools import product
from typing import Any

import pytest
from onnx import ModelProto

import deployconv
from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.options import RewriteOptions
from deployconv.rewrites.chain import chain_after
from deployconv.rewrites.conv import plan_conv
from deployconv.rewrites.matrix import plan_matrix
from deployconv.rewrites.pixel_shuffle import chain_from, plan_reshuffle, region_from
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.rewrites.planning import apply
from deployconv.rewrites.region_search import region_after
from deployconv.rewrites.separable import plan_separable
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Choice, Option, TunerOptions
from deployconv.search.cost_model import predict
from deployconv.search.tuner import tune
from tests.build import conv_transpose, integers, tensor
from tests.search.conftest import ScriptedBackend, by_operator
from tests.search.nets import head, net, node, pair, shuffled_twice, up, upsampled_and_shuffled

COL2IM_WINS = by_operator(ConvTranspose=4.0, Col2Im=1.0, DepthToSpace=3.0, Transpose=2.0)
CONV_TRANSPOSE_WINS = by_operator(Conv=1.0, Col2Im=2.0, DepthToSpace=3.0, Transpose=4.0)
PLANNERS = (
    *(plan_conv, plan_separable, plan_matrix, plan_reshuffle),
    *(chain_after, chain_from, region_after, region_from),
)


def decoder() -> ModelProto:
    """Two layers whose forms are all kinds of chains and regions, and a Conv to two channels."""
    return net(
        up("x", "a", "first"),
        node("Relu", ["a"], ["b"], name="relu"),
        up("b", "c", "second", "k4"),
        node("Tanh", ["c"], ["d"], name="tanh"),
        node("Conv", ["d", "k3"], ["y"], name="last", pads=[1] * 4),
    )


def depthwise() -> ModelProto:
    """A layer whose kernels are all the same product."""
    proto = conv_transpose(integers(4, 1, 4, 4), (5, 6), strides=[2, 2], group=4, opset=18)
    proto.graph.initializer[0].CopyFrom(tensor("w", 0 * integers(4, 1, 4, 4) + 1))
    return proto


MODELS: dict[str, Callable[[], ModelProto]] = {
    "pair": pair,
    "chain": head,
    "region": decoder,
    "product": depthwise,
    "pixel shuffles": shuffled_twice,
    "pixel shuffles after a layer": upsampled_and_shuffled,
}


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each planner was called, wherever it is called from, and the model viewed."""
    calls: Counter[str] = Counter()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def count(*given: Any, **named: Any) -> Any:
            calls[function.__name__] += 1
            return function(*given, **named)

        return count

    modules = [module for name, module in sys.modules.items() if name.startswith("deployconv")]
    for function in (*PLANNERS, view):
        for module in modules:
            if vars(module).get(function.__name__) is function:
                monkeypatch.setattr(module, function.__name__, counted(function))
    return calls


def listed(proto: ModelProto, **options: Any) -> Candidates:
    """The candidates of a model, each site asked for its forms."""
    candidates = Candidates.of(load(proto), RewriteOptions(**options))
    for site in candidates.planning.default:
        candidates.of_site(site)
    return candidates


def choices_of(candidates: Candidates) -> list[dict[str, Choice]]:
    """Each form of each site by itself, and the first forms of all sites together."""
    offered = {site.id: candidates.of_site(site) for site in candidates.planning.default}
    alone = [{name: option.choice} for name, forms in offered.items() for option in forms]
    return [{}, *alone, {name: forms[0].choice for name, forms in offered.items() if forms}]


def test_the_models_have_forms_of_every_kind(planned: Counter[str]) -> None:
    kinds = set()
    for build in MODELS.values():
        candidates = listed(build(), policy="fastest")
        for site in candidates.planning.default:
            kinds |= {type(option.rewrite).__name__ for option in candidates.of_site(site)}
    assert kinds == {
        *("PolyphaseConv", "SeparableConv", "MatrixProduct", "Reshuffle", "Chain", "Region")
    }
    assert set(planned) >= {function.__name__ for function in PLANNERS}


@pytest.mark.parametrize("cost", [COL2IM_WINS, CONV_TRANSPOSE_WINS], ids=["faster", "slower"])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_no_site_is_planned_again_while_forms_are_timed(
    scripted: ScriptedBackend, planned: Counter[str], build: Callable[[], ModelProto], cost: Any
) -> None:
    scripted.cost = cost
    proto = build()
    candidates = listed(proto, policy="fastest")
    once = planned.copy()
    assert once["plan_conv"] + once["plan_reshuffle"] > 0
    assert once["view"] == 1
    tuned = tune(candidates, proto.SerializeToString(), TunerOptions(cache=False), predict)
    apply(candidates.with_choices(tuned.choices))
    assert scripted.comparisons
    assert planned == once


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_a_whole_rewrite_plans_no_more_than_the_listing(
    scripted: ScriptedBackend, planned: Counter[str], build: Callable[[], ModelProto]
) -> None:
    """From the model to the one that is written, certificates included."""
    scripted.cost = COL2IM_WINS
    listed(build(), policy="fastest")
    once = planned.copy()
    planned.clear()
    done = deployconv.rewrite(build(), policy="fastest", cache=False, bench=False)
    assert any(site.status == "rewritten" for site in done.sites)
    assert planned == once


def test_at_the_original_opset_only_the_chosen_sites_are_planned(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form that is chosen does not need the opset at which all forms were listed."""
    scripted.cost = lambda proto: 10.0 - rewritten_with_dcr(proto)
    listed_at: dict[int, set[str]] = {17: set(), 18: set()}
    of_site = Candidates.of_site

    def listing(candidates: Candidates, site: PlannedSite) -> tuple[Option, ...]:
        listed_at[candidates.model.info.opset].add(site.id)
        return of_site(candidates, site)

    monkeypatch.setattr(Candidates, "of_site", listing)
    done = deployconv.rewrite(pair(17), policy="fastest", cache=False, bench=False)
    assert [site.status for site in done.sites] == ["kept", "rewritten"]
    assert listed_at == {17: {"main/large"}, 18: {"main/large", "main/small"}}


def rewritten_with_dcr(proto: ModelProto) -> float:
    """Milliseconds that are saved: five if the larger of the sites of `pair` has DepthToSpace."""
    nodes = {node.op_type for node in proto.graph.node if "large" in node.name}
    return 5.0 if "DepthToSpace" in nodes else 0.0


def test_forms_are_planned_when_they_are_first_asked_for(planned: Counter[str]) -> None:
    candidates = Candidates.of(load(pair()), RewriteOptions(policy="fastest"))
    small, large = candidates.planning.default
    before = planned.copy()
    first = candidates.of_site(small)
    assert planned["plan_conv"] > before["plan_conv"]
    after = planned.copy()
    assert candidates.of_site(small) is first
    assert planned == after
    candidates.of_site(large)
    assert planned["plan_conv"] > after["plan_conv"]


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_what_is_chosen_is_the_rewrite_that_was_listed(build: Callable[[], ModelProto]) -> None:
    candidates = listed(build(), policy="fastest")
    for site in candidates.planning.default:
        for option in candidates.of_site(site):
            planning = candidates.with_choices({site.id: option.choice})
            (chosen,) = (found for found in planning.sites if found.rewrite is not None)
            assert chosen.id == site.id
            assert chosen.rewrite is option.rewrite
            assert chosen.report.form == option.rewrite.summary.form
            assert chosen.report.shuffle == option.rewrite.summary.shuffle


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_choosing_and_writing_leave_the_model_as_it_is(build: Callable[[], ModelProto]) -> None:
    candidates = listed(build(), policy="fastest")
    proto, copy = candidates.model.proto, ModelProto()
    copy.CopyFrom(candidates.model.proto)
    before = proto.SerializeToString(deterministic=True)
    written = {}
    for turn, (number, choices) in product(range(2), enumerate(choices_of(candidates))):
        planning = candidates.with_choices(choices)
        assert planning.view.model.proto is proto
        assert proto.SerializeToString(deterministic=True) == before
        after = apply(planning).proto
        assert proto.SerializeToString(deterministic=True) == before
        # Nor does what was written before change what is written next.
        content = after.SerializeToString(deterministic=True)
        assert written.setdefault(number, content) == content, turn
    assert proto == copy
