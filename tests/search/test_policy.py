"""What each policy writes and reports, and at which opset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto, parser

import deployconv
from deployconv.errors import CheckFailed, UsageError
from deployconv.graph.view import View, view
from deployconv.proof.certificate import Certified
from deployconv.results import Prediction, Rewriting
from deployconv.rewrites import planning
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.emit import Emitter
from deployconv.search import policy, workbench
from deployconv.search.choice import Choice, Decision
from tests.build import (
    FLOAT,
    assert_equal,
    assert_rewritten,
    conv_transpose,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    run,
    tensor,
    upsampler,
    value,
)
from tests.search.conftest import ScriptedBackend, by_operator
from tests.search.nets import head, net, pair, shuffled, up

COL2IM_WINS = by_operator(ConvTranspose=4.0, Col2Im=1.0, DepthToSpace=3.0, Transpose=2.0)
DCR_WINS = by_operator(ConvTranspose=4.0, Col2Im=3.0, DepthToSpace=1.0, Transpose=9.0)
NOTHING_WINS = by_operator(Col2Im=1.0, DepthToSpace=1.0, Transpose=1.0)


def opset(model: ModelProto | None) -> int:
    assert model is not None
    return int(model.opset_import[0].version)


def unliftable() -> ModelProto:
    """A Split into equal parts, for which opset 18 wants their number, beside a site."""
    body = graph(
        [
            node("Split", ["x"], ["m", "n"], name="halves", axis=3),
            node("Concat", ["n", "m"], ["a"], name="turned", axis=3),
            node("ConvTranspose", ["a", "w"], ["y"], name="up", strides=[2, 2]),
        ],
        [value("x", FLOAT, [1, 2, 4, 6])],
        [value("y", FLOAT, [None] * 4)],
        [tensor("w", integers(2, 2, 2, 2))],
    )
    return model(body)


# --- all


def test_a_model_that_keeps_its_opset_is_viewed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[View] = []

    def counting(*arguments: object) -> View:
        seen.append(view(*arguments))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(planning, "view", counting)
    deployconv.rewrite(upsampler(), verify=False, bench=False)
    assert len(seen) == 1


def test_col2im_if_the_opset_may_be_raised() -> None:
    original = upsampler()
    after = assert_rewritten(original, shuffle="col2im", upgrade_opset=True)
    assert ops(after)["Col2Im"] == 1
    assert (opset(original), opset(after)) == (17, 18)


def test_the_report_tells_of_the_model_that_was_read() -> None:
    done = deployconv.rewrite(upsampler(), shuffle="col2im", upgrade_opset=True, bench=False)
    assert done.source.opset == 17
    assert done.warnings == ()


def test_the_opset_is_raised_if_only_then_the_sizes_are_known() -> None:
    """The shape inference of ONNX follows the sizes of a Resize from opset 18 on."""
    corners = 'Resize<mode="linear", coordinate_transformation_mode="align_corners">'
    original = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 13]> g (float[n,8,d] x) => (float[] y)
        <int64[3] m = {{1, 1, 3}}, float[3] half = {{1, 1, 0.5}}>
        {{
            s = Shape(x) t = Mul(s, m)
            a = {corners}(x, , , t) b = Conv(a, w) c = {corners}(b, , half) y = Conv(c, v)
        }}"""
    )
    original.graph.initializer.extend(
        [tensor("w", integers(2, 8, 1)), tensor("v", integers(1, 2, 1))]
    )
    done = deployconv.rewrite(original, policy="cost", bench=False)
    assert "rewritten" in [site.status for site in done.sites]
    assert opset(done.model) == 18
    low = deployconv.rewrite(original, policy="cost", bench=False, upgrade_opset=False)
    assert {site.status for site in low.sites} == {"skipped"}
    assert opset(low.model) == 13


def test_no_col2im_if_the_opset_may_not_be_raised() -> None:
    done = deployconv.rewrite(upsampler(), shuffle="col2im", bench=False)
    assert opset(done.model) == 17
    assert done.warnings == ("main/up: shuffle 'col2im' does not fit, 'dcr' taken",)


