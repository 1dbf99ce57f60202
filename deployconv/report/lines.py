"""The lines of a report: what was proved, what was measured, what was not run.

A step that did not run is called ``not run``, with the reason; it is never called passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from deployconv.results import (
    BatchReport,
    Candidate,
    Compilation,
    Conversion,
    Latency,
    ModelDifference,
    NotRun,
    OutputParity,
    Parity,
    Prediction,
    Rewriting,
    SiteReport,
    SizeParity,
    TargetBuild,
)

_NO_REASON = "no reason was given"
_NAMED = 4
"""Layers that one line names."""
_NAME = 18
"""Columns for the name of a form, if none is longer."""
_WIDEST = 10
"""An interval whose ends differ by a larger factor is called uncertain: it tells nothing."""


def one_line(text: str) -> str:
    """Return ``text`` on one line.

    Names in a model are somebody else's text: white space collapses into single blanks, and what
    a terminal or a log would interpret (escape sequences, lone surrogates) is shown as a Python
    escape.
    """
    visible = (c if c.isprintable() or c.isspace() else ascii(c)[1:-1] for c in text)
    return " ".join("".join(visible).split())


def rewriting_lines(rewriting: Rewriting) -> list[str]:
    """Return the lines below the table of sites of `rewrite`."""
    return [
        certificate_line(rewriting.sites, rewriting.not_run),
        *parity_only_lines(rewriting.sites),
        *(
            [parity_line(rewriting.parity), *size_lines(rewriting.parity)]
            if rewriting.parity
            else [_not_run("parity", rewriting.not_run)]
        ),
        latency_line(rewriting.latency)
        if rewriting.latency
        else _not_run("latency", rewriting.not_run),
        *([compiled_line(rewriting.compiled)] if rewriting.compiled else []),
        _written_line(rewriting),
    ]


def _written_line(rewriting: Rewriting) -> str:
    if rewriting.output is None:
        return "wrote no model"
    copy = "" if rewriting.changed else ", a copy: nothing was changed"
    return f"wrote {one_line(rewriting.output.path)}{copy}"


def candidate_lines(candidates: Sequence[Candidate | Prediction]) -> list[str]:
    """Describe the forms of one site: their times within the model, or their predicted times."""
    width = max([_NAME, *(len(candidate.name) for candidate in candidates)])
    return [_candidate_line(candidate, width) for candidate in candidates]


def _candidate_line(candidate: Candidate | Prediction, width: int) -> str:
    named = f"  {'*' if candidate.chosen else ' '} {candidate.name:{width}}"
    if isinstance(candidate, Prediction):
        return f"{named} {candidate.predicted_ms:9.3f} ms predicted"
    certain = candidate.high <= _WIDEST * candidate.low
    interval = f"{candidate.low:.2f} to {candidate.high:.2f}" if certain else "uncertain"
    alone = ", these layers alone" if candidate.alone else ""
    return f"{named} {candidate.ms:9.3f} ms  {candidate.ratio:.2f} ({interval}){alone}"


def certificate_line(sites: Sequence[SiteReport], not_run: Sequence[NotRun] = ()) -> str:
    """Say how many of the changed sites compute the same integers, bit for bit.

    A kept layer that takes its neighbours into its weights is changed, too.
    """
    changed = [site for site in sites if site.changed]
    if not changed:
        return "certificate: not run - no site was changed"
    failed = [site.id for site in sites if site.certificate == "failed"]
    if failed:
        names = one_line(", ".join(failed))
        return f"certificate: failed ({len(failed)} of {count(changed, 'site')}: {names})"
    exact = [site for site in changed if site.certificate == "exact"]
    if not exact:
        return _not_run("certificate", not_run)
    if len(exact) < len(changed):
        return f"certificate: exact ({len(exact)} of {count(changed, 'site')}; not run for others)"
    return f"certificate: exact ({count(exact, 'site')})"


def parity_only_lines(sites: Sequence[SiteReport]) -> list[str]:
    """Name the layers of rewritten sites that no certificate covers, in one line if there are any.

    At most a few are named; the JSON document lists all.
    """
    missed = list(dict.fromkeys(node for site in sites for node in site.parity_only))
    if not missed:
        return []
    named = ", ".join(missed[:_NAMED])
    more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
    return [f"covered by parity only: {one_line(named)}{more}"]


def parity_line(parity: Parity) -> str:
    """Say whether the outputs agree, and how far the one closest to its tolerance differs."""
    verdict = "passed" if parity.passed else "failed"
    line = f"parity: {verdict} on {parity.backend}"
    if not parity.outputs:
        return f"{line}, no output was compared"
    agree = all(output.passed for output in parity.outputs)
    worst = _worst(parity.outputs, agree)
    line += f", {worst}" if agree is parity.passed else f"; at the first sizes {worst}"
    return f"{line}; {one_line(parity.note)}" if parity.note else line


def _worst(outputs: Sequence[OutputParity], passed: bool) -> str:
    """The difference of the output that is closest to its tolerance."""
    worst = max(outputs, key=_severity)
    if worst.problem:
        return f"output {one_line(worst.name)}: {one_line(worst.problem)}"
    where = "" if passed else f"output {one_line(worst.name)}: "
    return f"{where}max |difference| {worst.max_abs:.3g} (tolerance {worst.tolerance:.3g})"


def size_lines(parity: Parity) -> list[str]:
    """Say for each other size whether the outputs agree there, or why the original did not run."""
    return [one_line(f"parity at {_sizes(size)}: {_at_size(size)}") for size in parity.other_sizes]


def sizes_line(parity: Parity) -> str | None:
    """List the sizes that a model with dynamic inputs was run at; None for any other model."""
    if not parity.other_sizes:
        return None
    ran = [_sizes(size) for size in parity.other_sizes if size.status != "not-run"]
    missed = [
        f"{_sizes(size)} (not run)" for size in parity.other_sizes if size.status == "not-run"
    ]
    return one_line(f"parity at {'; '.join((_shown(parity.shapes), *ran, *missed))}")


def _sizes(size: SizeParity) -> str:
    return _shown(size.shapes)


def _shown(shapes: Mapping[str, Sequence[int]]) -> str:
    """Write shapes as ``--shape`` takes them."""
    return " ".join(f"{name}:{','.join(map(str, shape))}" for name, shape in shapes.items())


def _at_size(size: SizeParity) -> str:
    if size.status == "not-run":
        return f"not run - {size.reason or _NO_REASON}"
    if not size.outputs:
        return f"{size.status}, {size.reason}"
    passed = size.status == "passed"
    empty = any(0 in shape for shape in size.shapes.values())
    worst = "outputs of the same shapes" if passed and empty else _worst(size.outputs, passed)
    return f"{size.status}, {worst}" + (f"; {size.reason}" if size.reason else "")


def latency_line(latency: Latency) -> str:
    """Say how long one model takes, or how the second compares with the first."""
    graph = ", CUDA graph" if latency.cuda_graph else ""
    threads = count(latency.threads, "thread")
    where = f"({latency.backend}, {latency.provider}, {threads}{graph})"
    note = f"; {one_line(latency.note)}" if latency.note else ""
    before = milliseconds(latency.before_ms.median)
    if latency.after_ms is None or latency.ratio is None:
        return f"latency: {before} {where}{note}"
    line = f"latency: {before} -> {milliseconds(latency.after_ms.median)}, "
    line += f"{latency.ratio:.2f} times as fast"
    if latency.low is None or latency.high is None:
        return f"{line} {where}; too few runs to tell a difference from noise{note}"
    line += f", {latency.low:.2f} to {latency.high:.2f} with 95 % confidence {where}"
    if latency.high < 1:
        line += "; slower here: --policy fastest keeps what is measured to be faster"
    elif latency.low <= 1:
        line += "; no difference beyond noise"
    return f"{line}{note}"


def compiled_line(compiled: Compilation) -> str:
    """Say for each target whether the model builds as exported and as rewritten."""
    targets = (
        f"{before.target} {_built(before)} -> {_built(after)}" for before, after in compiled.pairs
    )
    verdict = {True: "passed", False: "failed", None: "none, as neither builds"}[compiled.passed]
    runtime = compiled.after.runtime
    executed = any(built.conversion for built in compiled.after.targets)
    what = "targets" if executed else "compile evidence"
    rest = "" if executed else "; nothing was executed"
    return one_line(f"{what}: {verdict}, {', '.join(targets)} ({runtime}{rest})")


def failure_line(built: TargetBuild) -> str:
    """Say in one line why the build for a target failed: ``sm89: build failed: ...``."""
    stage = built.failure
    assert stage is not None
    where = f" at node {stage.node}" if stage.node else ""
    where += f" ({stage.operator})" if stage.operator else ""
    return one_line(f"{built.target or 'this GPU'}: {stage.name} failed{where}: {stage.reason}")


def sites_line(sites: Sequence[SiteReport], *, done: bool = True) -> str:
    """Count the sites by what became of them, or what would become of them."""
    if not sites:
        return "no upsampling layer found: nothing to rewrite"
    would = "" if done else "would be "
    return f"{count(sites, 'site')}: {would}{_tally(site.status for site in sites)}"


def batch_summary(report: BatchReport) -> str:
    """Count the models of a call by verdict."""
    return f"{count(report.models, 'model')}: {_tally(model.status for model in report.models)}"


def suggestion_line(model: str, latency: Latency | None) -> str | None:
    """Name the command that was measured to be faster; None if it was not clearly."""
    if latency is None or latency.ratio is None or latency.low is None or latency.low <= 1:
        return None
    return (
        f"faster here: deployconv rewrite {model} --policy cost: {latency.ratio:.2f} times as fast "
        f"as the original, {latency.low:.2f} to {latency.high:.2f} with 95 % confidence"
    )


def difference_lines(difference: ModelDifference) -> list[str]:
    """Say what differs between two models, one line per node and weight."""
    lines = [f"  {line}" for line in difference.interface]
    for sign, nodes in (("-", difference.nodes_removed), ("+", difference.nodes_added)):
        lines += [f"{sign} node {one.operator} {one.scope}/{one.name}" for one in nodes]
    for sign, names in (("-", difference.weights_removed), ("+", difference.weights_added)):
        lines += [f"{sign} weight {name}" for name in names]
    for one in difference.weights_changed:
        how = (
            f"{one.before} -> {one.after}"
            if one.max_abs is None
            else f"{one.before}, max |difference| {one.max_abs:.3g}"
        )
        lines.append(f"~ weight {one.name}: {how}")
    counts = (
        f"nodes: {len(difference.nodes_removed)} removed, {len(difference.nodes_added)} added",
        f"weights: {len(difference.weights_removed)} removed, "
        f"{len(difference.weights_added)} added, {len(difference.weights_changed)} changed",
        f"interface: {'differs' if difference.interface else 'the same'}",
    )
    end = "the models are equal" if difference.equal else "; ".join(counts)
    return [*map(_shown_line, lines), end]


def _shown_line(line: str) -> str:
    """Make a line safe to print, with the blanks that it begins with."""
    return line[: len(line) - len(line.lstrip())] + one_line(line)


def batch_lines(report: BatchReport) -> list[str]:
    """Return the lines below the table of several models."""
    lines = [batch_summary(report)]
    if report.interrupted:
        left = count(report.remaining, "model")
        lines.append(
            f"interrupted by {report.interrupted}: {left} left; "
            "with --json > FILE.json, --resume FILE.json goes on from there"
        )
    return lines


def milliseconds(value: float) -> str:
    """Format a time with three significant digits: ``5.41 ms``."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{decimals}f} ms"


