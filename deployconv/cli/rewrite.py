"""``deployconv rewrite``: the command that everything else serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployconv.cli.parameters import Backend, Inputs, Json, Model, Seed, Shapes, parse_shapes
from deployconv.cli.terminal import progress, warn
from deployconv.errors import CheckFailed
from deployconv.options import Form, Policy, Shuffle

if TYPE_CHECKING:
    from deployconv.results import Rewriting


def rewrite(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="Default: MODEL.deploy.onnx beside the model."
        ),
    ] = None,
    policy: Annotated[
        Policy,
        typer.Option(
            "--policy",
            help="all: every site that can be; cost: what is predicted to be faster; fastest: "
            "what is measured to be.",
        ),
    ] = "all",
    backend: Backend = "ort",
    form: Annotated[
        Form,
        typer.Option(
            "--form",
            help="crop: smallest kernel, then a crop; pad: no crop; split: a Conv per phase; "
            "separable: a Conv per axis; matrix: a product of matrices per axis.",
        ),
    ] = "auto",
    shuffle: Annotated[
        Shuffle, typer.Option("--shuffle", help="How phases are moved into space.")
    ] = "auto",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="GLOB", help="Only sites whose id matches. Repeatable."),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", metavar="GLOB", help="Not the sites whose id matches. Repeatable."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="smNN",
            help="Compile both models with TensorRT for this compute capability, e.g. sm89; needs "
            "no GPU. The rewritten one must build wherever the original does. Repeatable.",
        ),
    ] = None,
    shape: Shapes = None,
    inputs: Inputs = None,
    seed: Seed = 0,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Run neither certificate nor parity check.")
    ] = False,
    no_bench: Annotated[bool, typer.Option("--no-bench", help="Take no timing.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail, status 1, where a site is left alone.")
    ] = False,
    freeze_initializers: Annotated[
        bool,
        typer.Option(
            "--freeze-initializers",
            help="Take initializers that are also graph inputs for constants.",
        ),
    ] = False,
    allow_requantize: Annotated[
        bool,
        typer.Option(
            "--allow-requantize",
            help="Give integer weights new scales where taps have to be added: close, not equal.",
        ),
    ] = False,
    upgrade_opset: Annotated[
        bool,
        typer.Option(
            "--upgrade-opset",
            help="Raise the model to opset 18, where that changes nothing, if col2im needs it.",
        ),
    ] = False,
    budget: Annotated[
        float,
        typer.Option(
            "--budget", metavar="SECONDS", min=1, help="Time to measure for fastest, about."
        ),
    ] = 60.0,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither read nor keep measurements.")
    ] = False,
    max_memory: Annotated[
        float,
        typer.Option(
            "--max-memory",
            metavar="TIMES",
            min=0,
            help="Times the original's peak memory that fastest may take (inf: any).",
        ),
    ] = 1.1,
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything but write the model.")
    ] = False,
) -> None:
    """Rewrite a model, prove the result, time both, write it."""
    shapes = parse_shapes(shape)
    if output is None and not dry_run:
        output = default_output(model)
    from deployconv import api

    try:
        with progress(f"rewriting {model}") as advance:
            rewriting = api.rewrite(
                model,
                output=output,
                policy=policy,
                backend=backend,
                form=form,
                shuffle=shuffle,
                only=tuple(only or ()),
                skip=tuple(skip or ()),
                target=tuple(target or ()),
                shape=shapes,
                inputs=inputs,
                seed=seed,
                verify=not no_verify,
                bench=not no_bench,
                strict=strict,
                freeze_initializers=freeze_initializers,
                allow_requantize=allow_requantize,
                force=force,
                dry_run=dry_run,
                upgrade_opset=upgrade_opset or None,
                budget=budget,
                cache=not no_cache,
                max_memory=max_memory,
                on_progress=advance,
            )
    except CheckFailed as failure:
        if failure.result is not None:
            _show(failure.result, as_json=json)
        raise
    _show(rewriting, as_json=json)


def default_output(model: Path) -> Path:
    """``model.onnx`` becomes ``model.deploy.onnx`` beside it."""
    stem = model.stem if model.suffix == ".onnx" else model.name
    return model.with_name(f"{stem}.deploy.onnx")


def _show(rewriting: Rewriting, *, as_json: bool) -> None:
    from deployconv.report import console, document

    warn(rewriting.warnings)
    if as_json:
        document.write(document.of_rewriting(rewriting))
    else:
        console.print_rewriting(console.stdout(), rewriting)
