"""The JSON documents hold the contract's keys, and are JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from deployconv import results
from deployconv._version import __version__
from deployconv.report import document
from tests.report import samples

SITE_KEYS = [
    *("id", "pattern", "nodes", "scope", "stride", "kernel", "dilation", "group", "dtype"),
    *("status", "reason", "form", "shuffle", "conv_kernel", "macs", "certificate"),
    *("certificate_failure", "parity_only", "target_note", "dla", "candidates", "requantized"),
    "targets",
]


def parsed(content: document.Document) -> document.Document:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    loaded: document.Document = json.loads(document.dumps(content), parse_constant=refuse)
    return loaded


def test_every_document_says_its_schema_and_tool() -> None:
    for content in (
        document.of_inspection(samples.INSPECTION),
        document.of_rewriting(samples.REWRITING),
        document.of_verification([samples.PARITY]),
        document.of_timing([samples.LATENCY], ["a.onnx", "b.onnx"]),
        document.of_batch(samples.CHECK_REPORT),
    ):
        assert parsed(content)["schema_version"] == 1
        assert parsed(content)["tool"] == {"name": "deployconv", "version": __version__}


def test_rewriting_has_the_keys_of_the_contract() -> None:
    content = parsed(document.of_rewriting(samples.REWRITING))
    assert list(content) == [
        *("schema_version", "tool", "model", "sites", "parity", "latency", "output"),
        *("compiled", "not_run", "warnings", "changed", "details", "targets"),
    ]
    assert list(content["model"]) == ["path", "sha256", "opset", "ir_version"]
    rewritten, kept = content["sites"]
    assert list(rewritten) == list(kept) == SITE_KEYS
    assert rewritten["stride"] == [2, 2]
    assert rewritten["macs"] == {"before": 32768, "after": 32768}
    assert rewritten["reason"] is None
    assert kept["reason"] == {"code": "runtime-weight", "text": "the weight arrives at run time"}
    assert kept["macs"] is None
    assert content["output"] == {"path": "net.deploy.onnx", "sha256": "b" * 64}
    assert content["latency"]["before_ms"] == {"median": 5.41, "p95": 5.9}
    assert set(content["latency"]) >= {"backend", "after_ms", "ratio", "provider", "threads"}
    output = content["parity"]["outputs"][0]
    assert output["name"] == "y"
    assert (output["max_abs"], output["max_rel"], output["tolerance"]) == (1.25e-7, 3e-7, 1e-5)


def test_what_the_certificate_does_not_cover_and_where_it_failed_is_there() -> None:
    failure = "1 of 8 elements differ, first at [0, 0, 1]: 3 expected, 4 computed"
    failed = replace(
        samples.REWRITTEN,
        certificate="failed",
        certificate_failure=failure,
        parity_only=("tanh", "erf"),
    )
    done = replace(samples.REWRITING, sites=(samples.REWRITTEN, failed))
    right, wrong = parsed(document.of_rewriting(done))["sites"]
    assert (right["certificate_failure"], right["parity_only"]) == (None, [])
    assert (wrong["certificate_failure"], wrong["parity_only"]) == (failure, ["tanh", "erf"])


def test_every_form_that_was_timed_is_there() -> None:
    measured, slower = parsed(document.of_rewriting(samples.FASTEST))["sites"]
    assert measured["candidates"][1] == {
        **{"name": "crop, col2im", "ms": 3.32, "ratio": 1.63, "low": 1.58, "high": 1.7},
        **{"chosen": True, "alone": False},
    }
    assert slower["reason"]["code"] == "slower"
    assert [entry["chosen"] for entry in slower["candidates"]] == [True, False]
    unmeasured, _ = parsed(document.of_rewriting(samples.REWRITING))["sites"]
    assert unmeasured["candidates"] == []


def test_a_prediction_has_no_measured_time() -> None:
    predicted = replace(samples.REWRITING, sites=(samples.PREDICTED,))
    (site,) = parsed(document.of_rewriting(predicted))["sites"]
    assert site["candidates"] == [
        {"name": "as it was", "predicted_ms": 5.41, "chosen": False},
        {"name": "crop, col2im", "predicted_ms": 3.32, "chosen": True},
    ]


def test_what_was_not_run_is_null_and_has_a_reason() -> None:
    content = parsed(document.of_rewriting(samples.UNPROVED))
    assert content["parity"] is content["latency"] is content["output"] is None
    assert content["sites"][0]["certificate"] is None
    assert {"step": "parity", "reason": "--no-verify was given"} in content["not_run"]


def test_inspection_has_model_and_sites_only() -> None:
    content = parsed(document.of_inspection(samples.INSPECTION))
    assert list(content) == ["schema_version", "tool", "model", "sites"]


def test_nan_and_infinity_become_strings() -> None:
    parity = replace(samples.FAILED_PARITY, outputs=(samples.NAN_OUTPUT,))
    output = parsed(document.of_verification([parity]))["parity"][0]["outputs"][0]
    assert output["max_abs"] == "NaN"
    assert output["max_rel"] == "Infinity"
    below = results.OutputParity("v", float("-inf"), 0.0, 0.0, False)
    parity = replace(parity, outputs=(below,))
    output = parsed(document.of_verification([parity]))["parity"][0]["outputs"][0]
    assert output["max_abs"] == "-Infinity"


def test_check_lists_every_model() -> None:
    models = parsed(document.of_batch(samples.CHECK_REPORT))["models"]
    assert [model["status"] for model in models] == ["passed", "failed", "error", "not-run"]
    assert models[0]["sites"][0]["certificate"] == "exact"
    assert models[1]["parity"]["passed"] is False
    assert models[2]["sites"] == []
    assert models[3]["parity"] is None


def test_a_rewritten_model_in_memory_is_left_out() -> None:
    rewriting = replace(samples.REWRITING, model=object())  # type: ignore[arg-type]
    assert "object" not in document.dumps(document.of_rewriting(rewriting))
