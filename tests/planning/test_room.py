"""One Conv a phase where only the crop is saved: offered, and taken if the memory is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from deployconv.backends.base import Feeds
from deployconv.joining import peers
from deployconv.model.load import load
from deployconv.options import RewriteOptions
from deployconv.pipeline import plan_model
from deployconv.planning import workbench
from deployconv.planning.candidates import Choice, Option, options_for
from deployconv.planning.cost import predict
from deployconv.planning.figures import Figures
from deployconv.planning.joint import Taken, without_split
from deployconv.planning.tuner import Tuned, tune
from deployconv.planning.workbench import TunerOptions
from deployconv.proof.certificate import certify
from deployconv.results import Candidate
from tests.build import conv_transpose, integers
from tests.planning.conftest import Track

CROP = Choice("crop", "col2im")
WHOLE, HALVES = Choice("split", "col2im"), Choice("split", "col2im", halves=True)


def large(channels: int = 64, size: int = 64, **rest: Any) -> ModelProto:
    """A ConvTranspose k4 s2 p1 that makes ``channels`` of 32."""
    weight = integers(32, channels, 4, 4)
    geometry = {"strides": [2, 2], "pads": [1] * 4, "opset": 18, **rest}
    return conv_transpose(weight, (size, size), integers(channels, seed=1), **geometry)


def options(proto: ModelProto, **asked: Any) -> list[Option]:
    planning = plan_model(load(proto), RewriteOptions())
    return options_for(planning.sites[0], planning.view, others=peers(planning.sites), **asked)


def splits(found: list[Option]) -> dict[str, bool]:
    """Those with one Conv a phase, and whether their memory is to be measured."""
    return {str(option.choice): option.roomy for option in found if option.choice.form == "split"}


def test_a_large_image_may_be_split_in_whole_or_in_halves() -> None:
    found = options(large())
    assert splits(found) == {"split, col2im": True, "split, col2im, halves": False}
    for option in found:
        if option.choice.form == "split":
            assert certify(option.subject, option.plan, seed=0) == "exact"


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
        found = predict(load(large()), RewriteOptions(policy=policy), TunerOptions(threads=2))
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


def tuned(monkeypatch: pytest.MonkeyPatch, peaks: dict[int, int | None], **rest: Any) -> Tuned:
    """``fastest`` where a model with so many Convs takes so much memory."""
    measured: list[int] = []

    def peak_memory(path: Path, feeds: Feeds, threads: int) -> int | None:
        measured.append(convs(load(path).proto))
        return peaks[measured[-1]]

    monkeypatch.setattr(workbench, "peak_memory", peak_memory)
    proto, predicting = large(), rest.pop("predicting", None)
    options = RewriteOptions(policy="fastest", **rest)
    found = tune(
        load(proto), proto.SerializeToString(), options, TunerOptions(cache=False), predicting
    )
    assert measured in ([], [0, 4])
    return found


@pytest.mark.parametrize(
    ("peak", "taken"),
    [(110, WHOLE), (111, HALVES), (None, HALVES)],
    ids=["as much", "more", "nobody can tell"],
)
def test_what_needs_much_more_memory_yields_to_the_next(
    track: Track, monkeypatch: pytest.MonkeyPatch, peak: int | None, taken: Choice
) -> None:
    track.cost = cost
    found = tuned(monkeypatch, {0: 100, 4: peak})
    assert found.choices == {"main/up": taken}
    marked = [entry.name for entry in found.candidates["main/up"] if entry.chosen]
    assert marked == [str(taken)]
    assert [convs(final) for final in track.finals] == [4] if taken == WHOLE else [4, 8]


def test_memory_is_measured_only_where_that_form_is_taken(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    track.cost = lambda proto: {0: 4.0, 1: 1.0, 4: 3.0, 8: 2.0}[convs(proto)]
    assert tuned(monkeypatch, {}).choices == {"main/up": CROP}


def candidate(choice: Choice, ratio: float) -> Candidate:
    return Candidate(str(choice), 1.0, ratio, ratio - 0.01, ratio + 0.01, False)


def test_others_stay_and_what_was_not_timed_is_halved() -> None:
    forms = {str(choice): choice for choice in (CROP, WHOLE, HALVES)}
    taken = Taken(
        dict.fromkeys(["timed", "slow", "untimed"], WHOLE) | {"other": CROP},
        {"timed": 1.5, "slow": 1.3, "untimed": 1.2, "other": 1.1},
    )
    found = {
        "timed": Figures(forms, (candidate(WHOLE, 1.5), candidate(CROP, 1.4))),
        "slow": Figures(forms, (candidate(WHOLE, 1.3), candidate(HALVES, 0.9))),
        "untimed": Figures(forms, ()),
        "other": Figures(forms, (candidate(CROP, 1.1),)),
    }
    left = without_split(taken, found)
    assert left.choices == {"timed": CROP, "untimed": HALVES, "other": CROP}
    assert left.gains == {"timed": 1.4, "untimed": 1.2, "other": 1.1}
