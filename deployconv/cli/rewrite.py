"""``deployconv rewrite``: rewrite a model, prove it, time it, write it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deployconv.cli.parameters import Json, Model, arguments, with_options
from deployconv.cli.terminal import progress, warn
from deployconv.errors import CheckFailed
from deployconv.options import RewriteCommand

if TYPE_CHECKING:
    from deployconv.results import Rewriting


@with_options(RewriteCommand)
def rewrite(model: Model, options: RewriteCommand, json: Json = False) -> None:
    """Rewrite a model, prove and time the result, write it."""
    # A path without a name is a folder, which is refused when it is read.
    if options.output is None and not options.dry_run and model.name:
        options = replace(options, output=default_output(model))
    from deployconv import api

    try:
        with progress(f"rewriting {model}") as advance:
            rewriting = api.rewrite(model, **arguments(options), on_progress=advance)
    except CheckFailed as failure:
        if failure.result is not None:
            _show(failure.result, as_json=json)
        raise
    _show(rewriting, as_json=json)


def default_output(model: Path) -> Path:
    """Return the path beside ``model`` that is written: ``model.onnx`` to ``model.deploy.onnx``."""
    stem = model.stem if model.suffix == ".onnx" else model.name
    return model.with_name(f"{stem}.deploy.onnx")


def _show(rewriting: Rewriting, *, as_json: bool) -> None:
    from deployconv.report import console, document

    warn(rewriting.warnings)
    if as_json:
        document.write(document.of_rewriting(rewriting))
    else:
        console.print_rewriting(console.stdout(), rewriting)
