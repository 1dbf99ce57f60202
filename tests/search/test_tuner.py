"""What is measured decides; what was not proved is not timed; the original has the last word."""

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
from deployconv.search import workbench
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Choice, Tuned, TunerOptions
from deployconv.search.tuner import Predict, tune
from tests.build import FLOAT, graph, model, node, tensor, value
from tests.search.conftest import Track, by_operator, left
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


def tuned(source: ModelProto | Path, cache: bool = False, **options: Any) -> Tuned:
    given = {key: options.pop(key) for key in ("budget", "feed", "on_progress") if key in options}
    predict = options.pop("predict", None)
    original = source if isinstance(source, Path) else source.SerializeToString()
    asked = RewriteOptions(policy="fastest", **options)
    candidates = Candidates.of(load(source), asked)
    return tune(candidates, original, TunerOptions(cache=cache, **given), predict)


def predicting(found: dict[str, dict[str, float]], **taken: Choice) -> Predict:
    """A cost model that says these milliseconds of the forms of each site, and takes these."""

    def predict(candidates: Candidates, tuner: TunerOptions) -> Tuned:
        choices = {f"main/{name}": choice for name, choice in taken.items()}
        shown = {
            f"main/{name}": tuple(Prediction(form, ms, False) for form, ms in forms.items())
            for name, forms in found.items()
        }
        return Tuned(choices, shown)

    return predict


def chosen(found: Tuned) -> dict[str, str]:
    return {site: str(choice) for site, choice in found.choices.items()}


def marked(candidates: tuple[Candidate | Prediction, ...]) -> list[str]:
    return [entry.name for entry in candidates if entry.chosen]


# --- what is taken


def test_each_site_takes_its_fastest_form(track: Track) -> None:
    track.cost = COL2IM_WINS
    found = tuned(pair())
    assert chosen(found) == {"main/large": "crop, col2im", "main/small": "crop, col2im"}
    for candidates in found.candidates.values():
        assert candidates[0].name == "as it was"
        assert marked(candidates) == ["crop, col2im"]
    names = [entry.name for entry in found.candidates["main/large"]]
    ordinary = ["crop, col2im", "crop, two-step", "crop, dcr", "crop, crd"]
    assert names == ["as it was", *ordinary, "split, col2im", "split, dcr"]


def test_the_figures_are_those_of_the_race(track: Track) -> None:
    track.cost = COL2IM_WINS
    track.noise = lambda model: 0.25
    candidates = tuned(net(up("x", "y", "up"))).candidates["main/up"]
    assert candidates[0] == Candidate("as it was", 5.0, 1.0, 0.75, 1.25, False)
    assert candidates[1] == Candidate("crop, col2im", 2.0, 2.5, 2.25, 2.75, True)


def test_what_is_slower_stays(track: Track) -> None:
    track.cost = CONV_TRANSPOSE_WINS
    found = tuned(pair())
    assert found.choices == {}
    assert {name: marked(entries) for name, entries in found.candidates.items()} == {
        "main/large": ["as it was"],
        "main/small": ["as it was"],
    }
    assert track.finals == []  # nothing is left to confirm


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
    track: Track, milliseconds: float, noise: float, taken: bool
) -> None:
    track.cost = lambda proto: 1.0 if left(proto) else milliseconds
    track.noise = lambda proto: noise
    assert bool(tuned(net(up("x", "y", "up"))).choices) is taken


def test_a_form_that_may_be_faster_yields_to_one_that_is(track: Track) -> None:
    """DepthToSpace has the better ratio, but one that may as well be below 1."""
    track.cost = by_operator(ConvTranspose=9.0, Col2Im=7.0, DepthToSpace=5.0, Transpose=9.0)
    ops = {"DepthToSpace": 1.0}
    track.noise = lambda proto: max(ops.get(node.op_type, 0.01) for node in proto.graph.node)
    found = tuned(net(up("x", "y", "up")))
    assert chosen(found) == {"main/up": "crop, col2im"}
    assert marked(found.candidates["main/up"]) == ["crop, col2im"]


def test_the_site_with_more_work_comes_first_and_the_next_stands_beside_it(track: Track) -> None:
    track.cost = COL2IM_WINS
    tuned(pair())
    large, small = track.races
    assert [left(proto) for proto in large] == [{"small", "large"}, *[{"small"}] * 6]
    assert [left(proto) for proto in small] == [{"small"}, *[frozenset()] * 4]


def test_only_selected_sites_are_timed(track: Track) -> None:
    track.cost = COL2IM_WINS
    found = tuned(pair(), only=("small",))
    assert list(found.choices) == list(found.candidates) == ["main/small"]
    assert len(track.races) == 1


