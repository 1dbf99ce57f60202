"""`--policy fastest`: measurements decide, only certified forms are timed, and the result is faster
than the original."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from deployconv.errors import CheckFailed
from deployconv.graph.load import load
from deployconv.graph.splice import Spliced
from deployconv.options import FeedOptions, RewriteOptions
from deployconv.proof.certificate import Certified
from deployconv.results import Candidate, Prediction
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.planning import apply
from deployconv.search import workbench
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Choice, Decision, TunerOptions
from deployconv.search.tuner import Predict, tune
from tests.build import FLOAT, graph, model, node, ops, tensor, value
from tests.search.conftest import ScriptedBackend, by_operator, left
from tests.search.nets import (
    head,
    net,
    pair,
    shuffled,
    shuffled_twice,
    up,
    upsampled_and_shuffled,
)

COL2IM_WINS = by_operator(ConvTranspose=4.0, Col2Im=1.0, DepthToSpace=3.0, Transpose=2.0)
CONV_TRANSPOSE_WINS = by_operator(ConvTranspose=1.0, Col2Im=2.0, DepthToSpace=3.0, Transpose=4.0)


OPERATORS = ("ConvTranspose", "Col2Im", "DepthToSpace", "Transpose")
"""The operators that the forms of a site differ in."""


def tuned(source: ModelProto | Path, cache: bool = False, **options: Any) -> Decision:
    given = {key: options.pop(key) for key in ("budget", "feed", "on_progress") if key in options}
    predict = options.pop("predict", None)
    original = source if isinstance(source, Path) else source.SerializeToString()
    asked = RewriteOptions(policy="fastest", **options)
    candidates = Candidates.of(load(source), asked)
    return tune(candidates, original, TunerOptions(cache=cache, **given), predict)


def predicting(found: dict[str, dict[str, float]], **taken: Choice) -> Predict:
    """A cost model that says these milliseconds of the forms of each site, and takes these."""

    def predict(candidates: Candidates, tuner: TunerOptions) -> Decision:
        choices = {f"main/{name}": choice for name, choice in taken.items()}
        shown = {
            f"main/{name}": tuple(Prediction(form, ms, False) for form, ms in forms.items())
            for name, forms in found.items()
        }
        return Decision(choices, shown)

    return predict


def rounding() -> ModelProto:
    """The last digits of a sum decide: another order of summation moves the output."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((64, 8, 4, 4)).astype(np.float32)
    body = graph(
        [
            node("ConvTranspose", ["x", "w"], ["a"], name="up", strides=[2, 2], pads=[1] * 4),
            node("Mul", ["a", "scale"], ["b"]),
            node("Sin", ["b"], ["y"]),
        ],
        [value("x", FLOAT, [1, 64, 6, 6])],
        [value("y", FLOAT, [None] * 4)],
        [tensor("w", weight), tensor("scale", np.float32(3e3))],
    )
    return model(body, 18)


def chosen(found: Decision) -> dict[str, str]:
    return {site: str(choice) for site, choice in found.choices.items()}


def marked(candidates: tuple[Candidate | Prediction, ...]) -> list[str]:
    return [entry.name for entry in candidates if entry.chosen]


# --- what is taken