@pytest.mark.parametrize("policy", ["all", "fastest"])
def test_a_warning_if_the_opset_cannot_be_raised(policy: Any, scripted: ScriptedBackend) -> None:
    scripted.cost = DCR_WINS
    done = deployconv.rewrite(
        unliftable(), policy=policy, upgrade_opset=True, cache=False, bench=False
    )
    assert opset(done.model) == 17
    assert [site.shuffle for site in done.sites] == ["dcr"]
    assert done.warnings == ("opset not raised: Split changed between opset 17 and 18",)


@pytest.mark.parametrize(
    ("original", "options"),
    [(upsampler(), {}), (upsampler(), {"shuffle": "two-step"}), (upsampler(opset=20), {})],
    ids=["auto", "two-step", "later already"],
)
def test_an_opset_that_nothing_needs_is_not_raised(
    original: ModelProto, options: dict[str, Any]
) -> None:
    done = deployconv.rewrite(original, upgrade_opset=True, bench=False, **options)
    assert opset(done.model) == opset(original)
    assert done.warnings == ()


def test_a_model_of_other_operators_alone_has_nothing_to_raise() -> None:
    """com.microsoft only: there is no version of the ONNX operators in it."""
    body = graph(
        [node("Gelu", ["x"], ["y"], domain="com.microsoft")],
        [value("x", FLOAT, [2])],
        [value("y", FLOAT, [2])],
    )
    proto = model(body, domains=("com.microsoft",))
    del proto.opset_import[0]
    done = deployconv.rewrite(proto, upgrade_opset=True, bench=False)
    assert done.model == proto
    assert done.warnings == ("opset not raised: it imports no ONNX operators",)


# --- fastest


def fastest(original: ModelProto | Path, **options: Any) -> Rewriting:
    return deployconv.rewrite(original, policy="fastest", cache=False, bench=False, **options)