def test_form_and_shuffle_restrict_what_is_timed(track: Track) -> None:
    track.cost = COL2IM_WINS
    found = tuned(pair(), form="pad", shuffle="dcr")
    assert len(found.candidates) == 2
    for candidates in found.candidates.values():
        assert [entry.name for entry in candidates] == ["as it was", "pad, dcr"]
    assert set(chosen(found).values()) == {"pad, dcr"}


def test_a_pixel_shuffle_takes_a_faster_spelling(track: Track) -> None:
    track.cost = COL2IM_WINS
    assert chosen(tuned(shuffled())) == {"main/shuffle": "col2im"}


def test_a_chain_takes_other_sites_with_it(track: Track) -> None:
    track.cost = by_operator(ConvTranspose=4.0, Col2Im=2.0, DepthToSpace=3.0, Transpose=9.0)
    found = tuned(head())
    assert chosen(found) == {"main/first": "crop, col2im + chain"}
    assert list(found.candidates) == ["main/first"]  # the second site is not there any more
    assert len(track.races) == 1


def test_a_site_that_a_later_chain_takes_in_has_no_form_of_its_own(track: Track) -> None:
    """The second has more work; then the chain behind the first takes it in."""
    track.cost = by_operator(ConvTranspose=4.0, Col2Im=2.0, DepthToSpace=3.0, Transpose=9.0)
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
    proto: ModelProto, choices: dict[str, str], track: Track
) -> None:
    track.cost = by_operator(ConvTranspose=4.0, Col2Im=2.0, DepthToSpace=3.0, Transpose=9.0)
    found = tuned(proto)
    assert chosen(found) == choices
    assert list(found.candidates) == list(choices)


# --- together


def test_what_drowns_by_itself_is_taken_together(track: Track) -> None:
    """Each site is 4 % of the model, both are 8 %, and the noise is 5 %."""
    track.cost = lambda proto: 10.0 + 0.4 * len(left(proto))
    track.noise = lambda proto: 0.05
    found = tuned(pair())
    assert chosen(found) == {"main/large": "crop, col2im", "main/small": "crop, col2im"}
    together = [left(proto) for proto in track.races[-1]]
    assert together == [{"small", "large"}, frozenset()]
    for candidates in found.candidates.values():
        assert marked(candidates) == ["crop, col2im"]
        # The figures are those of the site by itself.
        assert candidates[1].ratio == pytest.approx(10.8 / 10.4)
        assert candidates[1].low < 1.0


def test_where_there_is_no_time_for_a_site_the_prediction_races_the_original(track: Track) -> None:
    track.cost, track.takes = COL2IM_WINS, 1.0
    forms = {"as it was": 5.0, "crop, dcr": 2.0, "crop, col2im": 3.0}
    dcr = Choice("crop", "dcr")
    predict = predicting({"large": forms, "small": forms}, large=dcr)
    found = tuned(pair(), budget=20.0, predict=predict)
    assert chosen(found) == {"main/large": "crop, dcr"}
    assert [[left(proto) for proto in race] for race in track.races] == [
        [{"small", "large"}, {"small"}]
    ]
    assert [left(proto) for proto in track.finals] == [{"small"}]
    assert found.candidates == {
        "main/large": (
            Prediction("as it was", 5.0, False),
            Prediction("crop, dcr", 2.0, True),
            Prediction("crop, col2im", 3.0, False),
        ),
        "main/small": (
            Prediction("as it was", 5.0, True),
            Prediction("crop, dcr", 2.0, False),
            Prediction("crop, col2im", 3.0, False),
        ),
    }


def test_a_prediction_that_is_slower_is_not_taken(track: Track) -> None:
    track.cost, track.takes = CONV_TRANSPOSE_WINS, 1.0
    forms = {"as it was": 5.0, "crop, dcr": 2.0}
    predict = predicting({"up": forms}, up=Choice("crop", "dcr"))
    found = tuned(net(up("x", "y", "up")), budget=20.0, predict=predict)
    assert chosen(found) == {}
    assert marked(found.candidates["main/up"]) == ["as it was"]


def test_the_site_that_is_predicted_to_take_longest_comes_first(track: Track) -> None:
    track.cost = COL2IM_WINS
    predict = predicting({"large": {"as it was": 1.0}, "small": {"as it was": 9.0, "crop, crd": 8}})
    assert list(tuned(pair(), predict=predict).candidates) == ["main/small", "main/large"]


