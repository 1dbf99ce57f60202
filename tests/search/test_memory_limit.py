"""Forms whose model is above the limit of its peak memory are replaced or dropped."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify
from deployconv.results import Candidate
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Choice, Decision, Option, TunerOptions
from deployconv.search.cost_model import predict
from deployconv.search.memory_limit import without_all_phases
from deployconv.search.selection import Selection, SiteTimings
from deployconv.search.tuner import tune
from tests.build import conv_transpose, integers
from tests.search.conftest import ScriptedBackend, by_operator, left
from tests.search.nets import net, pair, up

CROP = Choice("crop", "col2im")
ALL_PHASES, CHANNEL_SPLIT = Choice("split", "col2im"), Choice("split", "col2im", channel_split=True)


def large(channels: int = 64, size: int = 64, **rest: Any) -> ModelProto:
    """A ConvTranspose k4 s2 p1 that makes ``channels`` of 32."""
    weight = integers(32, channels, 4, 4)
    geometry = {"strides": [2, 2], "pads": [1] * 4, "opset": 18, **rest}
    return conv_transpose(weight, (size, size), integers(channels, seed=1), **geometry)


def options(proto: ModelProto, **asked: Any) -> list[Option]:
    candidates = Candidates.of(load(proto), RewriteOptions(**asked))
    return list(candidates.of_site(candidates.planning.default[0]))


def splits(found: list[Option]) -> dict[str, bool]:
    """The forms with one Conv per phase, and whether they must be measured."""
    return {
        str(option.choice): option.needs_measurement
        for option in found
        if option.choice.form == "split"
    }


def test_a_large_image_may_have_one_conv_per_phase_with_or_without_channel_split() -> None:
    found = options(large())
    assert splits(found) == {"split, col2im": True, "split, col2im, halves": False}
    for option in found:
        if option.choice.form == "split":
            assert certify(option.rewrite, "up").verdict == "exact"


@pytest.mark.parametrize(
    ("proto", "asked", "expected"),
    [
        (large(63, 72), {}, {"split, col2im": True}),
        (large(), {"shuffle": "dcr"}, {}),
        (large(pads=[0] * 4, strides=[4, 4]), {}, {}),
    ],
    ids=["too few channels to split", "another shuffle", "nothing to crop"],
)
def test_other_images_may_not(
    proto: ModelProto, asked: dict[str, Any], expected: dict[str, bool]
) -> None:
    assert splits(options(proto, **asked)) == expected


@pytest.mark.parametrize("policy", ["cost", "fastest"])
def test_a_prediction_does_not_take_what_may_need_much_more_memory(policy: Any) -> None:
    candidates = Candidates.of(load(large()), RewriteOptions(policy=policy))
    found = predict(candidates, TunerOptions(threads=2))
    (taken,) = found.choices.values()
    assert {"split, col2im", "split, col2im, halves"} <= {
        entry.name for entry in found.candidates["main/up"]
    }
    assert taken in (CHANNEL_SPLIT, CROP)


def convs(proto: ModelProto) -> int:
    return sum(node.op_type == "Conv" for node in proto.graph.node)


def cost(proto: ModelProto) -> float:
    """The milliseconds of the site as it was, and with one Conv, four and eight."""
    return {0: 4.0, 1: 3.0, 4: 1.0, 8: 2.0}[convs(proto)]


def tuned(
    scripted: ScriptedBackend,
    proto: ModelProto,
    peaks: dict[Any, int | None],
    most: float = 1.1,
    **rest: Any,
) -> Decision:
    """The decision of ``fastest`` if ``peaks`` has the peak memory of models, by `seen`."""
    scripted.memory = lambda proto: peaks[seen(proto)]
    options = RewriteOptions(policy="fastest", **rest)
    tuner = TunerOptions(cache=False, max_memory=most)
    return tune(Candidates.of(load(proto), options), proto.SerializeToString(), tuner)


def seen(proto: ModelProto) -> Any:
    """The Convs of `large`, the sites of `pair` that are as they were."""
    return left(proto) if any(node.name == "mix" for node in proto.graph.node) else convs(proto)


# --- one Conv per phase


@pytest.mark.parametrize(
    ("peak", "taken"),
    [(110, ALL_PHASES), (111, CHANNEL_SPLIT), (None, CHANNEL_SPLIT)],
    ids=["at the limit", "above it", "not measurable"],
)
def test_a_form_above_the_limit_is_replaced_by_the_next_fastest(
    scripted: ScriptedBackend, peak: int | None, taken: Choice
) -> None:
    scripted.cost = cost
    found = tuned(scripted, large(), {0: 100, 4: peak, 8: 100})
    assert found.choices == {"main/up": taken}
    assert not found.over_memory
    marked = [entry.name for entry in found.candidates["main/up"] if entry.chosen]
    assert marked == [str(taken)]
    assert [convs(final) for (final,) in scripted.finals] == [4] if taken == ALL_PHASES else [4, 8]


def test_the_next_form_has_to_be_within_the_limit_as_well(scripted: ScriptedBackend) -> None:
    scripted.cost = cost
    found = tuned(scripted, large(), {0: 100, 4: 120, 8: 111, 1: 110})
    assert (found.choices, found.over_memory) == ({"main/up": CROP}, frozenset())


def test_a_site_stays_if_no_form_is_within_the_limit(scripted: ScriptedBackend) -> None:
    scripted.cost = cost
    found = tuned(scripted, large(), {0: 100, 4: 120, 8: 111, 1: 111})
    assert (found.choices, found.over_memory) == ({}, {"main/up"})
    assert [entry.name for entry in found.candidates["main/up"] if entry.chosen] == ["as it was"]


@pytest.mark.parametrize(
    ("most", "taken"),
    [(1.2, ALL_PHASES), (float("inf"), ALL_PHASES), (1.0, CROP), (0.5, CROP)],
    ids=["more", "any", "none", "less"],
)
def test_the_call_sets_the_limit(scripted: ScriptedBackend, most: float, taken: Choice) -> None:
    scripted.cost = cost
    found = tuned(scripted, large(), {0: 100, 4: 120, 8: 111, 1: 40}, most)
    assert found.choices == {"main/up": taken}
    assert bool(scripted.measured) is (most != float("inf"))


def candidate(choice: Choice, ratio: float) -> Candidate:
    return Candidate(str(choice), 1.0, ratio, ratio - 0.01, ratio + 0.01, False)


@pytest.mark.parametrize(
    ("timed", "choices", "speedups"),
    [
        ((candidate(ALL_PHASES, 1.5), candidate(CROP, 1.4)), {"up": CROP}, {"up": 1.4}),
        ((candidate(ALL_PHASES, 1.5), candidate(CHANNEL_SPLIT, 0.9)), {}, {}),
        ((), {"up": CHANNEL_SPLIT}, {"up": 1.5}),
    ],
    ids=[
        "the next fastest",
        "none that is faster",
        "half of the channels at a time if nothing was timed",
    ],
)
def test_other_sites_keep_their_forms_if_one_is_replaced(
    timed: tuple[Candidate, ...], choices: Any, speedups: dict[str, float]
) -> None:
    forms = {str(choice): choice for choice in (CROP, ALL_PHASES, CHANNEL_SPLIT)}
    selection = Selection({"up": ALL_PHASES, "other": ALL_PHASES}, {"up": 1.5, "other": 1.1})
    left = without_all_phases(selection, "up", {"up": SiteTimings(forms, timed)})
    assert left.choices == {**choices, "other": ALL_PHASES}
    assert left.speedups == {**speedups, "other": 1.1}


# --- any form

BOTH, LARGE, SMALL = frozenset[str](), frozenset({"small"}), frozenset({"large"})
NONE = LARGE | SMALL
"""Which sites of `pair` are rewritten, by those that are left."""


@pytest.mark.parametrize(
    ("peaks", "rewritten"),
    [
        ({BOTH: 110}, {"large", "small"}),
        ({BOTH: 111, LARGE: 110, SMALL: 105}, {"large"}),
        ({BOTH: 115, LARGE: 112, SMALL: 110}, {"small"}),
        ({BOTH: 115, LARGE: 112, SMALL: 111}, set()),
        ({BOTH: None, LARGE: 100, SMALL: 100}, {"large", "small"}),
    ],
    ids=["within the limit", "the smaller speedup", "less memory", "both", "not measurable"],
)
def test_sites_stay_if_the_model_is_above_the_limit(
    scripted: ScriptedBackend, peaks: dict[Any, int | None], rewritten: set[str]
) -> None:
    scripted.cost = lambda proto: {BOTH: 4.0, LARGE: 5.0, SMALL: 8.0, NONE: 10.0}[left(proto)]
    found = tuned(scripted, pair(), {NONE: 100, **peaks}, form="crop", shuffle="col2im")
    assert found.choices.keys() == {f"main/{name}" for name in rewritten}
    assert found.over_memory == {"main/large", "main/small"} - found.choices.keys()
    assert len(scripted.finals) == (2 if len(rewritten) == 1 else 1)


def test_what_is_left_has_to_be_faster_by_itself(scripted: ScriptedBackend) -> None:
    scripted.cost = lambda proto: {BOTH: 4.0, LARGE: 5.0, SMALL: 8.0, NONE: 10.0}[left(proto)]
    scripted.final = lambda proto: {BOTH: 4.0, LARGE: 11.0, SMALL: 8.0, NONE: 10.0}[left(proto)]
    found = tuned(scripted, pair(), {NONE: 100, BOTH: 111, LARGE: 100, SMALL: 105})
    assert (found.choices, found.over_memory) == ({}, {"main/small"})


def test_each_model_is_measured_once(scripted: ScriptedBackend) -> None:
    scripted.cost = lambda proto: {BOTH: 4.0, LARGE: 5.0, SMALL: 8.0, NONE: 10.0}[left(proto)]
    peaks: dict[Any, int | None] = {NONE: 100, BOTH: 111, LARGE: 100, SMALL: 105}
    tuned(scripted, pair(), peaks, form="crop", shuffle="col2im")
    assert Counter(map(left, scripted.measured)) == dict.fromkeys([NONE, BOTH, LARGE, SMALL], 1)


def test_the_memory_of_a_device_is_not_measured(scripted: ScriptedBackend) -> None:
    scripted.cost, proto = by_operator(ConvTranspose=4.0), net(up("x", "y", "up"))
    tuner = TunerOptions(backend="ort:cuda", cache=False)
    candidates = Candidates.of(load(proto), RewriteOptions(policy="fastest"))
    found = tune(candidates, proto.SerializeToString(), tuner)
    assert found.choices
    assert scripted.measured == []