def test_each_site_takes_its_fastest_form(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    found = tuned(pair())
    assert chosen(found) == {"main/large": "crop, col2im", "main/small": "crop, col2im"}
    for candidates in found.candidates.values():
        assert candidates[0].name == "as it was"
        assert marked(candidates) == ["crop, col2im"]
    names = [entry.name for entry in found.candidates["main/large"]]
    ordinary = ["crop, col2im", "crop, two-step", "crop, dcr", "crop, crd"]
    assert names == ["as it was", *ordinary, "split, col2im", "split, dcr"]


def test_timings_are_those_of_the_comparison(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    scripted.noise = lambda model: 0.25
    candidates = tuned(net(up("x", "y", "up"))).candidates["main/up"]
    assert candidates[0] == Candidate("as it was", 5.0, 1.0, 0.75, 1.25, False)
    assert candidates[1] == Candidate("crop, col2im", 2.0, 2.5, 2.25, 2.75, True)


def test_what_is_slower_stays(scripted: ScriptedBackend) -> None:
    scripted.cost = CONV_TRANSPOSE_WINS
    found = tuned(pair())
    assert found.choices == {}
    assert {name: marked(entries) for name, entries in found.candidates.items()} == {
        "main/large": ["as it was"],
        "main/small": ["as it was"],
    }
    assert scripted.finals == []  # nothing is left to confirm


@pytest.mark.parametrize(
    ("milliseconds", "noise", "taken"),
    [
        (0.9, 0.0, True),
        (0.9, 0.05, True),
        (0.9, 0.2, False),
        (0.995, 0.0, False),
        (1.0, 0.0, False),
    ],
    ids=["faster", "beyond the noise", "within the noise", "hardly", "equal"],
)
def test_only_what_is_faster_beyond_the_noise_is_taken(
    scripted: ScriptedBackend, milliseconds: float, noise: float, taken: bool
) -> None:
    scripted.cost = lambda proto: 1.0 if left(proto) else milliseconds
    scripted.noise = lambda proto: noise
    assert bool(tuned(net(up("x", "y", "up"))).choices) is taken


def test_a_form_that_is_faster_is_preferred_to_one_that_may_be(scripted: ScriptedBackend) -> None:
    """DepthToSpace has the better ratio, but one that may as well be below 1."""
    scripted.cost = by_operator(ConvTranspose=9.0, Col2Im=7.0, DepthToSpace=5.0, Transpose=9.0)
    ops = {"DepthToSpace": 1.0}
    scripted.noise = lambda proto: max(ops.get(node.op_type, 0.01) for node in proto.graph.node)
    found = tuned(net(up("x", "y", "up")))
    assert chosen(found) == {"main/up": "crop, col2im"}
    assert marked(found.candidates["main/up"]) == ["crop, col2im"]


def test_the_site_with_more_work_comes_first_and_the_next_is_timed_with_its_form(
    scripted: ScriptedBackend,
) -> None:
    scripted.cost = COL2IM_WINS
    tuned(pair())
    large, small = scripted.comparisons
    assert [left(proto) for proto in large] == [{"small", "large"}, *[{"small"}] * 6]
    assert [left(proto) for proto in small] == [{"small"}, *[frozenset()] * 4]


def test_only_selected_sites_are_timed(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    found = tuned(pair(), only=("small",))
    assert list(found.choices) == list(found.candidates) == ["main/small"]
    assert len(scripted.comparisons) == 1


def test_form_and_shuffle_restrict_what_is_timed(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    found = tuned(pair(), form="pad", shuffle="dcr")
    assert len(found.candidates) == 2
    for candidates in found.candidates.values():
        assert [entry.name for entry in candidates] == ["as it was", "pad, dcr"]
    assert set(chosen(found).values()) == {"pad, dcr"}


def test_a_pixel_shuffle_takes_a_faster_encoding(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    assert chosen(tuned(shuffled())) == {"main/shuffle": "col2im"}


def test_a_chain_takes_other_sites_with_it(scripted: ScriptedBackend) -> None:
    scripted.cost = by_operator(ConvTranspose=4.0, Col2Im=2.0, DepthToSpace=3.0, Transpose=9.0)
    found = tuned(head())
    assert chosen(found) == {"main/first": "crop, col2im + chain"}
    assert list(found.candidates) == ["main/first"]  # the second site is not there any more
    assert len(scripted.comparisons) == 1


def test_a_site_that_a_later_chain_takes_in_has_no_form_of_its_own(
    scripted: ScriptedBackend,
) -> None:
    """The second has more work; then the chain after the first takes it in."""
    scripted.cost = by_operator(ConvTranspose=4.0, Col2Im=2.0, DepthToSpace=3.0, Transpose=9.0)
    proto = head()
    second = next(node for node in proto.graph.node if node.name == "second")
    second.input[1] = "wide"
    values = np.random.default_rng(0).integers(-4, 5, (2, 8, 2, 2)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(values, "wide"))

    found = tuned(proto)

    assert list(found.candidates) == ["main/second", "main/first"]
    assert chosen(found)["main/first"] == "crop, col2im + chain"
    assert marked(found.candidates["main/first"]) == ["crop, col2im + chain"]
    assert marked(found.candidates["main/second"]) == []


@pytest.mark.parametrize(
    ("proto", "choices"),
    [
        (shuffled_twice(), {"main/near": "col2im + pointwise"}),
        (upsampled_and_shuffled(), {"main/up": "crop, col2im + pointwise"}),
    ],
    ids=["a Conv", "a ConvTranspose"],
)
def test_pixel_shuffles_become_part_of_one(
    proto: ModelProto, choices: dict[str, str], scripted: ScriptedBackend
) -> None:
    scripted.cost = by_operator(ConvTranspose=4.0, Col2Im=2.0, DepthToSpace=3.0, Transpose=9.0)
    found = tuned(proto)
    assert chosen(found) == choices
    assert list(found.candidates) == list(choices)


# --- together


def test_sites_that_are_undecided_alone_are_taken_together(scripted: ScriptedBackend) -> None:
    """Each site is 4 % of the model, both are 8 %, and the noise is 5 %."""
    scripted.cost = lambda proto: 10.0 + 0.4 * len(left(proto))
    scripted.noise = lambda proto: 0.05
    found = tuned(pair())
    assert chosen(found) == {"main/large": "crop, col2im", "main/small": "crop, col2im"}
    assert [[left(proto) for proto in final] for final in scripted.finals] == [[frozenset()]]
    for candidates in found.candidates.values():
        assert marked(candidates) == ["crop, col2im"]
        # The timings are those of the site by itself.
        assert candidates[1].ratio == pytest.approx(10.8 / 10.4)
        assert candidates[1].low < 1.0


FORMS = {"as it was": 900.0, "crop, dcr": 500.0, "crop, col2im": 600.0}
"""Predicted milliseconds of a site that takes nearly all of a second."""


def test_without_time_for_a_site_the_prediction_is_compared_with_the_original(
    scripted: ScriptedBackend,
) -> None:
    scripted.cost, scripted.run_seconds = COL2IM_WINS, 1.0
    dcr = Choice("crop", "dcr")
    predict = predicting({"large": FORMS, "small": FORMS}, large=dcr)
    found = tuned(pair(), budget=12.0, predict=predict)
    assert chosen(found) == {"main/large": "crop, dcr"}
    assert scripted.comparisons == []
    assert [[left(proto) for proto in final] for final in scripted.finals] == [[{"small"}]]
    assert found.candidates == {
        "main/large": (
            Prediction("as it was", 900.0, False),
            Prediction("crop, dcr", 500.0, True),
            Prediction("crop, col2im", 600.0, False),
        ),
        "main/small": (
            Prediction("as it was", 900.0, True),
            Prediction("crop, dcr", 500.0, False),
            Prediction("crop, col2im", 600.0, False),
        ),
    }
    assert (found.compared, found.predicted) == ({"main/large"}, {"main/large"})


def test_the_prediction_and_what_won_are_both_compared_with_the_original(
    scripted: ScriptedBackend,
) -> None:
    scripted.cost = COL2IM_WINS
    predict = predicting({"large": FORMS}, large=Choice("crop", "dcr"))
    found = tuned(net(up("x", "y", "large")), predict=predict)
    (final,) = scripted.finals
    shuffles = [{"Col2Im", "DepthToSpace"} & set(ops(proto)) for proto in final]
    assert shuffles == [{"DepthToSpace"}, {"Col2Im"}]
    assert chosen(found) == {"main/large": "crop, col2im"}


@pytest.mark.parametrize(
    ("dcr", "taken"),
    [(1.0, "crop, dcr"), (1.9, "crop, dcr"), (2.1, "crop, col2im")],
    ids=["faster", "hardly slower", "slower"],
)
def test_the_predicted_form_is_kept_unless_another_is_faster_in_the_whole_model(
    scripted: ScriptedBackend, dcr: float, taken: str
) -> None:
    """By itself Col2Im is faster, which the whole model may contradict."""
    scripted.cost = COL2IM_WINS
    scripted.final = by_operator(ConvTranspose=4.0, Col2Im=2.0, DepthToSpace=dcr)
    predict = predicting({"large": FORMS}, large=Choice("crop", "dcr"))
    assert chosen(tuned(net(up("x", "y", "large")), predict=predict)) == {"main/large": taken}


def test_a_site_that_drowns_in_the_model_is_timed_by_itself(scripted: ScriptedBackend) -> None:
    """It takes a tenth of the time of the model."""
    scripted.cost, scripted.run_seconds = COL2IM_WINS, 0.04
    forms = {"as it was": 4.0, "crop, dcr": 3.0}
    found = tuned(pair(), predict=predicting({"small": forms}, small=Choice("crop", "dcr")))
    alone = [
        not any(node.name == "mix" for node in one[0].graph.node) for one in scripted.comparisons
    ]
    assert sorted(alone) == [False, True]
    assert [node.name for node in scripted.comparisons[alone.index(True)][0].graph.node] == [
        "small"
    ]
    assert all(entry.alone for entry in found.candidates["main/small"])
    assert not any(entry.alone for entry in found.candidates["main/large"])
    assert chosen(found) == {"main/large": "crop, col2im", "main/small": "crop, col2im"}


def test_a_prediction_that_is_slower_is_not_taken(scripted: ScriptedBackend) -> None:
    scripted.cost, scripted.run_seconds = CONV_TRANSPOSE_WINS, 1.0
    predict = predicting({"up": FORMS}, up=Choice("crop", "dcr"))
    found = tuned(net(up("x", "y", "up")), budget=12.0, predict=predict)
    assert chosen(found) == {}
    assert marked(found.candidates["main/up"]) == ["as it was"]


def test_the_site_that_is_predicted_to_take_longest_comes_first(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    predict = predicting({"large": {"as it was": 1.0}, "small": {"as it was": 9.0, "crop, crd": 8}})
    assert list(tuned(pair(), predict=predict).candidates) == ["main/small", "main/large"]


def test_the_prediction_is_for_the_sizes_that_are_timed(scripted: ScriptedBackend) -> None:
    asked: list[FeedOptions] = []

    def predict(candidates: Candidates, tuner: TunerOptions) -> Decision:
        asked.append(tuner.feed)
        return Decision()

    proto = pair()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    tuned(proto, predict=predict, feed=FeedOptions({"x": (1, 2, 8, 6)}))
    assert asked == [FeedOptions({"x": (1, 2, 8, 6)})]


# --- the last comparison, with the original


def test_the_whole_model_is_timed_against_the_original(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    tuned(pair())
    assert [[left(proto) for proto in final] for final in scripted.finals] == [[frozenset()]]


def test_what_does_not_hold_is_dropped_the_smallest_speedup_first(
    scripted: ScriptedBackend,
) -> None:
    gains = {"large": 4.0, "small": 1.0}
    scripted.cost = lambda proto: 10.0 + sum(gains[name] for name in left(proto))
    holds = {frozenset({"large", "small"}): 2.0, frozenset({"small"}): 1.0, frozenset(): 3.0}
    scripted.final = lambda proto: holds[left(proto)]
    found = tuned(pair())
    assert list(found.choices) == ["main/large"]
    assert [[left(proto) for proto in final] for final in scripted.finals] == [
        [frozenset()],
        [{"small"}],
    ]
    assert marked(found.candidates["main/small"]) == ["as it was"]
    assert marked(found.candidates["main/large"]) == ["crop, col2im"]


@pytest.mark.parametrize("rewritten", [2.0, 1.0], ids=["slower", "equal"])
def test_if_nothing_holds_the_original_stays(scripted: ScriptedBackend, rewritten: float) -> None:
    scripted.cost = COL2IM_WINS
    scripted.final = lambda proto: 1.0 if len(left(proto)) == 2 else rewritten
    found = tuned(pair())
    assert found.choices == {}
    assert len(scripted.finals) == 2
    assert {name: marked(entries) for name, entries in found.candidates.items()} == {
        "main/large": ["as it was"],
        "main/small": ["as it was"],
    }


# --- proof


def test_whatever_is_timed_was_certified_before(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    certified: list[Rewrite] = []
    real = workbench.certify

    def certify(rewrite: Rewrite, name: str, seed: int) -> Certified:
        certified.append(rewrite)
        return real(rewrite, name, seed)

    monkeypatch.setattr(workbench, "certify", certify)
    scripted.cost = COL2IM_WINS
    before_comparisons: list[int] = []
    real_compare = scripted.compare

    def compare(*args: Any) -> Any:
        before_comparisons.append(len(certified))
        return real_compare(*args)

    monkeypatch.setattr(workbench, "time_against_first", compare)
    found = tuned(pair())
    timed = [len(entries) - 1 for entries in found.candidates.values()]
    assert timed == [6, 4]
    assert before_comparisons == [6, 10]


def test_a_form_without_certificate_is_not_timed(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = workbench.certify

    def certify(rewrite: Rewrite, name: str, seed: int) -> Certified:
        return replace(real(rewrite, name, seed), verdict="failed", failure="first at [0]")

    monkeypatch.setattr(workbench, "certify", certify)
    expected = r"main/up: certificate failed for crop, col2im \(first at \[0\]\): nothing"
    with pytest.raises(CheckFailed, match=expected):
        tuned(net(up("x", "y", "up")))
    assert scripted.comparisons == []


def test_a_variant_that_computes_something_else_is_not_timed(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = workbench.apply

    def apply(planning: Any) -> Spliced:
        """One weight of the new Conv is another."""
        after = real(planning)
        for initializer in after.proto.graph.initializer:
            if initializer.name in after.added and initializer.data_type == FLOAT:
                values = numpy_helper.to_array(initializer).copy()
                values.flat[0] += 1
                initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
        return after

    monkeypatch.setattr(workbench, "apply", apply)
    expected = r"parity failed with main/up \(crop, col2im\): output 'y': max \|difference\|.*: no"
    with pytest.raises(CheckFailed, match=expected):
        tuned(net(up("x", "y", "up")))
    assert scripted.comparisons == []


def test_a_model_that_moves_by_its_own_rounding_is_judged_by_that(
    scripted: ScriptedBackend,
) -> None:
    scripted.cost = COL2IM_WINS
    assert chosen(tuned(rounding())) == {"main/up": "crop, col2im"}


def test_the_original_is_left_untouched(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    original = pair()
    loaded = load(original)
    raw = original.SerializeToString(deterministic=True)
    options = RewriteOptions(policy="fastest")
    candidates = Candidates.of(loaded, options)
    tune(candidates, original.SerializeToString(), TunerOptions(cache=False))
    assert loaded.proto.SerializeToString(deterministic=True) == raw
    assert original.SerializeToString(deterministic=True) == raw


# --- time and memory


@pytest.mark.parametrize(
    ("comparison_seconds", "budgets"),
    [(0.0, [9.5, 19.0, 21.0]), (10.0, [9.5, 9.0, 1.0]), (30.0, [9.5])],
    ids=["left over", "as planned", "overdrawn"],
)
def test_the_budget_is_shared_between_the_sites(
    scripted: ScriptedBackend, comparison_seconds: float, budgets: list[float]
) -> None:
    """Two seconds each are kept for the comparison with the original and for the memory."""
    scripted.cost, scripted.comparison_seconds = COL2IM_WINS, comparison_seconds
    tuned(pair(), budget=23.0)
    assert scripted.budgets == pytest.approx(budgets)


@pytest.mark.parametrize(
    ("budget", "run_seconds", "load_seconds", "memory_seconds"),
    [
        (8.0, 0.0005, 0.01, 0.5),
        (8.0, 0.03, 0.5, 300.0),
        (8.0, 0.3, 0.01, 0.5),
        (8.0, 0.3, 0.5, 300.0),
        (8.0, 1.0, 0.01, 300.0),
        (8.0, 5.0, 0.5, 0.5),
        (8.0, 100.0, 0.5, 300.0),
        (1.0, 0.03, 0.5, 0.5),
        (60.0, 1.0, 0.5, 300.0),
        (60.0, 5.0, 0.01, 0.5),
    ],
)
def test_a_budget_is_a_budget(
    clocked: ScriptedBackend,
    budget: float,
    run_seconds: float,
    load_seconds: float,
    memory_seconds: float,
) -> None:
    """It takes at most one and a half times as long, and one run of the model."""
    clocked.run_seconds, clocked.load_seconds = run_seconds, load_seconds
    clocked.memory_seconds, clocked.cost = memory_seconds, COL2IM_WINS
    large = {"as it was": 6e2 * run_seconds, "crop, dcr": 5e2 * run_seconds}
    small = {"as it was": 2e2 * run_seconds, "crop, dcr": 1e2 * run_seconds}
    dcr = Choice("crop", "dcr")
    predict = predicting({"large": large, "small": small}, large=dcr, small=dcr)
    tuned(pair(), budget=budget, predict=predict)
    assert clocked.now <= 1.5 * budget + run_seconds + load_seconds


def test_most_of_a_budget_is_used(clocked: ScriptedBackend) -> None:
    """Noise hides which form is the fastest."""
    generator = np.random.default_rng(0)
    clocked.run_seconds, clocked.memory_seconds = 0.02, 0.5
    clocked.cost = lambda proto: float(np.exp(0.1 * generator.standard_normal()))
    tuned(pair(), budget=20.0)
    assert 15.0 < clocked.now <= 20.0


@pytest.mark.parametrize("seed", range(6))
def test_what_is_taken_is_never_slower_than_what_is_predicted(
    clocked: ScriptedBackend, seed: int
) -> None:
    """The operators take other times than predicted, and a neighbour makes runs slower at times."""
    generator = np.random.default_rng(seed)
    times = dict(zip(OPERATORS, generator.uniform(0.5, 4.0, 4), strict=True))
    truth, level = by_operator(**times), 0.0

    def noisy(proto: ModelProto) -> float:
        nonlocal level
        level = 0.98 * level + 0.04 * float(generator.standard_normal())
        return truth(proto) * float(np.exp(level + 0.02 * generator.standard_normal()))

    clocked.cost, clocked.run_seconds, clocked.memory_seconds = noisy, 0.01, 0.5
    predicted = {
        name: Choice("crop", ("dcr", "col2im", "two-step")[generator.integers(3)])
        for name in ("large", "small")
    }
    ms = {"as it was": 6.0, **{str(choice): 3.0 for choice in predicted.values()}}
    predict = predicting({"large": ms, "small": ms}, **predicted)
    candidates = Candidates.of(load(pair()), RewriteOptions(policy="fastest"))

    def seconds(choices: Any) -> float:
        return truth(apply(candidates.with_choices(choices)).proto)

    found = tuned(pair(), budget=10.0, predict=predict)
    cost = {f"main/{name}": choice for name, choice in predicted.items()}
    assert seconds(found.choices) <= 1.03 * min(seconds(cost), seconds({}))


def test_the_floor_of_the_original_is_measured_once(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All candidates differ from the original by more than float32 tolerates."""
    measured: list[bool] = []
    prepare = scripted.prepare

    def counted(model: Any, *, optimise: bool = True, **options: Any) -> Any:
        measured.append(not optimise)
        return prepare(model, optimise=optimise, **options)

    monkeypatch.setattr(scripted, "prepare", counted)
    scripted.cost = COL2IM_WINS
    found = tuned(rounding())
    assert len(found.candidates["main/up"]) > 3
    assert sum(measured) == 1


def test_without_time_for_the_floor_the_parity_of_what_is_written_decides(
    scripted: ScriptedBackend,
) -> None:
    scripted.cost, scripted.run_seconds = COL2IM_WINS, 1.0
    predict = predicting({"up": FORMS}, up=Choice("crop", "col2im"))
    assert chosen(tuned(rounding(), budget=6.0, predict=predict)) == {"main/up": "crop, col2im"}
    assert scripted.now <= 9.0


def test_if_time_is_short_the_likely_forms_are_timed(
    scripted: ScriptedBackend, tmp_path: Path
) -> None:
    """There are 24 seconds: two forms take 23 runs and are made in six, one takes 18 in all."""
    path = tmp_path / "net.onnx"
    onnx.save(net(up("x", "y", "up")), path)
    scripted.cost, scripted.run_seconds = COL2IM_WINS, 1.0
    predict = predicting({"up": FORMS}, up=Choice("crop", "dcr"))
    found = tuned(path, cache=True, budget=60.0, predict=predict)
    assert [entry.name for entry in found.candidates["main/up"]] == ["as it was", "crop, dcr"]
    assert chosen(found) == {"main/up": "crop, dcr"}

    # What was timed is no answer for a call with more time.
    again = tuned(path, cache=True, budget=200.0, predict=predict)
    assert len(again.candidates["main/up"]) == 5
    assert chosen(again) == {"main/up": "crop, col2im"}


def test_progress_is_told(scripted: ScriptedBackend) -> None:
    parts: list[float] = []
    scripted.cost = COL2IM_WINS
    tuned(pair(), on_progress=parts.append)
    assert parts == pytest.approx([1 / 3, 2 / 3])


def test_what_was_measured_once_is_not_timed_again(
    scripted: ScriptedBackend, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(pair(), path)
    scripted.cost = COL2IM_WINS
    first = tuned(path, cache=True)
    scripted.cost = CONV_TRANSPOSE_WINS  # which no one looks at any more
    scripted.final = COL2IM_WINS
    again = tuned(path, cache=True)
    assert again == first
    assert len(scripted.comparisons) == 2
    assert len(scripted.finals) == 2  # that the whole holds is seen each time


@pytest.mark.parametrize(
    ("cache", "options"),
    [(False, {}), (True, {"only": ("large", "small")}), (True, {"form": "pad"})],
    ids=["--no-cache", "--only", "--form"],
)
def test_another_call_is_timed_anew(
    scripted: ScriptedBackend, tmp_path: Path, cache: bool, options: dict[str, Any]
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(pair(), path)
    scripted.cost = CONV_TRANSPOSE_WINS
    tuned(path, cache=True)
    tuned(path, cache=cache, **options)
    assert len(scripted.comparisons) > 2


def test_a_broken_cache_costs_time_only(scripted: ScriptedBackend, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(pair(), path)
    scripted.cost = COL2IM_WINS
    first = tuned(path, cache=True)
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:-20])
    assert tuned(path, cache=True) == first
    assert len(scripted.comparisons) == 4


def test_other_forms_in_the_cache_are_not_taken_for_these(
    scripted: ScriptedBackend, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(net(up("x", "y", "up")), path)
    scripted.cost = COL2IM_WINS
    tuned(path, cache=True)
    (file,) = (file for file in (tmp_path / "cache").rglob("*") if file.is_file())
    file.write_text(file.read_text().replace("crop, col2im", "crop, magic"))
    scripted.comparisons.clear()
    assert chosen(tuned(path, cache=True)) == {"main/up": "crop, col2im"}
    assert len(scripted.comparisons) == 1  # what another version has measured is measured again


def test_a_comparison_has_all_forms_of_one_site(scripted: ScriptedBackend) -> None:
    scripted.cost = CONV_TRANSPOSE_WINS
    tuned(net(up("x", "y", "up")))
    (models,) = scripted.comparisons
    operators = [Counter(node.op_type for node in proto.graph.node) for proto in models]
    assert operators[0] == {"ConvTranspose": 1}
    shuffles = [{"Col2Im", "Transpose", "DepthToSpace"} & set(found) for found in operators[1:]]
    assert shuffles == [{"Col2Im"}, {"Transpose"}, {"DepthToSpace"}, {"DepthToSpace"}]