def test_the_prediction_is_for_the_sizes_that_are_timed(track: Track) -> None:
    asked: list[FeedOptions] = []

    def predict(candidates: Candidates, tuner: TunerOptions) -> Tuned:
        asked.append(tuner.feed)
        return Tuned()

    proto = pair()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    tuned(proto, predict=predict, feed=FeedOptions({"x": (1, 2, 8, 6)}))
    assert asked == [FeedOptions({"x": (1, 2, 8, 6)})]


# --- the last word


def test_the_whole_model_is_timed_against_the_original(track: Track) -> None:
    track.cost = COL2IM_WINS
    tuned(pair())
    assert [left(proto) for proto in track.finals] == [frozenset()]


def test_what_does_not_hold_is_taken_back_the_weakest_first(track: Track) -> None:
    gains = {"large": 4.0, "small": 1.0}
    track.cost = lambda proto: 10.0 + sum(gains[name] for name in left(proto))
    holds = {frozenset({"large", "small"}): 2.0, frozenset({"small"}): 1.0, frozenset(): 3.0}
    track.final = lambda proto: holds[left(proto)]
    found = tuned(pair())
    assert list(found.choices) == ["main/large"]
    assert [left(proto) for proto in track.finals] == [frozenset(), {"small"}]
    assert marked(found.candidates["main/small"]) == ["as it was"]
    assert marked(found.candidates["main/large"]) == ["crop, col2im"]


@pytest.mark.parametrize("rewritten", [2.0, 1.0], ids=["slower", "equal"])
def test_where_nothing_holds_the_original_stays(track: Track, rewritten: float) -> None:
    track.cost = COL2IM_WINS
    track.final = lambda proto: 1.0 if len(left(proto)) == 2 else rewritten
    found = tuned(pair())
    assert found.choices == {}
    assert len(track.finals) == 2
    assert {name: marked(entries) for name, entries in found.candidates.items()} == {
        "main/large": ["as it was"],
        "main/small": ["as it was"],
    }


# --- proof