def count(things: int | Sequence[object], name: str) -> str:
    """Format a number with its noun: ``1 site``, ``2 sites``."""
    number = things if isinstance(things, int) else len(things)
    return f"{number} {name}{'' if number == 1 else 's'}"


def _tally(statuses: Iterable[str]) -> str:
    return ", ".join(f"{number} {status}" for status, number in Counter(statuses).most_common())


def _built(built: TargetBuild) -> str:
    if not built.builds:
        return "fails"
    if built.conversion is not None:
        noted = _noted(built.conversion)
        computed = "is right" if built.conversion.outputs else "converts"
        return f"{'is wrong' if built.misread else computed}{f' ({noted})' if noted else ''}"
    return "builds" if built.kernels is None else f"builds ({count(built.kernels, 'kernel')})"


def _noted(conversion: Conversion) -> str:
    """What a toolchain counted: ``25,600 cycles, 2 operators on the CPU``."""
    notes = conversion.notes
    counted = [f"{notes[unit]:,} {unit}" for unit in ("cycles", "multiplications") if unit in notes]
    on_cpu = str(notes.get("cpu", "")).split()
    return ", ".join([*counted, *([f"{count(on_cpu, 'operator')} on the CPU"] if on_cpu else [])])


def _severity(output: OutputParity) -> tuple[bool, bool, float]:
    """Sort key of outputs: failed ones last, and among these another shape or dtype last."""
    used = output.max_abs / output.tolerance if output.tolerance else output.max_abs
    return not output.passed, output.problem is not None, used


def _not_run(step: str, not_run: Sequence[NotRun]) -> str:
    reasons = [entry.reason for entry in not_run if entry.step == step]
    return f"{step}: not run - {one_line('; '.join(reasons)) or _NO_REASON}"
