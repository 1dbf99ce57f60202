"""The tables: whole without a terminal; folded on one, but never cut."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.text import Text

from deployconv.report import console
from deployconv.report.console import print_build
from deployconv.report.lines import failure_line
from deployconv.results import BuildReport, ModelCheck, StageResult
from tests.report import samples

LONG_ID = "main/" + "/".join(f"very_long_scope_name_{index}" for index in range(12))


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Console | None:
    return console.stdout()


def terminal(columns: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=columns, markup=False)


def test_rewriting(out: Console | None, capsys: pytest.CaptureFixture[str]) -> None:
    console.print_rewriting(out, samples.REWRITING)
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == "net.onnx: opset 17, IR version 8"
    row = next(line for line in printed if line.startswith(samples.REWRITTEN.id + " "))
    assert row.split() == [
        *(samples.REWRITTEN.id, "conv_transpose", "k4x4", "s2x2", "float32", "rewritten"),
        *("crop,", "dcr", "2x2", "32,768", "->", "32,768", "exact"),
    ]
    row = next(line for line in printed if line.startswith(samples.KEPT.id + " "))
    assert "k4x4 s2x2 d2x1 g8 float16" in row
    reason = "kept - runtime-weight: the weight arrives at run time"
    assert f"{samples.KEPT.id}: {reason}" in printed
    assert printed[-5:] == [
        "2 sites: 1 rewritten, 1 kept",
        "certificate: exact (1 site)",
        "parity: passed on ort, max |difference| 1.25e-07 (tolerance 1e-05)",
        "latency: 5.41 ms -> 3.32 ms, 1.63 times as fast, 1.58 to 1.70 with 95 % confidence"
        " (ort, CPUExecutionProvider, 2 threads)",
        "wrote net.deploy.onnx",
    ]


def test_candidates_stand_under_their_site(
    out: Console | None, capsys: pytest.CaptureFixture[str]
) -> None:
    console.print_rewriting(out, samples.FASTEST)
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    start = printed.index(f"{samples.MEASURED.id}: rewritten - in the form marked *")
    assert [line.split(" ms ")[0].strip() for line in printed[start + 1 : start + 7]] == [
        "as it was              5.410",
        "* crop, col2im           3.320",
        "crop, dcr              6.000",
        f"{samples.SLOWER.id}: kept - slower: no other form of it was measured to be faster",
        "* as it was              5.410",
        "crop, dcr              6.000",
    ]


def test_a_site_that_another_rewrite_includes_is_marked_in_no_form(
    out: Console | None, capsys: pytest.CaptureFixture[str]
) -> None:
    unmarked = tuple(replace(one, chosen=False) for one in samples.MEASURED.candidates)
    joined = replace(samples.MEASURED, candidates=unmarked)
    console.print_rewriting(out, replace(samples.FASTEST, sites=(joined,)))
    printed = capsys.readouterr().out
    assert f"{joined.id}: rewritten - together with another site" in printed
    assert "*" not in printed


def test_a_profile_by_site(out: Console | None, capsys: pytest.CaptureFixture[str]) -> None:
    console.print_latency(out, [samples.PROFILED], ["a.onnx", "b.onnx"])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    header = printed.index(["model", "layers", "time", "share", "site"])
    assert printed[header + 1 :] == [
        ["a.onnx", "1", "1.50", "ms", "75%", "main/up"],
        ["a.onnx", "1", "0.500", "ms", "25%", "no", "site"],
        ["b.onnx", "2", "0.000", "ms", "-", "main/up", "+", "main/last"],
    ]
    console.print_latency(out, [samples.LATENCY], ["a.onnx", "b.onnx"])
    assert "profile" not in capsys.readouterr().out


def test_no_terminal_means_no_colour_and_no_cut(
    out: Console | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    site = replace(samples.REWRITTEN, id=LONG_ID)
    console.print_rewriting(console.stdout(), replace(samples.REWRITING, sites=(site,)))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert any(line.startswith(LONG_ID + " ") for line in printed.splitlines())


@pytest.mark.parametrize("name", ["main/up", "main/\u4e0a\u91c7\u6837", ""])
def test_plain_text_is_what_rich_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    sites = (replace(samples.REWRITTEN, id=name), samples.KEPT)
    rich = Console(file=io.StringIO(), width=10_000, markup=False, highlight=False, emoji=False)
    for where in (None, rich):
        console.print_rewriting(where, replace(samples.REWRITING, sites=sites))
        console.print_parity(where, [samples.FAILED_PARITY])
        console.print_latency(where, [samples.PROFILED], ["a.onnx", "b.onnx"])
        console.print_build(where, samples.BUILD_REPORT)
        for model in samples.CHECK_REPORT.models:
            console.print_run(where, model)
    assert isinstance(rich.file, io.StringIO)
    assert capsys.readouterr().out == rich.file.getvalue()


@pytest.mark.parametrize("columns", [60, 80, 132])
def test_a_narrow_terminal_folds_the_id(columns: int) -> None:
    site = replace(samples.REWRITTEN, id=LONG_ID)
    screen = terminal(columns)
    console.print_rewriting(screen, replace(samples.REWRITING, sites=(site,)))
    assert isinstance(screen.file, io.StringIO)
    printed = Text.from_ansi(screen.file.getvalue()).plain
    table = printed.split("\n\n")[1].splitlines()
    header = next(number for number, line in enumerate(table) if "layer" in line)
    end = table[header].index("layer")
    assert "".join(line[:end].strip() for line in table[header + 1 :]) == LONG_ID
    assert "…" not in printed


def test_no_site(out: Console | None, capsys: pytest.CaptureFixture[str]) -> None:
    console.print_rewriting(out, samples.WITHOUT_SITES)
    printed = capsys.readouterr().out
    assert "no upsampling layer found: nothing to rewrite" in printed
    assert "certificate: not run - no site was changed" in printed


def test_inspection_promises_nothing(
    out: Console | None, capsys: pytest.CaptureFixture[str]
) -> None:
    console.print_inspection(out, samples.INSPECTION)
    printed = capsys.readouterr().out
    assert "nothing was changed" in printed
    assert "certificate" not in printed


def test_verdicts_of_parity(out: Console | None, capsys: pytest.CaptureFixture[str]) -> None:
    console.print_parity(out, [samples.FAILED_PARITY])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["ort", "y", "1.25e-07", "3e-07", "1e-05", "passed"]
    assert printed[2].split() == ["ort", "z", "0.5", "0.25", "1e-05", "failed"]
    assert printed[-1].startswith("parity: failed on ort")


def test_latency_names_models_and_machine(
    out: Console | None, capsys: pytest.CaptureFixture[str]
) -> None:
    console.print_latency(out, [samples.LATENCY], ["a.onnx", "b.onnx"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["ort", "a.onnx", "5.41", "ms", "5.90", "ms", "30"]
    assert printed[2].split() == ["ort", "b.onnx", "3.32", "ms", "3.50", "ms", "30"]
    assert printed[-1] == "x86_64, 2 cores; onnxruntime 1.32.0"


def test_rows_of_check(out: Console | None, capsys: pytest.CaptureFixture[str]) -> None:
    for model in samples.CHECK_REPORT.models:
        console.print_run(out, model)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "passed      1.5 s  1 of 2 sites rewritten  a.onnx"
    assert printed[1].startswith("failed ")
    assert printed[2].strip() == "parity <failed>"
    assert printed[3].split() == ["error", "0.0", "s", "-", "c.onnx"]
    assert "\x1b" not in "".join(printed)
    assert printed[-1].strip() == "ort:cuda is not available"


def test_check_lists_the_sizes_of_a_dynamic_model(capsys: pytest.CaptureFixture[str]) -> None:
    done = replace(samples.REWRITING, parity=samples.DYNAMIC_PARITY)
    console.print_run(None, ModelCheck("a.onnx", "passed", 1.5, done))
    _, line = capsys.readouterr().out.splitlines()
    assert line.strip() == "parity at x:1,3,64,64; x:2,3,32,96; x:0,3,64,64 (not run)"


def printed(report: BuildReport) -> list[str]:
    stream = io.StringIO()
    print_build(Console(file=stream, width=1000, markup=False, highlight=False), report)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_build_that_passes() -> None:
    header, blank, columns, row, *rest = printed(samples.BUILD_REPORT)
    assert header == "net.onnx: tensorrt_rtx 1.7.1"
    assert blank == ""
    assert columns.split() == [
        *("target", "verdict", "build", "engine", "weights", "activations", "kernels")
    ]
    cells = "sm86 builds 0.12 s 374.8 kB 96.0 kB 9.63 MB 3: 2 kgen, 1 deconv"
    assert row.split() == cells.split()
    assert rest == [
        "",
        "input x: 1,8..1,16..4,32",
        "input z: 1,8",
        "shapes chosen by deployconv: z:1,8",
        "wrote net.sm86.engine",
        "deserialize, run, profile: not run - no CUDA driver",
        "compile evidence: nothing was executed; a build that passes may still not run",
    ]


def test_a_build_that_fails_is_told_in_the_librarys_words() -> None:
    lines = printed(samples.FAILED_BUILD_REPORT)
    assert lines[4].split() == ["sm89", "failed", "-", "-", "-", "-", "-"]
    line = "sm89: parse failed at node up (ConvTranspose): no negative pads"
    assert failure_line(samples.NOT_BUILT) == line
    assert line in lines


def test_the_gpu_of_this_machine() -> None:
    loaded = StageResult("deserialize", "ok", 0.5)
    stages = tuple(loaded if one.name == "deserialize" else one for one in samples.BUILT.stages)
    here = replace(samples.BUILT, target=None, stages=stages, kernels=None)
    lines = printed(replace(samples.BUILD_REPORT, targets=(here,)))
    assert lines[3].startswith("this GPU  builds")
    assert lines[3].endswith("  -")
    assert not any("not run -" in line for line in lines)
