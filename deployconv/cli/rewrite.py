"""``deployconv rewrite``: rewrite a model, prove it, time it, write it."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployconv.cli.many import call, one_model, run_many
from deployconv.cli.parameters import arguments, json_flag, models_argument, with_options
from deployconv.cli.terminal import progress, warn
from deployconv.errors import CheckFailed, UsageError
from deployconv.options import BatchOptions, RewriteCommand

if TYPE_CHECKING:
    from deployconv.results import Rewriting


@click.command
@models_argument
@with_options(RewriteCommand)
@with_options(BatchOptions, "many")
@json_flag
def rewrite(
    models: tuple[str, ...], options: RewriteCommand, many: BatchOptions, json: bool
) -> int | None:
    """Rewrite models, prove and time the results, write them.

    Each MODEL is an ONNX model file, a folder of them, or a glob; - is standard input.
    """
    model = one_model(models, many)
    streamed = str(options.output) == "-"
    if model is None:
        if streamed:
            raise UsageError("-o -: standard output takes one model: give -o FOLDER")
        return run_many("rewrite", models, options, many, json=json)
    if streamed:
        _check_stream(json)
        if many.timeout is not None:
            raise UsageError("--timeout: not with -o -: name a file")
        options = replace(options, output=None)
    elif options.output is None and not options.dry_run:
        if str(model) == "-":
            raise UsageError("a model from standard input has no name: give -o OUT, or -o -")
        # A path without a name is a folder, which is refused when it is read.
        from deployconv.batch.sources import default_output

        options = replace(options, output=default_output(model) if model.name else None)

    # Where the model goes to standard output, the report goes to standard error.
    with redirect_stdout(sys.stderr) if streamed else nullcontext():
        try:
            with progress(f"rewriting {model}") as advance:
                done = call("rewrite", model, options, many, on_progress=advance)
        except CheckFailed as failure:
            if failure.result is not None:
                _show(failure.result, as_json=json)
            raise
        if streamed and not options.dry_run:
            done = _streamed(done)
        _show(done, as_json=json)
        if not json and not streamed and str(model) != "-":
            _suggest(model, options, done)
    return None


def _check_stream(json: bool) -> None:
    """Raise UsageError if the model cannot be written to standard output."""
    if json:
        raise UsageError("-o - and --json would both write to standard output: name a file")
    if sys.stdout.isatty():
        raise UsageError("-o - would write the model to the terminal: redirect it, or name a file")


def _streamed(done: Rewriting) -> Rewriting:
    """Write the model to standard output. Raises UsageError if part of it is in other files."""
    from deployconv.graph.save import needs_external_data
    from deployconv.results import OutputFile

    assert done.model is not None
    if needs_external_data(done.model):
        raise UsageError("-o -: the model has external data, which needs a file: name one")
    raw = done.model.SerializeToString()
    stdout = sys.__stdout__
    assert stdout is not None
    stdout.buffer.write(raw)
    stdout.buffer.flush()
    return replace(done, output=OutputFile("-", sha256(raw).hexdigest()))


_BRIEF_MS = 20.0
"""Milliseconds of a run of a model that is worth timing once more."""
_SUGGESTION_SECONDS = 2.0
"""What a suggestion may take, without the start of its process."""


def _suggest(model: Path, options: RewriteCommand, done: Rewriting) -> None:
    """Name the command that makes the model faster, if what was done makes it slower.

    The figure is measured in a process of its own, which is ended after `_SUGGESTION_SECONDS`;
    there is no suggestion then. Larger models are not measured again.
    """
    latency = done.latency
    if options.policy not in (None, "all") or options.target:
        return
    if latency is None or latency.high is None or latency.high >= 1:
        return
    if latency.before_ms.median > _BRIEF_MS:
        return
    from deployconv import api
    from deployconv.errors import DeployconvError
    from deployconv.report import console
    from deployconv.report.lines import one_line, suggestion_line
    from deployconv.results import Rewriting

    given = arguments(options) | {"policy": "cost", "form": "auto", "shuffle": "auto"}
    given |= {"verify": False, "strict": False, "report": None, "budget": _SUGGESTION_SECONDS}
    del given["output"]  # it is not written
    try:
        with progress("timing --policy cost"):
            other = api.run_one("rewrite", model, _SUGGESTION_SECONDS, **given)
    except DeployconvError:  # a suggestion that cannot be made in time is none
        return
    assert isinstance(other, Rewriting)
    line = suggestion_line(one_line(str(model)), other.latency)
    if line is not None:
        console.print_lines(console.stdout(), line)


def _show(rewriting: Rewriting, *, as_json: bool) -> None:
    from deployconv.report import console, document

    warn(rewriting.warnings)
    if as_json:
        document.write(document.of_rewriting(rewriting))
    else:
        console.print_rewriting(console.stdout(), rewriting)
