"""Tables and lines for people. Site ids are folded where a terminal is narrow, never cut."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployconv.report.lines import (
    candidate_line,
    count,
    dla_cell,
    dla_lines,
    latency_line,
    milliseconds,
    parity_line,
    rewriting_lines,
    sites_line,
    target_lines,
)
from deployconv.report.text import one_line
from deployconv.results import (
    Inspection,
    Latency,
    ModelCheck,
    ModelInfo,
    Parity,
    Rewriting,
    SiteReport,
)

_WIDE = 10_000
"""Columns where no terminal folds: a table takes what it needs of them."""

_COLOURS = {
    "rewritten": "green",
    "exact": "green",
    "passed": "green",
    "builds": "green",
    "kept": "yellow",
    "skipped": "yellow",
    "not-run": "yellow",
    "failed": "red",
    "error": "red",
}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to the command line, which knows the exit status for it."""
        raise


def stdout() -> Console:
    """Return a console on standard output: colour and folding on a terminal only."""
    terminal = sys.stdout.isatty()
    return _Console(
        force_terminal=terminal,
        width=None if terminal else _WIDE,
        markup=False,
        emoji=False,
        highlight=False,
    )


def print_lines(console: Console, *lines: str) -> None:
    """Print each line whole, however narrow the terminal."""
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def print_inspection(console: Console, inspection: Inspection) -> None:
    """Print the site table as `rewrite` would leave it, and the reasons."""
    _print_sites(console, inspection.source, inspection.sites, certified=False)
    print_lines(console, *dla_lines(inspection.sites))
    if inspection.note:
        print_lines(console, one_line(inspection.note))
    if inspection.sites:
        print_lines(console, "this is what rewrite --policy all would do; nothing was changed")


def print_rewriting(console: Console, rewriting: Rewriting) -> None:
    """Print the site table, the reasons, the proof, the timing, and the file written."""
    _print_sites(console, rewriting.source, rewriting.sites, certified=True)
    print_lines(console, *target_lines(rewriting.sites))
    print_lines(console, *rewriting_lines(rewriting))


def print_parity(console: Console, checks: Sequence[Parity]) -> None:
    """Print one row for each output on each backend, then a line for each backend."""
    table = make_table("backend", "output", "max |difference|", "relative", "tolerance", "verdict")
    for check in checks:
        for output in check.outputs:
            table.add_row(
                check.backend,
                one_line(output.name),
                f"{output.max_abs:.3g}",
                f"{output.max_rel:.3g}",
                f"{output.tolerance:.3g}",
                coloured("passed" if output.passed else "failed"),
            )
    console.print(table)
    print_lines(console, "", *map(parity_line, checks))


def print_latency(console: Console, latencies: Sequence[Latency], models: Sequence[str]) -> None:
    """Print medians and 95th percentiles of the named models, and what ran them."""
    table = make_table("backend", "model", "median", "p95", "runs")
    for latency in latencies:
        quantiles = filter(None, (latency.before_ms, latency.after_ms))
        for name, times in zip(models, quantiles, strict=True):
            median, p95 = milliseconds(times.median), milliseconds(times.p95)
            table.add_row(latency.backend, one_line(name), median, p95, str(latency.runs))
    console.print(table)
    print_lines(console, "", *map(latency_line, latencies))
    print_lines(console, *dict.fromkeys(f"{one.machine}; {one.runtime}" for one in latencies))
    for latency in latencies:
        _print_profiles(console, latency, models)


def _print_profiles(console: Console, latency: Latency, models: Sequence[str]) -> None:
    """Print the layers' time of each model by site, what belongs to none last."""
    if not latency.profiles:
        return
    table = make_table("model", "layers", "time", "share", "site")
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
    console.print(table)


def print_check(console: Console, check: ModelCheck) -> None:
    """Print the row of one model, as soon as it is known; the path stands last, so fits."""
    outcome = "-"
    if check.rewriting is not None:
        sites = check.rewriting.sites
        rewritten = sum(site.status == "rewritten" for site in sites)
        outcome = f"{rewritten} of {count(sites, 'site')} rewritten"
    row = Text()
    row.append(f"{check.status:<8}", style=_COLOURS[check.status])
    row.append(f"{check.seconds:7.1f} s  ")
    row.append(f"{outcome:<24}")
    row.append(one_line(check.path))
    console.print(row, soft_wrap=True)
    if check.message:
        print_lines(console, f"{'':8}{one_line(check.message)}")


def _print_sites(
    console: Console, source: ModelInfo, sites: Sequence[SiteReport], *, certified: bool
) -> None:
    name = one_line(source.path) if source.path else "model in memory"
    print_lines(console, f"{name}: opset {source.opset}, IR version {source.ir_version}", "")
    if sites:
        console.print(_site_table(sites, certified=certified))
        print_lines(console, "")
    for site in sites:
        if site.reason is not None:
            print_lines(
                console,
                one_line(f"{site.id}: {site.status} - {site.reason.code}: {site.reason.text}"),
            )
        elif site.candidates:
            print_lines(console, one_line(f"{site.id}: {site.status} - in the form marked *"))
        for candidate in site.candidates:
            print_lines(console, candidate_line(candidate))
    print_lines(console, sites_line(sites))


def _site_table(sites: Sequence[SiteReport], *, certified: bool) -> Table:
    headers = ["site", "layer", "status", "form", "conv", "macs / input pixel"]
    lint = any(site.dla for site in sites)
    extra = [*(["certificate"] if certified else []), *(["DLA"] if lint else [])]
    table = make_table(*headers, *extra)
    for site in sites:
        macs = f"{site.macs.before:,} -> {site.macs.after:,}" if site.macs else "-"
        cells: list[str | Text] = [
            one_line(site.id),
            one_line(f"{site.pattern} {_geometry(site)}"),
            coloured(site.status),
            ", ".join(filter(None, (site.form, site.shuffle))) or "-",
            _times(site.conv_kernel) or "-",
            macs,
        ]
        if certified:
            cells.append(coloured(site.certificate) if site.certificate else "-")
        if lint:
            cells.append(dla_cell(site.dla) if site.dla else "-")
        table.add_row(*cells)
    return table


def _geometry(site: SiteReport) -> str:
    """Kernel, stride, and what differs from the plain layer: ``k4x4 s2x2 d2x2 g8 float16``."""
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


def make_table(*headers: str) -> Table:
    """Return a table without lines whose widest columns fold first where space is short."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def coloured(word: str) -> Text:
    """Return ``word`` in the colour of that verdict, plain where it has none."""
    return Text(word, style=_COLOURS.get(word, ""))
