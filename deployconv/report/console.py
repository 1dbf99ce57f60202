"""The reports for people: tables and lines. A narrow terminal folds site ids, never cuts them.

Rich, which takes long to import, prints them on a terminal only. A file or a pipe gets the same
text without colours and folds.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deployconv.report.layer_lines import (
    dla_cell,
    dla_lines,
    inspection_lines,
    misfit_lines,
    reason_line,
    site_target_lines,
    target_lines,
)
from deployconv.report.lines import (
    candidate_lines,
    count,
    failure_line,
    latency_line,
    milliseconds,
    one_line,
    parity_line,
    rewriting_lines,
    sites_line,
    size_lines,
    sizes_line,
)
from deployconv.results import (
    BuildReport,
    Inspection,
    Latency,
    ModelInfo,
    ModelRun,
    Parity,
    Rewriting,
    ShapeRange,
    SiteReport,
    TargetBuild,
)

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2
"""Blanks between the columns of a table."""

_COLOURS = {
    "rewritten": "green",
    "exact": "green",
    "passed": "green",
    "builds": "green",
    "usable": "green",
    "compiles only": "yellow",
    "missing": "yellow",
    "folded": "green",
    "kept": "yellow",
    "skipped": "yellow",
    "not-run": "yellow",
    "failed": "red",
    "error": "red",
}


_EVIDENCE = "compile evidence: nothing was executed; a build that passes may still not run"


class Verdict(str):
    """A cell that a terminal shows in the colour of that verdict; in none if it is no verdict."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """A table without lines."""

    headers: Sequence[str]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add_row(self, *cells: str) -> None:
        """Add one row, with a cell per header."""
        self.rows.append(cells)


def stdout() -> Console | None:
    """Return a console if standard output is a terminal, else None: plain text is enough."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            """Raise the error again: the command line has an exit status for a closed pipe."""
            raise

    return Terminal(force_terminal=True, markup=False, emoji=False, highlight=False)


def print_lines(console: Console | None, *lines: str) -> None:
    """Print each line whole, even if the terminal is narrow."""
    for line in lines:
        if console is None:
            print(line)
        else:
            from rich.text import Text

            console.print(Text(line), soft_wrap=True)


def print_table(console: Console | None, table: Table) -> None:
    """Print ``table``. If a terminal is too narrow, the widest columns fold first."""
    if console is None:
        rows = (tuple(table.headers), *table.rows)
        widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = zip(row, widths, strict=True)
            print((" " * _GAP).join(cell + " " * (width - _width(cell)) for cell, width in cells))
        return
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for header in table.headers:
        shown.add_column(header, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    console.print(shown)


def _style(cell: str) -> str:
    return _COLOURS.get(cell, "") if isinstance(cell, Verdict) else ""


def _width(text: str) -> int:
    """How many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def print_inspection(console: Console | None, inspection: Inspection) -> None:
    """Print the table of sites as `rewrite` would leave them, and the reasons."""
    _print_sites(console, inspection.source, inspection.sites, certified=False)
    print_lines(console, *site_target_lines(inspection.sites))
    print_lines(console, *misfit_lines(inspection.targets, done=False))
    print_lines(console, *dla_lines(inspection.sites))
    if inspection.note:
        print_lines(console, one_line(inspection.note))
    if inspection.sites:
        names = ", ".join(one.name for one in inspection.targets)
        how = f"for {names}" if names else "--policy all"
        print_lines(console, one_line(f"this is what rewrite {how} would do; nothing was changed"))


def print_rewriting(console: Console | None, rewriting: Rewriting) -> None:
    """Print the table of sites, the reasons, the proof, the timing, and the written file."""
    _print_sites(console, rewriting.source, rewriting.sites, certified=True)
    print_lines(console, *site_target_lines(rewriting.sites))
    print_lines(console, *target_lines(rewriting.sites))
    print_lines(console, *rewriting_lines(rewriting))


def print_parity(console: Console | None, checks: Sequence[Parity]) -> None:
    """Print one row per output and backend, then one line per backend."""
    table = Table(("backend", "output", "max |difference|", "relative", "tolerance", "verdict"))
    for check in checks:
        for output in check.outputs:
            table.add_row(
                check.backend,
                one_line(output.name),
                f"{output.max_abs:.3g}",
                f"{output.max_rel:.3g}",
                f"{output.tolerance:.3g}",
                Verdict("passed" if output.passed else "failed"),
            )
    print_table(console, table)
    lines = [line for check in checks for line in (parity_line(check), *size_lines(check))]
    print_lines(console, "", *lines)


def print_latency(
    console: Console | None, latencies: Sequence[Latency], models: Sequence[str]
) -> None:
    """Print the median and 95th percentile of each named model, and what ran them."""
    table = Table(("backend", "model", "median", "p95", "runs"))
    for latency in latencies:
        quantiles = filter(None, (latency.before_ms, latency.after_ms))
        for name, times in zip(models, quantiles, strict=True):
            median, p95 = milliseconds(times.median), milliseconds(times.p95)
            table.add_row(latency.backend, one_line(name), median, p95, str(latency.runs))
    print_table(console, table)
    print_lines(console, "", *map(latency_line, latencies))
    print_lines(console, *dict.fromkeys(f"{one.machine}; {one.runtime}" for one in latencies))
    for latency in latencies:
        _print_profiles(console, latency, models)