def test_the_opset_is_raised_for_what_is_faster(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    original = pair(opset=17)
    done = fastest(original)
    assert done.model is not None
    assert (opset(original), opset(done.model)) == (17, 18)
    assert ops(done.model)["Col2Im"] == 2
    assert [site.certificate for site in done.sites] == ["exact", "exact"]
    assert_equal(run(original, feeds_for(original)), run(done.model, feeds_for(original)))


def test_the_opset_stays_if_another_form_is_faster(scripted: ScriptedBackend) -> None:
    scripted.cost = DCR_WINS
    done = fastest(pair(opset=17))
    assert opset(done.model) == 17
    assert [site.shuffle for site in done.sites] == ["dcr", "dcr"]
    assert "crop, col2im" in [entry.name for entry in done.sites[0].candidates]


def test_the_opset_stays_if_the_call_says_so(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    done = fastest(pair(opset=17), upgrade_opset=False)
    assert opset(done.model) == 17
    assert [site.shuffle for site in done.sites] == ["dcr", "dcr"]


def test_no_warning_if_nobody_asked_for_the_opset_that_cannot_be_raised(
    scripted: ScriptedBackend,
) -> None:
    scripted.cost = COL2IM_WINS
    assert fastest(unliftable()).warnings == ()


def test_what_is_slower_stays_with_its_reason_and_timings(
    scripted: ScriptedBackend, tmp_path: Path
) -> None:
    original, output = pair(opset=17), tmp_path / "out.onnx"
    scripted.cost = NOTHING_WINS
    done = fastest(original, output=output)
    assert onnx.load(output) == original
    for site in done.sites:
        assert (site.status, site.form, site.shuffle) == ("kept", None, None)
        assert site.reason is not None
        assert site.reason.code == "slower"
        assert [entry.name for entry in site.candidates if entry.chosen] == ["as it was"]


def reasons(done: Rewriting) -> list[tuple[str, str, str]]:
    """Status, code and the beginning of the text of each site's reason."""
    return [
        (site.status, site.reason.code, site.reason.text[:20]) for site in done.sites if site.reason
    ]


@pytest.mark.parametrize(
    ("forms", "taken", "budget", "code", "text"),
    [
        ((9.0, 8.9), False, 2.0, "slower", "no other form is pre"),
        ((), False, 2.0, "no-time", "there was no time to"),
        ((900.0, 500.0), True, 11.0, "slower", "together with the ot"),
        ((900.0, 500.0), True, 90.0, "slower", "no other form was me"),
    ],
    ids=["predicted", "neither", "compared with the original", "raced"],
)
def test_what_is_neither_predicted_nor_raced_is_not_called_slower(
    scripted: ScriptedBackend,
    monkeypatch: pytest.MonkeyPatch,
    forms: tuple[float, ...],
    taken: bool,
    budget: float,
    code: str,
    text: str,
) -> None:
    """A run takes a second."""
    scripted.cost, scripted.run_seconds = NOTHING_WINS, 1.0
    names = zip(("as it was", "crop, dcr"), forms, strict=False)
    shown = tuple(Prediction(name, ms, False) for name, ms in names)
    choices = {"main/up": Choice("crop", "dcr")} if taken else {}
    monkeypatch.setattr(policy, "predict", lambda *_: Decision(choices, {"main/up": shown}))
    done = fastest(net(up("x", "y", "up")), budget=budget)
    assert reasons(done) == [("kept", code, text)]


@pytest.mark.parametrize(("budget", "told"), [(3.0, True), (60.0, False)])
def test_without_time_what_is_predicted_is_taken_and_told(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, budget: float, told: bool
) -> None:
    """A run takes a second; so ``fastest`` is not slower than ``cost`` however short the time."""
    scripted.cost, scripted.run_seconds = COL2IM_WINS, 1.0
    shown = (Prediction("as it was", 900.0, False), Prediction("crop, col2im", 500.0, False))
    decision = Decision({"main/up": Choice("crop", "col2im")}, {"main/up": shown})
    monkeypatch.setattr(policy, "predict", lambda *_: decision)
    done = fastest(net(up("x", "y", "up")), budget=budget)
    assert [site.status for site in done.sites] == ["rewritten"]
    assert any("no time to compare" in warning for warning in done.warnings) is told


@pytest.mark.parametrize(("threads", "told"), [(2, False), (3, True)], ids=["as fitted", "more"])
def test_cost_says_that_it_extrapolates_to_more_threads(threads: int, told: bool) -> None:
    done = deployconv.rewrite(pair(), policy="cost", threads=threads, verify=False, bench=False)
    assert any("extrapolates to 3" in warning for warning in done.warnings) is told


# --- a form that fails its proof


def spoiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """All new Convs read other pixels than they should."""
    emit = PolyphaseConv.emit

    def wrong(rewrite: PolyphaseConv, emitter: Emitter) -> None:
        emit(replace(rewrite, axes=rewrite.axes[::-1]), emitter)

    monkeypatch.setattr(PolyphaseConv, "emit", wrong)


def lopsided() -> ModelProto:
    return conv_transpose(integers(2, 3, 4, 4), (5, 6), strides=[2, 2], pads=[1, 0, 2, 1], opset=18)


def test_a_failed_certificate_has_a_report(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch)
    with pytest.raises(CheckFailed, match="main/up: certificate failed for crop, ") as caught:
        fastest(lopsided(), shuffle="dcr")
    result = caught.value.result
    assert result is not None
    (site,) = result.sites
    assert (site.status, site.form, site.certificate) == ("rewritten", "crop", "failed")
    assert site.certificate_failure
    assert result.parity is None
    assert [(step.step, step.reason) for step in result.not_run] == [
        ("parity", "a certificate failed"),
        ("latency", "a certificate failed"),
    ]


def test_a_failed_parity_has_a_report(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch)
    exact = Certified("exact", lambda: None)  # type: ignore[arg-type]
    monkeypatch.setattr(workbench, "certify", lambda *_: exact)
    with pytest.raises(CheckFailed, match="parity failed with main/up ") as caught:
        fastest(lopsided(), shuffle="dcr")
    result = caught.value.result
    assert result is not None
    assert [site.certificate for site in result.sites] == ["exact"]
    assert result.parity is not None
    assert not result.parity.passed
    assert [(step.step, step.reason) for step in result.not_run] == [("latency", "parity failed")]


def test_the_reason_says_that_it_is_the_memory(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    scripted.memory = lambda proto: 100 if "ConvTranspose" in ops(proto) else 111
    (site,) = fastest(net(up("x", "y", "up"))).sites
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("kept", "slower")
    assert site.reason.text == "faster forms take the model more than 1.1 times the memory"


@pytest.mark.parametrize(("fitted", "shown"), [(True, 5), (False, 0)], ids=["fitted", "not"])
def test_only_a_fitted_cost_model_replaces_measurements(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, fitted: bool, shown: int
) -> None:
    scripted.cost, scripted.run_seconds = COL2IM_WINS, 1.0
    table = replace(policy.TABLES["ort"], fitted=fitted)
    monkeypatch.setattr(policy, "TABLES", {"ort": table})
    (site,) = fastest(net(up("x", "y", "up")), budget=5.0).sites
    assert len([entry for entry in site.candidates if isinstance(entry, Prediction)]) == shown


def test_under_strict_a_slower_site_counts_as_left_alone(scripted: ScriptedBackend) -> None:
    scripted.cost = NOTHING_WINS
    with pytest.raises(CheckFailed, match="--strict: left alone: main/small, main/large"):
        fastest(pair(), strict=True)


def test_a_pixel_shuffle_that_is_fast_enough_is_not_left_alone(scripted: ScriptedBackend) -> None:
    scripted.cost = NOTHING_WINS
    (site,) = fastest(shuffled(), strict=True).sites
    assert site.reason is not None
    assert site.reason.code == "already-lowered"
    assert len(site.candidates) > 1


def test_a_pixel_shuffle_takes_a_faster_encoding(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    (site,) = fastest(shuffled()).sites
    assert (site.status, site.shuffle, site.certificate) == ("rewritten", "col2im", "exact")


def test_a_site_that_cannot_be_rewritten_keeps_its_reason(scripted: ScriptedBackend) -> None:
    body = graph(
        [up("x", "y", "up")],
        [value("x", FLOAT, [1, 2, 4, 6]), value("k2", FLOAT, [2, 2, 2, 2])],
        [value("y", FLOAT, [None] * 4)],
    )
    (site,) = fastest(model(body)).sites
    assert site.reason is not None
    assert site.reason.code == "runtime-weight"
    assert site.candidates == ()


def test_only_leaves_the_others_alone(scripted: ScriptedBackend) -> None:
    scripted.cost = COL2IM_WINS
    small, large = fastest(pair(), only=("large",)).sites
    assert small.reason is not None
    assert (small.status, small.reason.code) == ("kept", "not-selected")
    assert small.candidates == ()
    assert large.status == "rewritten"


def test_a_chain_is_written_and_proved_as_one(scripted: ScriptedBackend) -> None:
    scripted.cost = by_operator(ConvTranspose=4.0, Col2Im=2.0, DepthToSpace=3.0, Transpose=9.0)
    original = head(opset=17)
    done = fastest(original)
    assert done.model is not None
    assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")] * 2
    assert ops(done.model)["Col2Im"] == 1
    assert ops(done.model)["ConvTranspose"] == 0
    assert opset(done.model) == 18


def test_a_model_without_a_site_comes_back_as_it_was(scripted: ScriptedBackend) -> None:
    proto = net(node("Relu", ["x"], ["y"]))
    assert fastest(proto).model == proto
    assert scripted.comparisons == []


@pytest.mark.parametrize("most", [-0.5, float("nan")])
def test_an_impossible_memory_limit(most: float) -> None:
    with pytest.raises(UsageError, match="max_memory"):
        deployconv.rewrite(pair(), policy="fastest", max_memory=most)


def test_a_policy_that_is_not_known() -> None:
    with pytest.raises(UsageError, match="policy 'quickest' is not known: choose"):
        deployconv.rewrite(pair(), policy="quickest")  # type: ignore[arg-type]
