"""Sizes that a model computes from its data: one run of the original shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import deployconv
from deployconv.errors import BackendUnavailable
from deployconv.graph.load import load
from deployconv.options import FeedOptions
from deployconv.results import Rewriting
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import InterruptibleSession
from deployconv.search import cost_model, observed_shapes
from deployconv.search.choice import TunerOptions
from deployconv.search.cost_table import TABLES, CostTable, Rate
from tests.build import FLOAT, conv_transpose, graph, integers, model, node, tensor, value

INT64 = 7


def speech(repeats: Any = 3) -> ModelProto:
    """Frames that are repeated as often as ``d`` times ``repeats``, then an upsampling layer."""
    nodes = [
        node("Mul", ["d", "repeats"], ["r"]),
        node("ReduceSum", ["r"], ["total"], keepdims=0),
        node("Range", ["zero", "total", "one"], ["at"]),
        node("Mod", ["at", "frames"], ["frame"]),
        node("Gather", ["x", "frame"], ["h"], axis=2),
        node("ConvTranspose", ["h", "w"], ["u"], strides=[2], name="up"),
        node("Tanh", ["u"], ["y"]),
    ]
    held = {"zero": 0, "one": 1, "frames": 5, "repeats": [repeats]}
    return model(
        graph(
            nodes,
            [value("x", FLOAT, [1, 16, 5]), value("d", INT64, ["n"])],
            [value("y", FLOAT, [1, 4, None])],
            [
                tensor("w", integers(16, 4, 2)),
                *(tensor(name, np.array(one, np.int64)) for name, one in held.items()),
            ],
        )
    )


def rewritten(original: ModelProto, **options: Any) -> Rewriting:
    return deployconv.rewrite(original, policy="cost", bench=False, **options)


@pytest.fixture
def shuffles_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a ConvTranspose scatters takes all the time."""
    made = CostTable({"scattered_nd": Rate(0.0, 1.0)}, block=0, margin=0.0, fitted=True)
    monkeypatch.setattr(cost_model, "TABLES", {**TABLES, "ort": made})


@pytest.mark.usefixtures("shuffles_are_cheap")
def test_a_site_behind_data_dependent_sizes_is_predicted(tmp_path: Path) -> None:
    durations = np.array([4, 1, 2])
    np.savez(tmp_path / "in.npz", x=np.ones((1, 16, 5), np.float32), d=durations)
    done = rewritten(speech(), inputs=tmp_path / "in.npz")
    (site,) = done.sites
    assert (site.status, site.certificate) == ("rewritten", "exact")
    kept = site.candidates[0]
    assert isinstance(kept, deployconv.results.Prediction)
    # Of 21 frames there are 4 channels of 2 taps.
    assert kept.predicted_ms == pytest.approx(21 * 4 * 2 / 1e6)


def test_inputs_are_invented_if_none_are_given() -> None:
    (site,) = rewritten(speech()).sites
    assert site.reason is None or site.reason.code == "slower"
    assert site.candidates


def test_why_a_run_that_fails_shows_nothing(tmp_path: Path) -> None:
    """The Gather reads a frame that does not exist."""
    original = speech()
    original.graph.initializer[3].CopyFrom(tensor("frames", np.array(50)))
    np.savez(tmp_path / "in.npz", x=np.ones((1, 16, 5), np.float32), d=np.array([9]))
    done = rewritten(original, inputs=tmp_path / "in.npz", verify=False)
    (site,) = done.sites
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("kept", "unpredicted")
    assert "nor does one run show them" in site.reason.text
    assert "Gather" in site.reason.text


def test_a_run_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed_shapes, "_LONGEST_RUN", 0.0)
    nodes = [node("MatMul", ["x", "x"], ["h0"])]
    nodes += [node("MatMul", [f"h{at}", "x"], [f"h{at + 1}"]) for at in range(400)]
    x, y = value("x", FLOAT, [128, 128]), value("h400", FLOAT, None)
    loaded = load(model(graph(nodes, [x], [y])))
    found = observed_shapes.observed_shapes(loaded, {}, TunerOptions())
    assert isinstance(found, str)
    assert "one run takes longer than 0 s" in found


def test_a_run_within_its_time() -> None:
    original = conv_transpose(integers(2, 3, 2, 2), (4, 5))
    session = get_backend("ort").prepare(original.SerializeToString(), threads=1)
    assert isinstance(session, InterruptibleSession)
    feeds = {"x": integers(1, 2, 4, 5)}
    assert np.array_equal(session.run_within(feeds, 60.0)["y"], session.run(feeds)["y"])
    with pytest.raises(BackendUnavailable, match="cannot run the model"):
        get_backend("ort").prepare(failing().SerializeToString()).run_within(  # type: ignore[attr-defined]
            {"x": np.zeros((1, 2), np.float32)}, 60.0
        )


def failing() -> ModelProto:
    nodes = [node("Reshape", ["x", "shape"], ["y"])]
    x, y = value("x", FLOAT, [1, "n"]), value("y", FLOAT, None)
    return model(graph(nodes, [x], [y], [tensor("shape", np.array([3, 5]))]))


def test_only_tensors_of_the_main_graph_that_are_not_known_are_observed() -> None:
    made = speech()
    made.graph.node.append(node("SequenceConstruct", ["u", "y"], ["sequence"]))
    tuner = TunerOptions(feed=FeedOptions({"x": (1, 16, 5), "d": (2,)}))
    found = observed_shapes.observed_shapes(load(made), {"r": (2,), "total": ()}, tuner)
    assert not isinstance(found, str)
    shapes = {one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in found}
    assert set(shapes) <= {"at", "frame", "h", "u", "y"}
    assert {name: shape[:-1] for name, shape in shapes.items() if name in "hu"} == {
        **{"h": [1, 16], "u": [1, 4]}
    }


def test_a_site_in_a_body_that_reads_an_observed_tensor() -> None:
    original = speech()
    branches = []
    for name in ("then_branch", "else_branch"):
        body = [
            node("Relu", ["h"], [f"{name}/r"]),
            node("ConvTranspose", [f"{name}/r", "w"], [f"{name}/u"], strides=[2], name="up"),
            node("Tanh", [f"{name}/u"], [f"{name}/y"]),
        ]
        branches.append(graph(body, [], [value(f"{name}/y", FLOAT, None)]))
    del original.graph.node[-2:]
    choice = node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1])
    original.graph.node.append(choice)
    original.graph.initializer.append(tensor("yes", np.array(True)))
    assert all(site.candidates for site in rewritten(original).sites)


def test_nothing_is_run_where_sizes_follow_from_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cost_model, "observed_shapes")
    (site,) = rewritten(conv_transpose(integers(2, 3, 2, 2), ("h", "w"), strides=[2, 2])).sites
    assert site.candidates
