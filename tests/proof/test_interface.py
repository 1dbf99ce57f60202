from __future__ import annotations

import pytest
from onnx import ModelProto

from deployconv.errors import UsageError
from deployconv.proof.interface import common_inputs
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Session
from tests.runtimes.tiny import DOUBLE, FLOAT, unary


def load(proto: ModelProto) -> Session:
    return get_backend("ort").prepare(proto.SerializeToString())


def test_static_sizes_win() -> None:
    merged = common_inputs(
        load(unary("Neg", FLOAT, (4, "h", None))), load(unary("Neg", FLOAT, ("n", 5, "w")))
    )
    assert [spec.shape for spec in merged] == [(4, 5, None)]


def test_an_unknown_rank_takes_the_others() -> None:
    known, unknown = load(unary("Neg", FLOAT, (4, "h"))), load(unary("Neg", FLOAT, None))
    assert common_inputs(known, unknown) == common_inputs(unknown, known)
    assert common_inputs(unknown, known)[0].shape == (4, "h")


def renamed(which: str) -> ModelProto:
    proto = unary("Neg")
    if which == "input":
        proto.graph.input[0].name = proto.graph.node[0].input[0] = "z"
    else:
        proto.graph.output[0].name = proto.graph.node[0].output[0] = "z"
    return proto


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (renamed("input"), "the same inputs: only the reference has 'x', only the candidate 'z'"),
        (renamed("output"), "the same outputs: only the reference has 'y', only the candidate 'z'"),
        (unary("Neg", DOUBLE), "float32[n,2] in the reference, float64[n,2] in the candidate"),
        (unary("Neg", FLOAT, ("n", 2, 1)), "float32[n,2,1] in the candidate"),
        (unary("Neg", FLOAT, ("n", 3)), "float32[n,3] in the candidate"),
    ],
    ids=["input name", "output name", "dtype", "rank", "size"],
)
def test_interfaces_that_differ(other: ModelProto, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        common_inputs(load(unary("Neg")), load(other))
    assert message in str(caught.value)


def test_models_without_an_output() -> None:
    class Mute:
        provider = "none"
        threads = 1
        inputs = outputs = ()

    with pytest.raises(UsageError, match="no output"):
        common_inputs(Mute(), Mute())
