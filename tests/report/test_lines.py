"""The closing lines say exact, passed or faster only if that is so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployconv.report import lines
from deployconv.report.lines import one_line
from deployconv.results import Latency, NotRun, Parity, Quantiles, SizeParity
from tests.report import samples


def timed(before: float, after: float) -> Latency:
    return replace(
        samples.LATENCY,
        before_ms=Quantiles(before, before),
        after_ms=Quantiles(after, after),
        ratio=before / after,
    )


def test_all_is_well() -> None:
    assert lines.rewriting_lines(samples.REWRITING) == [
        "certificate: exact (1 site)",
        "parity: passed on ort, max |difference| 1.25e-07 (tolerance 1e-05)",
        "latency: 5.41 ms -> 3.32 ms, 1.63 times as fast, 1.58 to 1.70 with 95 % confidence"
        " (ort, CPUExecutionProvider, 2 threads)",
        "wrote net.deploy.onnx",
    ]


def test_a_cuda_graph_is_part_of_how_it_was_timed() -> None:
    assert "(tensorrt, CPUExecutionProvider, 2 threads, CUDA graph)" in lines.latency_line(
        samples.PROFILED
    )


def test_nothing_was_run() -> None:
    assert lines.rewriting_lines(samples.UNPROVED) == [
        "certificate: not run - --no-verify was given",
        "parity: not run - --no-verify was given",
        "latency: not run - --no-bench was given",
        "wrote no model",
    ]


def test_a_missing_reason_does_not_turn_into_a_pass() -> None:
    silent = replace(samples.UNPROVED, not_run=())
    assert not [line for line in lines.rewriting_lines(silent) if "passed" in line]
    assert lines.rewriting_lines(silent)[1] == "parity: not run - no reason was given"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("exact", "exact"), "certificate: exact (2 sites)"),
        (("exact", "failed"), "certificate: failed (1 of 2 sites: main/1)"),
        (("exact", None), "certificate: exact (1 of 2 sites; not run for others)"),
        ((None, None), "certificate: not run - asked not to"),
        ((), "certificate: not run - no site was changed"),
    ],
)
def test_certificate(verdicts: tuple[str | None, ...], expected: str) -> None:
    sites = [
        replace(samples.REWRITTEN, id=f"main/{index}", certificate=verdict)  # type: ignore[arg-type]
        for index, verdict in enumerate(verdicts)
    ]
    assert lines.certificate_line(sites, [NotRun("certificate", "asked not to")]) == expected


def test_failed_parity_names_the_output() -> None:
    assert lines.parity_line(samples.FAILED_PARITY) == (
        "parity: failed on ort, output z: max |difference| 0.5 (tolerance 1e-05)"
    )


def test_another_problem_than_size_comes_first() -> None:
    parity = Parity("ort", False, (samples.WRONG_OUTPUT, samples.NAN_OUTPUT))
    assert lines.parity_line(parity) == "parity: failed on ort, output w: NaN at other places"


def test_the_output_closest_to_its_tolerance_stands_for_all() -> None:
    loose = replace(samples.EXACT_OUTPUT, name="loose", max_abs=1e-3, tolerance=1.0)
    parity = Parity("ort", True, (loose, samples.EXACT_OUTPUT), note="compared as float32")
    assert lines.parity_line(parity) == (
        "parity: passed on ort, max |difference| 1.25e-07 (tolerance 1e-05); compared as float32"
    )


def test_sizes_that_were_run() -> None:
    assert lines.size_lines(samples.DYNAMIC_PARITY) == [
        "parity at x:2,3,32,96: passed, max |difference| 1.25e-07 (tolerance 1e-05)",
        "parity at x:0,3,64,64: not run - the original does not run there: why",
    ]
    assert lines.sizes_line(samples.DYNAMIC_PARITY) == (
        "parity at x:1,3,64,64; x:2,3,32,96; x:0,3,64,64 (not run)"
    )
    assert (lines.size_lines(samples.PARITY), lines.sizes_line(samples.PARITY)) == ([], None)


def test_what_differs_at_another_size() -> None:
    shapes = {"x": (0, 3, 8, 8), "mask": (1, 8)}
    sizes = (
        SizeParity(shapes, "failed", (samples.WRONG_OUTPUT,), "computed in float16"),
        SizeParity(shapes, "failed", reason="the candidate does not run"),
        SizeParity(shapes, "passed", (samples.EXACT_OUTPUT,)),
    )
    parity = replace(samples.PARITY, passed=False, other_sizes=sizes)
    assert lines.parity_line(parity) == (
        "parity: failed on ort; at the first sizes max |difference| 1.25e-07 (tolerance 1e-05)"
    )
    where = "parity at x:0,3,8,8 mask:1,8"
    assert lines.size_lines(parity) == [
        f"{where}: failed, output z: max |difference| 0.5 (tolerance 1e-05); computed in float16",
        f"{where}: failed, the candidate does not run",
        f"{where}: passed, outputs of the same shapes",
    ]


def test_parity_without_outputs_is_called_so() -> None:
    assert "no output was compared" in lines.parity_line(Parity("ort", True, ()))


@pytest.mark.parametrize(
    ("low", "high", "ending"),
    [
        (1.9, 2.1, " times as fast, 1.90 to 2.10 with 95 % confidence (ort, CPUExecutionProvider,"),
        (1.001, 1.01, "CPUExecutionProvider, 2 threads)"),
        (0.9, 2.1, "2 threads); no difference beyond noise"),
        (1.0, 1.01, "2 threads); no difference beyond noise"),
        (0.9, 0.99, "--policy fastest keeps what is measured to be faster"),
        (None, None, "2 threads); too few runs to tell a difference from noise"),
    ],
)
def test_a_difference_is_claimed_if_the_interval_says_so(
    low: float | None, high: float | None, ending: str
) -> None:
    latency = replace(timed(2.0, 1.0), low=low, high=high)
    assert ending in lines.latency_line(latency)
    claimed = "no difference" not in ending and "too few" not in ending
    line = lines.latency_line(latency)
    assert ("no difference" not in line and "too few" not in line) is claimed


@pytest.mark.parametrize("ratio", [1.63, None], ids=["two models", "one model"])
def test_a_busy_machine_is_told(ratio: float | None) -> None:
    busy = "the machine is busy: a load of 5.0 on 2 processors"
    latency = replace(samples.LATENCY, ratio=ratio)
    line = lines.latency_line(latency)
    assert lines.latency_line(replace(latency, note=busy)) == f"{line}; {busy}"


def test_latency_of_one_model() -> None:
    alone = replace(samples.LATENCY, after_ms=None, ratio=None, threads=1)
    assert lines.latency_line(alone) == "latency: 5.41 ms (ort, CPUExecutionProvider, 1 thread)"


def test_candidates_line_up_and_the_chosen_one_is_marked() -> None:
    assert lines.candidate_lines(samples.MEASURED.candidates) == [
        "    as it was              5.410 ms  1.00 (1.00 to 1.00)",
        "  * crop, col2im           3.320 ms  1.63 (1.58 to 1.70)",
        "    crop, dcr              6.000 ms  0.90 (0.88 to 0.91)",
    ]


def test_a_candidate_that_was_timed_without_the_model_is_told() -> None:
    alone = replace(samples.MEASURED.candidates[1], alone=True)
    assert lines.candidate_lines([alone])[0].endswith("1.63 (1.58 to 1.70), these layers alone")


def test_a_long_name_moves_all_columns_and_a_wide_interval_is_uncertain() -> None:
    first, chosen, last = samples.MEASURED.candidates
    long = replace(chosen, name="split, col2im, halves + chain", low=0.1, high=9.0)
    assert lines.candidate_lines([first, long, last]) == [
        "    as it was                         5.410 ms  1.00 (1.00 to 1.00)",
        "  * split, col2im, halves + chain     3.320 ms  1.63 (uncertain)",
        "    crop, dcr                         6.000 ms  0.90 (0.88 to 0.91)",
    ]


def test_a_prediction_is_called_one() -> None:
    assert lines.candidate_lines(samples.PREDICTED.candidates) == [
        "    as it was              5.410 ms predicted",
        "  * crop, col2im           3.320 ms predicted",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.03125, "0.031 ms"), (5.414, "5.41 ms"), (54.14, "54.1 ms"), (1541.4, "1541 ms")],
)
def test_milliseconds(value: float, text: str) -> None:
    assert lines.milliseconds(value) == text


def test_no_site_is_said_plainly() -> None:
    assert lines.sites_line(()) == "no upsampling layer found: nothing to rewrite"
    sites = samples.REWRITING.sites
    assert lines.sites_line(sites) == "2 sites: 1 rewritten, 1 kept"


def test_batch_summary() -> None:
    assert lines.batch_summary(samples.CHECK_REPORT) == (
        "4 models: 1 passed, 1 failed, 1 error, 1 not-run"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("two\nlines\r\n\tand  more ", "two lines and more"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\udc80", r"\udc80"),
        ("größe/東京", "größe/東京"),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    assert one_line(text) == expected


@given(st.text())
def test_any_text_becomes_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text).splitlines()) <= 1