def _print_profiles(console: Console | None, latency: Latency, models: Sequence[str]) -> None:
    """Print the time of each model's layers, grouped by site; layers of no site come last."""
    if not latency.profiles:
        return
    table = Table(("model", "layers", "time", "share", "site"))
    for name, profile in zip(models, latency.profiles, strict=True):
        total = sum(group.ms for group in profile.sites)
        for group in profile.sites:
            table.add_row(
                one_line(name),
                str(len(group.layers)),
                milliseconds(group.ms),
                f"{group.ms / total:.0%}" if total else "-",
                one_line(" + ".join(group.sites)) or "no site",
            )
    runs = latency.profiles[0].runs
    print_lines(console, "", f"profile on {latency.backend}, means of {count(runs, 'run')}:", "")
    print_table(console, table)


def print_run(console: Console | None, check: ModelRun) -> None:
    """Print the verdict on one model. The path comes last, as it may be long."""
    outcome = "-"
    if check.rewriting is not None:
        sites = check.rewriting.sites
        rewritten = sum(site.status == "rewritten" for site in sites)
        outcome = f"{rewritten} of {count(sites, 'site')} rewritten"
    elif isinstance(check.result, Inspection):
        outcome = sites_line(check.result.sites, done=False)
    status = f"{check.status:<8}"
    rest = f"{check.seconds:7.1f} s  {outcome:<22}  {one_line(check.path)}"
    if console is None:
        print(status + rest)
    else:
        from rich.text import Text

        row = Text().append(status, style=_COLOURS[check.status]).append(rest)
        console.print(row, soft_wrap=True)
    lines = [check.message] if check.message else []
    if isinstance(check.result, Inspection):
        lines += inspection_lines(check.result)
    if check.rewriting is not None and check.rewriting.parity is not None:
        lines += filter(None, [sizes_line(check.rewriting.parity)])
    print_lines(console, *(f"{'':8}{one_line(line)}" for line in lines))


def print_build(console: Console | None, report: BuildReport) -> None:
    """Print one row per target with the kernels, and TensorRT's message for a failed build."""
    name = one_line(report.source.path) if report.source.path else "model in memory"
    print_lines(console, f"{name}: {report.runtime}", "")
    columns = ("target", "verdict", "build", "engine", "weights", "activations", "kernels")
    table = Table(columns)
    for built in report.targets:
        table.add_row(
            built.target or "this GPU",
            Verdict("builds" if built.builds else "failed"),
            _seconds(built.stage("build").seconds),
            _bytes(built.engine_bytes),
            _bytes(built.weights_bytes),
            _bytes(built.activation_bytes),
            _kernels(built),
        )
    print_table(console, table)
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


def _print_sites(
    console: Console | None, source: ModelInfo, sites: Sequence[SiteReport], *, certified: bool
) -> None:
    name = one_line(source.path) if source.path else "model in memory"
    print_lines(console, f"{name}: opset {source.opset}, IR version {source.ir_version}", "")
    if sites:
        print_table(console, _site_table(sites, certified=certified))
        print_lines(console, "")
    for site in sites:
        if why := reason_line(site, done=certified):
            print_lines(console, why)
        elif site.candidates:
            print_lines(console, one_line(f"{site.id}: {site.status} - {_how_rewritten(site)}"))
        print_lines(console, *candidate_lines(site.candidates))
    print_lines(console, sites_line(sites, done=certified))


def _how_rewritten(site: SiteReport) -> str:
    """Say in which form a site is rewritten, or that the rewrite of another one includes it."""
    chosen = any(candidate.chosen for candidate in site.candidates)
    return "in the form marked *" if chosen else "together with another site"


def _site_table(sites: Sequence[SiteReport], *, certified: bool) -> Table:
    headers = [
        "site",
        "layer",
        "status" if certified else "would be",
        "form",
        "conv",
        "macs / input pixel",
    ]
    lint = any(site.dla for site in sites)
    extra = [*(["certificate"] if certified else []), *(["DLA"] if lint else [])]
    table = Table((*headers, *extra))
    for site in sites:
        macs = f"{site.macs.before:,} -> {site.macs.after:,}" if site.macs else "-"
        cells: list[str] = [
            one_line(site.id),
            one_line(f"{site.pattern} {_geometry(site)}"),
            Verdict(site.status),
            ", ".join(filter(None, (site.form, site.shuffle))) or "-",
            _times(site.conv_kernel) or "-",
            macs,
        ]
        if certified:
            cells.append(Verdict(site.certificate) if site.certificate else "-")
        if lint:
            cells.append(dla_cell(site.dla) if site.dla else "-")
        table.add_row(*cells)
    return table


def _geometry(site: SiteReport) -> str:
    """Kernel, stride, dilation and group if not 1, data type: ``k4x4 s2x2 d2x2 g8 float16``."""
    dilated = any(step != 1 for step in site.dilation or ())
    parts = (
        f"k{_times(site.kernel)}" if site.kernel else None,
        f"s{_times(site.stride)}" if site.stride else None,
        f"d{_times(site.dilation)}" if dilated else None,
        f"g{site.group}" if site.group not in (None, 1) else None,
        site.dtype,
    )
    return " ".join(filter(None, parts))


def _times(sizes: Iterable[int] | None) -> str:
    return "x".join(map(str, sizes or ()))
