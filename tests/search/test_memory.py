"""The room that forms may take: one Conv a phase where only the crop is saved, and any other."""

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
from deployconv.search.choice import Choice, Option, Tuned, TunerOptions
from deployconv.search.cost_model import predict
from deployconv.search.figures import Figures
from deployconv.search.joint import Taken
from deployconv.search.memory import without_split
from deployconv.search.tuner import tune
from tests.build import conv_transpose, integers
from tests.search.conftest import Track, by_operator, left
from tests.search.nets import net, pair, up

CROP = Choice("crop", "col2im")
WHOLE, HALVES = Choice("split", "col2im"), Choice("split", "col2im", channel_split=True)


def large(channels: int = 64, size: int = 64, **rest: Any) -> ModelProto:
    """A ConvTranspose k4 s2 p1 that makes ``channels`` of 32."""
    weight = integers(32, channels, 4, 4)
    geometry = {"strides": [2, 2], "pads": [1] * 4, "opset": 18, **rest}
    return conv_transpose(weight, (size, size), integers(channels, seed=1), **geometry)


def options(proto: ModelProto, **asked: Any) -> list[Option]:
    candidates = Candidates.of(load(proto), RewriteOptions(**asked))
    return list(candidates.of_site(candidates.planning.default[0]))


def splits(found: list[Option]) -> dict[str, bool]:
    """Those with one Conv a phase, and whether their memory is to be measured."""
    return {
        str(option.choice): option.needs_measurement
        for option in found
        if option.choice.form == "split"
    }


def test_a_large_image_may_be_split_in_whole_or_in_halves() -> None:
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
    ids=["too few channels for halves", "another shuffle", "nothing to crop"],
)
def test_where_it_may_not(
    proto: ModelProto, asked: dict[str, Any], expected: dict[str, bool]
) -> None:
    assert splits(options(proto, **asked)) == expected


def test_a_prediction_takes_it_only_where_memory_is_measured() -> None:
    def choice(policy: Any) -> Choice:
        candidates = Candidates.of(load(large()), RewriteOptions(policy=policy))
        found = predict(candidates, TunerOptions(threads=2))
        (taken,) = found.choices.values()
        assert {"split, col2im", "split, col2im, halves"} <= {
            entry.name for entry in found.candidates["main/up"]
        }
        return taken

    assert choice("fastest") == WHOLE
    assert choice("cost") in (HALVES, CROP)


def convs(proto: ModelProto) -> int:
    return sum(node.op_type == "Conv" for node in proto.graph.node)


def cost(proto: ModelProto) -> float:
    """As it was, one Conv, four, eight."""
    return {0: 4.0, 1: 3.0, 4: 1.0, 8: 2.0}[convs(proto)]


def tuned(
    track: Track,
    proto: ModelProto,
    peaks: dict[Any, int | None],
    most: float = 1.1,
    **rest: Any,
) -> Tuned:
    """``fastest`` where a model takes so much memory, by what `seen` of it."""
    track.memory = lambda proto: peaks[seen(proto)]
    options = RewriteOptions(policy="fastest", **rest)
    tuner = TunerOptions(cache=False, max_memory=most)
    return tune(Candidates.of(load(proto), options), proto.SerializeToString(), tuner)


def seen(proto: ModelProto) -> Any:
    """The Convs of `large`, the sites of `pair` that are as they were."""
    return left(proto) if any(node.name == "mix" for node in proto.graph.node) else convs(proto)


# --- one Conv a phase


@pytest.mark.parametrize(
    ("peak", "taken"),
    [(110, WHOLE), (111, HALVES), (None, HALVES)],
    ids=["as much", "more", "nobody can tell"],
)
def test_what_needs_much_more_memory_yields_to_the_next(
    track: Track, peak: int | None, taken: Choice
) -> None:
    track.cost = cost
    found = tuned(track, large(), {0: 100, 4: peak, 8: 100})
    assert found.choices == {"main/up": taken}
    assert not found.over_memory
    marked = [entry.name for entry in found.candidates["main/up"] if entry.chosen]
    assert marked == [str(taken)]
    assert [convs(final) for final in track.finals] == [4] if taken == WHOLE else [4, 8]


def test_the_next_has_to_fit_as_well(track: Track) -> None:
    track.cost = cost
    found = tuned(track, large(), {0: 100, 4: 120, 8: 111, 1: 110})
    assert (found.choices, found.over_memory) == ({"main/up": CROP}, frozenset())


