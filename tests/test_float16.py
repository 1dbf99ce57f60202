"""float16 as converters leave it: float32 inputs and outputs, Casts, islands of float32."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import apply, plan_model
from tests.build import (
    FLOAT,
    assert_equal,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    run,
    tensor,
    value,
)

HALF = TensorProto.FLOAT16
GEOMETRY = {"strides": [2, 2], "pads": [1, 1, 1, 1]}


def converted(island: bool) -> ModelProto:
    """x float32 -> Cast -> ConvTranspose -> (Cast -> Sub -> Cast) -> ConvTranspose -> Cast -> y."""
    nodes = [
        node("Cast", ["x"], ["h"], to=HALF),
        node("ConvTranspose", ["h", "w", "b"], ["u"], name="first", **GEOMETRY),
    ]
    last = "u"
    if island:
        nodes += [
            node("Cast", ["u"], ["f"], to=FLOAT),
            node("Sub", ["f", "one"], ["g"]),
            node("Cast", ["g"], ["v"], to=HALF),
        ]
        last = "v"
    nodes += [
        node("ConvTranspose", [last, "w2"], ["t"], name="second", **GEOMETRY),
        node("Cast", ["t"], ["y"], to=FLOAT),
    ]
    weights = {
        "w": integers(2, 3, 4, 4, dtype=np.float16),
        "b": integers(3, seed=1, dtype=np.float16),
        "w2": (integers(3, 2, 4, 4, seed=2) % 2).astype(np.float16),
        "one": np.float32(1),
    }
    held = [tensor(name, array) for name, array in weights.items() if island or name != "one"]
    body = graph(
        nodes, [value("x", FLOAT, [1, 2, 4, 5])], [value("y", FLOAT, [1, 2, 16, 20])], held
    )
    return model(body)


@pytest.mark.parametrize("island", [False, True])
def test_types_stay_and_so_do_the_bits(island: bool) -> None:
    before = converted(island)
    planning = certify_sites(plan_model(load(before), RewriteOptions()), seed=0)
    assert [report.certificate for report in planning.reports] == ["exact", "exact"]
    after = apply(planning).proto
    assert (ops(before)["ConvTranspose"], ops(after)["ConvTranspose"]) == (2, 0)
    feeds = feeds_for(before)
    assert_equal(run(before, feeds), run(after, feeds))
    assert ops(after)["Cast"] == ops(before)["Cast"]
    kinds = {t.name: t.data_type for t in after.graph.initializer if len(t.dims) == 4}
    assert len(kinds) == 2
    assert set(kinds.values()) == {HALF}
    for now, then in zip(
        (*after.graph.input, *after.graph.output),
        (*before.graph.input, *before.graph.output),
        strict=True,
    ):
        assert now == then
        assert helper.tensor_dtype_to_np_dtype(now.type.tensor_type.elem_type) == np.float32
