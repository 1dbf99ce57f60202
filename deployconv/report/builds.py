"""What TensorRT made of a model, for people: compile evidence, and called that."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from deployconv.report.console import coloured, make_table, print_lines
from deployconv.report.text import one_line
from deployconv.results import BuildReport, ShapeRange, TargetBuild

_EVIDENCE = "compile evidence: nothing was executed; a build that passes may still not run"


def print_build(console: Console, report: BuildReport) -> None:
    """Print one row for each target, TensorRT's words where it failed, and the kernels."""
    name = one_line(report.source.path) if report.source.path else "model in memory"
    print_lines(console, f"{name}: {report.runtime}", "")
    columns = ("target", "verdict", "build", "engine", "weights", "activations", "kernels")
    table = make_table(*columns)
    for built in report.targets:
        table.add_row(
            built.target or "this GPU",
            coloured("builds" if built.builds else "failed"),
            _seconds(built.stage("build").seconds),
            _bytes(built.engine_bytes),
            _bytes(built.weights_bytes),
            _bytes(built.activation_bytes),
            _kernels(built),
        )
    console.print(table)
    print_lines(console, "")
    for bound in report.shapes:
        print_lines(console, f"input {one_line(bound.name)}: {_range(bound)}")
    if report.note:
        print_lines(console, one_line(report.note))
    for built in report.targets:
        if built.failure is not None:
            print_lines(console, failure_line(built))
        if built.engine is not None:
            print_lines(console, f"wrote {one_line(built.engine.path)}")
    loads = (built.stage("deserialize") for built in report.targets if built.builds)
    for reason in dict.fromkeys(stage.reason for stage in loads if stage.status == "not-run"):
        print_lines(console, f"deserialize, run, profile: not run - {reason}")
    print_lines(console, _EVIDENCE)


def failure_line(built: TargetBuild) -> str:
    """Say in one line why a target failed: ``sm89: build failed: ...``."""
    stage = built.failure
    assert stage is not None
    where = f" at node {stage.node}" if stage.node else ""
    where += f" ({stage.operator})" if stage.operator else ""
    return one_line(f"{built.target or 'this GPU'}: {stage.name} failed{where}: {stage.reason}")


def _kernels(built: TargetBuild) -> str:
    """The number of kernels and of which kinds: ``5: 2 kgen, 1 correlation, 2 deconv``."""
    if built.kernels is None:
        return "-"
    kinds = Counter(kernel.kind for kernel in built.kernels)
    listed = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    return f"{len(built.kernels)}: {listed}" if listed else "0"


def _range(bound: ShapeRange) -> str:
    corners = (",".join(map(str, shape)) for shape in (bound.min, bound.opt, bound.max))
    return "..".join(dict.fromkeys(corners))


def _bytes(size: int | None) -> str:
    if size is None:
        return "-"
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