def test_where_none_fits_it_is_as_it_was(track: Track) -> None:
    track.cost = cost
    found = tuned(track, large(), {0: 100, 4: 120, 8: 111, 1: 111})
    assert (found.choices, found.over_memory) == ({}, {"main/up"})
    assert [entry.name for entry in found.candidates["main/up"] if entry.chosen] == ["as it was"]


@pytest.mark.parametrize(
    ("most", "taken"),
    [(1.2, WHOLE), (float("inf"), WHOLE), (1.0, CROP), (0.5, CROP)],
    ids=["more", "any", "none", "less"],
)
def test_the_call_says_how_much_more(track: Track, most: float, taken: Choice) -> None:
    track.cost = cost
    found = tuned(track, large(), {0: 100, 4: 120, 8: 111, 1: 40}, most)
    assert found.choices == {"main/up": taken}
    assert bool(track.weighed) is (most != float("inf"))


def candidate(choice: Choice, ratio: float) -> Candidate:
    return Candidate(str(choice), 1.0, ratio, ratio - 0.01, ratio + 0.01, False)


@pytest.mark.parametrize(
    ("timed", "choices", "gains"),
    [
        ((candidate(WHOLE, 1.5), candidate(CROP, 1.4)), {"up": CROP}, {"up": 1.4}),
        ((candidate(WHOLE, 1.5), candidate(HALVES, 0.9)), {}, {}),
        ((), {"up": HALVES}, {"up": 1.5}),
    ],
    ids=["the next fastest", "none that is faster", "in halves where nothing was timed"],
)
def test_others_stay_where_one_yields(
    timed: tuple[Candidate, ...], choices: Any, gains: dict[str, float]
) -> None:
    forms = {str(choice): choice for choice in (CROP, WHOLE, HALVES)}
    taken = Taken({"up": WHOLE, "split too": WHOLE}, {"up": 1.5, "split too": 1.1})
    left = without_split(taken, "up", {"up": Figures(forms, timed)})
    assert left.choices == {**choices, "split too": WHOLE}
    assert left.gains == {**gains, "split too": 1.1}


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
    ids=["they fit", "the weaker goes", "the one that helps goes", "both go", "nobody can tell"],
)
def test_sites_are_as_they_were_where_the_model_needs_more(
    track: Track, peaks: dict[Any, int | None], rewritten: set[str]
) -> None:
    track.cost = lambda proto: {BOTH: 4.0, LARGE: 5.0, SMALL: 8.0, NONE: 10.0}[left(proto)]
    found = tuned(track, pair(), {NONE: 100, **peaks}, form="crop", shuffle="col2im")
    assert found.choices.keys() == {f"main/{name}" for name in rewritten}
    assert found.over_memory == {"main/large", "main/small"} - found.choices.keys()
    assert len(track.finals) == (2 if len(rewritten) == 1 else 1)


def test_what_is_left_has_to_be_faster_by_itself(track: Track) -> None:
    track.cost = lambda proto: {BOTH: 4.0, LARGE: 5.0, SMALL: 8.0, NONE: 10.0}[left(proto)]
    track.final = lambda proto: {BOTH: 4.0, LARGE: 11.0, SMALL: 8.0, NONE: 10.0}[left(proto)]
    found = tuned(track, pair(), {NONE: 100, BOTH: 111, LARGE: 100, SMALL: 105})
    assert (found.choices, found.over_memory) == ({}, {"main/small"})


def test_each_model_is_measured_once(track: Track) -> None:
    track.cost = lambda proto: {BOTH: 4.0, LARGE: 5.0, SMALL: 8.0, NONE: 10.0}[left(proto)]
    peaks: dict[Any, int | None] = {NONE: 100, BOTH: 111, LARGE: 100, SMALL: 105}
    tuned(track, pair(), peaks, form="crop", shuffle="col2im")
    assert Counter(map(left, track.weighed)) == dict.fromkeys([NONE, BOTH, LARGE, SMALL], 1)


def test_the_memory_of_a_device_is_not_measured(track: Track) -> None:
    track.cost, proto = by_operator(ConvTranspose=4.0), net(up("x", "y", "up"))
    tuner = TunerOptions(backend="ort:cuda", cache=False)
    candidates = Candidates.of(load(proto), RewriteOptions(policy="fastest"))
    found = tune(candidates, proto.SerializeToString(), tuner)
    assert found.choices
    assert track.weighed == []