def test_whatever_is_timed_was_certified_before(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    certified: list[Rewrite] = []
    real = workbench.certify

    def certify(rewrite: Rewrite, name: str, seed: int) -> Certified:
        certified.append(rewrite)
        return real(rewrite, name, seed)

    monkeypatch.setattr(workbench, "certify", certify)
    track.cost = COL2IM_WINS
    before_races: list[int] = []
    real_race = track.race

    def race(*args: Any) -> Any:
        before_races.append(len(certified))
        return real_race(*args)

    monkeypatch.setattr(workbench, "time_against_first", race)
    found = tuned(pair())
    timed = [len(entries) - 1 for entries in found.candidates.values()]
    assert timed == [6, 4]
    assert before_races == [6, 10, 10]


def test_a_form_without_certificate_is_not_timed(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = workbench.certify

    def certify(rewrite: Rewrite, name: str, seed: int) -> Certified:
        return replace(real(rewrite, name, seed), verdict="failed", failure="first at [0]")

    monkeypatch.setattr(workbench, "certify", certify)
    expected = r"main/up: certificate failed for crop, col2im \(first at \[0\]\): nothing"
    with pytest.raises(CheckFailed, match=expected):
        tuned(net(up("x", "y", "up")))
    assert track.races == []


def test_a_variant_that_computes_something_else_is_not_timed(
    track: Track, monkeypatch: pytest.MonkeyPatch
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
    assert track.races == []


def test_a_model_that_moves_by_its_own_rounding_is_judged_by_that(track: Track) -> None:
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
    track.cost = COL2IM_WINS
    assert chosen(tuned(model(body, 18))) == {"main/up": "crop, col2im"}


def test_the_original_is_left_untouched(track: Track) -> None:
    track.cost = COL2IM_WINS
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
    ("lasts", "granted"),
    [(0.0, [10.0, 20.0, 23.0]), (10.0, [10.0, 10.0, 3.0]), (30.0, [10.0, 0.3, 3.0])],
    ids=["left over", "as planned", "overdrawn"],
)
def test_the_budget_is_shared_between_the_sites(
    track: Track, lasts: float, granted: list[float]
) -> None:
    track.cost, track.lasts = COL2IM_WINS, lasts
    tuned(pair(), budget=23.0)
    assert track.granted == pytest.approx(granted)


def test_long_runs_have_longer_comparisons(track: Track) -> None:
    """Six rounds of two models, and a run to warm up each, are 14 seconds."""
    track.cost, track.lasts, track.takes = COL2IM_WINS, 50.0, 1.0
    tuned(net(up("x", "y", "up")), budget=60.0)
    ran = 8.0  # the original three times, the five in the race once each to be compared
    assert track.granted == pytest.approx([60.0 - 3.0 - 14.0, 14.0])
    assert track.now == 50.0 + ran + 50.0 + 1.0


@pytest.mark.parametrize(
    ("noise", "granted"), [(0.0, 20.0), (0.1, 19.0)], ids=["decided", "undecided"]
)
def test_time_is_kept_back_for_what_is_undecided(
    track: Track, noise: float, granted: float
) -> None:
    """Both sites have ten seconds, or the second has what is left but for a comparison."""
    track.cost = lambda proto: 10.0 + 0.5 * len(left(proto))
    track.noise = lambda proto: noise
    tuned(pair(), budget=23.0)
    assert track.granted[:2] == pytest.approx([10.0, granted])


def test_where_time_is_short_the_likely_forms_are_timed(track: Track, tmp_path: Path) -> None:
    """Besides the last word there are 15 seconds: two forms take 23 runs, one takes 14."""
    path = tmp_path / "net.onnx"
    onnx.save(net(up("x", "y", "up")), path)
    track.cost, track.takes = COL2IM_WINS, 1.0
    forms = {"as it was": 5.0, "crop, dcr": 2.0, "crop, col2im": 3.0}
    predict = predicting({"up": forms}, up=Choice("crop", "dcr"))
    found = tuned(path, cache=True, budget=32.0, predict=predict)
    assert [entry.name for entry in found.candidates["main/up"]] == ["as it was", "crop, dcr"]
    assert chosen(found) == {"main/up": "crop, dcr"}

    # What was timed is no answer for a call with more time.
    again = tuned(path, cache=True, budget=100.0, predict=predict)
    assert len(again.candidates["main/up"]) == 5
    assert chosen(again) == {"main/up": "crop, col2im"}


def test_without_a_prediction_all_forms_are_timed(track: Track) -> None:
    track.cost, track.takes = COL2IM_WINS, 1.0
    found = tuned(net(up("x", "y", "up")), budget=5.0)
    assert len(found.candidates["main/up"]) == 5


def test_progress_is_told(track: Track) -> None:
    parts: list[float] = []
    track.cost = COL2IM_WINS
    tuned(pair(), on_progress=parts.append)
    assert parts == pytest.approx([1 / 3, 2 / 3])


def test_what_was_measured_once_is_not_timed_again(track: Track, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(pair(), path)
    track.cost = COL2IM_WINS
    first = tuned(path, cache=True)
    track.cost = CONV_TRANSPOSE_WINS  # which no one looks at any more
    track.final = COL2IM_WINS
    again = tuned(path, cache=True)
    assert again == first
    assert len(track.races) == 2
    assert len(track.finals) == 2  # that the whole holds is seen each time


@pytest.mark.parametrize(
    ("cache", "options"),
    [(False, {}), (True, {"only": ("large", "small")}), (True, {"form": "pad"})],
    ids=["--no-cache", "--only", "--form"],
)
def test_another_call_is_timed_anew(
    track: Track, tmp_path: Path, cache: bool, options: dict[str, Any]
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(pair(), path)
    track.cost = CONV_TRANSPOSE_WINS
    tuned(path, cache=True)
    tuned(path, cache=cache, **options)
    assert len(track.races) > 2


def test_a_broken_cache_costs_time_only(track: Track, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(pair(), path)
    track.cost = COL2IM_WINS
    first = tuned(path, cache=True)
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:-20])
    assert tuned(path, cache=True) == first
    assert len(track.races) == 4


def test_other_forms_in_the_cache_are_not_taken_for_these(track: Track, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(net(up("x", "y", "up")), path)
    track.cost = COL2IM_WINS
    tuned(path, cache=True)
    (file,) = (file for file in (tmp_path / "cache").rglob("*") if file.is_file())
    file.write_text(file.read_text().replace("crop, col2im", "crop, magic"))
    track.races.clear()
    assert chosen(tuned(path, cache=True)) == {"main/up": "crop, col2im"}
    assert len(track.races) == 1  # what another version has measured is measured again


def test_every_race_has_all_forms_of_one_site(track: Track) -> None:
    track.cost = CONV_TRANSPOSE_WINS
    tuned(net(up("x", "y", "up")))
    (race,) = track.races
    operators = [Counter(node.op_type for node in proto.graph.node) for proto in race]
    assert operators[0] == {"ConvTranspose": 1}
    spelled = [{"Col2Im", "Transpose", "DepthToSpace"} & set(found) for found in operators[1:]]
    assert spelled == [{"Col2Im"}, {"Transpose"}, {"DepthToSpace"}, {"DepthToSpace"}]
