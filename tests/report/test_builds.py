from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from deployconv.report.builds import failure_line, print_build
from deployconv.results import BuildReport, StageResult
from tests.report import samples


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
