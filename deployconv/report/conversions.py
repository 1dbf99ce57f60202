"""Print for people what the toolchains of targets made of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployconv.report.console import Table, Verdict, print_lines, print_table
from deployconv.report.lines import failure_line, one_line
from deployconv.results import BuildReport, TargetBuild

if TYPE_CHECKING:
    from rich.console import Console


def print_conversions(console: Console | None, report: BuildReport) -> None:
    """Print one row per target: whether it takes the model, and computes it right."""
    name = one_line(report.source.path) if report.source.path else "model in memory"
    table = Table(("target", "toolchain", "verdict", "difference", "it says"))
    for built in report.targets:
        runtime = built.conversion.runtime if built.conversion else ""
        differences = _differences(built)
        table.add_row(
            built.target or "", one_line(runtime), _verdict(built), differences, _notes(built)
        )
    print_lines(console, name, "")
    print_table(console, table)
    print_lines(console, "")
    for bound in report.shapes:
        shape = ",".join(map(str, bound.opt))
        print_lines(console, f"input {one_line(bound.name)}: {shape}")
    if report.note:
        print_lines(console, one_line(report.note))
    failed = (built for built in report.targets if built.failure is not None)
    print_lines(console, *map(failure_line, failed))


def _verdict(built: TargetBuild) -> str:
    if not built.builds:
        return Verdict("failed")
    if built.misread:
        return "wrong"
    compared = built.conversion is not None and built.conversion.outputs
    return Verdict("passed") if compared else "converted"


def _differences(built: TargetBuild) -> str:
    outputs = built.conversion.outputs if built.conversion else ()
    return f"{max(one.max_rel for one in outputs):.1e}" if outputs else "-"


def _notes(built: TargetBuild) -> str:
    """What was counted and where operators run; the long lists are in the JSON only."""
    notes = dict(built.conversion.notes) if built.conversion else {}
    known = [
        f"{key} {value:,}" if isinstance(value, int) else f"{key}: {value}"
        for key, value in notes.items()
        if key in ("cycles", "multiplications", "cpu")
    ]
    return one_line("; ".join(known)) or "-"
