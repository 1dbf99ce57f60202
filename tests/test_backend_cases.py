"""The ONNX package's own backend cases for ConvTranspose, their weights made initializers."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case import node
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from deployconv.options import Form
from tests.build import Array, ops, rewrite, run


def node_cases(*modules: str) -> list[TestCase]:
    """The cases that these modules of ``onnx.backend.test.case.node`` make.

    Only they are imported: making the cases of all operators takes five seconds.
    """
    for module in modules:
        import_module(f"{node.__name__}.{module}")
    return list(node._NodeTestCases)


def cases(kind: str) -> list[TestCase]:
    found = node_cases("convtranspose") if kind == "node" else load_model_tests(kind=kind)
    return [case for case in found if "convtranspose" in case.name.lower()]


def contents(case: TestCase) -> tuple[ModelProto, list[Array], list[Array]]:
    """The model of a case and its first data set, from memory or from the case's folder."""
    if case.model is not None and case.data_sets is not None:
        inputs, outputs = case.data_sets[0]
        return case.model, arrays(inputs), arrays(outputs)
    assert case.model_dir is not None
    folder = Path(case.model_dir)

    def stored(kind: str) -> list[Array]:
        files = (folder / "test_data_set_0").glob(f"{kind}_*.pb")
        return arrays(onnx.load_tensor(file) for file in sorted(files))

    return onnx.load(folder / "model.onnx"), stored("input"), stored("output")


def arrays(values: Iterable[Array | TensorProto]) -> list[Array]:
    return [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in values]


# The cases belong to onnx: there may come to be more of them, but not fewer.
@pytest.mark.parametrize("form", ["auto", "pad", "split"])
@pytest.mark.parametrize(
    ("kind", "at_least"), [("node", 11), ("pytorch-operator", 1), ("pytorch-converted", 2)]
)
def test_rewritten_case_gives_the_expected_output(kind: str, at_least: int, form: Form) -> None:
    found = cases(kind)
    assert len(found) >= at_least
    for case in found:
        original, (x, *parameters), (expected,) = contents(case)
        model = ModelProto()
        model.CopyFrom(original)
        given, *others = original.graph.input
        if parameters:  # the older cases hold theirs as initializers already
            for value, array in zip(others, parameters, strict=True):
                model.graph.initializer.append(numpy_helper.from_array(array, value.name))
                model.graph.input.remove(value)

        done, after = rewrite(model, form=form)

        assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]
        assert ops(after)["ConvTranspose"] == 0, case.name
        (actual,) = run(after, {given.name: x}).values()
        np.testing.assert_allclose(
            actual, expected, case.rtol, case.atol, err_msg=case.name, strict=True
        )
