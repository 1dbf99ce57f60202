"""The certificate: old and new nodes agree bit for bit on small random integers.

Weights, bias and input are filled with integers so small that every float32 sum is exact
whatever its order. An index error cannot pass, rounding cannot fail. Float16, bfloat16 and
float64 sites are certified as their float32 twin: neither the nodes nor the arrangement of
the weights depends on the element type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from deployconv.errors import BackendUnavailable, DeployconvError
from deployconv.proof.trial import trial_of
from deployconv.rewrites.lowering import AnyPlan, Subject
from deployconv.runtimes import get_backend

Array = NDArray[Any]
Verdict = Literal["exact", "failed"]


def certify(site: Subject, plan: AnyPlan, seed: int = 0) -> Verdict:
    """Run the old and the new nodes of ``site`` on integers and compare every element.

    Both run in onnxruntime where it is installed and can run them, else in the ONNX
    reference evaluator. Raises BackendUnavailable where neither can run one of them.
    """
    trial = trial_of(site, plan, np.random.default_rng(seed))
    expected, actual = (
        _run(model, trial.feeds, trial.output, site.id) for model in (trial.old, trial.new)
    )
    return "exact" if np.array_equal(expected, actual) else "failed"


def _run(model: ModelProto, feeds: Mapping[str, Array], output: str, site: str) -> Array:
    try:
        session = get_backend("ort").prepare(model.SerializeToString(), optimise=False)
        return session.run(feeds)[output]
    except DeployconvError as refusal:
        # onnxruntime is not installed, or refuses what ONNX allows.
        from deployconv.proof.reference import run_reference

        try:
            return run_reference(model, feeds)[output]
        except Exception as error:
            raise BackendUnavailable(
                f"{site}: no certificate, as neither onnxruntime ({refusal}) nor the ONNX"
                f" reference evaluator ({type(error).__name__}) runs it: leave it out with --skip"
            ) from error
