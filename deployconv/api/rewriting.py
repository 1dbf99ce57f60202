"""`rewrite`: rewrite one model, prove it, time it, write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deployconv.api.arguments import (
    ArrayMap,
    ShapeMap,
    as_inputs,
    as_names,
    as_path,
    as_shapes,
    source_of,
)
from deployconv.api.pages import check_report, write_report
from deployconv.api.requests import backend_of, request_of
from deployconv.errors import CheckFailed, UsageError
from deployconv.options import DEFAULT_RUNTIME, Form, Policy, RewriteCommand, Shuffle
from deployconv.results import Rewriting
from deployconv.runtimes import get_backend

if TYPE_CHECKING:
    from deployconv.api.arguments import Model


def rewrite(
    model: Model,
    *,
    output: str | Path | None = None,
    policy: Policy | None = None,
    backend: str | None = None,
    form: Form = "auto",
    shuffle: Shuffle = "auto",
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    target: str | Sequence[str] = (),
    shape: ShapeMap | None = None,
    inputs: str | Path | ArrayMap | None = None,
    seed: int = 0,
    verify: bool = True,
    bench: bool = True,
    strict: bool = False,
    dump: str | Path | None = None,
    freeze_initializers: bool = False,
    resample: bool = False,
    allow_requantize: bool = False,
    dequantize_weights: bool = False,
    force: bool = False,
    dry_run: bool = False,
    upgrade_opset: bool | None = None,
    budget: float = 60.0,
    cache: bool = True,
    max_memory: float = 1.1,
    threads: int | None = None,
    report: str | Path | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Rewriting:
    """Rewrite upsampling layers as Conv, pixel shuffle and crop; check, time and write the model.

    Args:
        model: a file, its bytes, or a ModelProto, which is left untouched.
        output: where to write the rewritten model; None writes nothing.
        policy: which layers are rewritten: ``all`` that can be rewritten exactly; or those, and
            in the form, that a static model of their ``cost`` predicts, or measurement shows, to
            be ``fastest`` on ``backend``. None for ``all``, or what the ``target`` says.
        backend: what runs the models for parity and latency; None for that of the ``target`` if
            it is installed, else onnxruntime.
        form: ``crop``, ``pad``, or the one of these with fewer multiplications; ``split``, a Conv
            per phase; ``separable``, a Conv per axis, if the kernels are products; ``matrix``, a
            product of matrices per axis.
        shuffle: how the phases are moved into space; ``auto`` takes a portable way.
        only: rewrite only the sites that match one of these globs.
        skip: leave the sites that match one of these globs alone.
        target: where the model will run, by the names of `list_targets`, or as TOML files;
            several for what all of them take. For compute capabilities such as ``sm89`` both models
            are compiled with TensorRT, which needs no GPU: the rewritten one must build wherever
            the original does.
        shape: sizes for dynamic inputs, by input name.
        inputs: arrays by input name, or an ``.npz`` file of them, instead of random ones.
        seed: seed of the random inputs.
        verify: certify each site and check the parity of the whole model.
        bench: time both models, interleaved.
        strict: a site that is left alone is a failure.
        dump: folder for the two models and the inputs of a certificate that fails.
        freeze_initializers: treat the defaults of graph inputs as constants.
        resample: rewrite a Resize that interpolates too, as a product with a matrix per axis;
            ``cost`` and ``fastest`` consider that without it. A nearest one only if ``only`` names
            it, too.
        allow_requantize: give an integer weight new scales if it cannot keep its own: if its taps
            have to be added, as after a nearest Resize, or if it has one for each input channel.
            The result is then close, not equal, and says how close.
        dequantize_weights: store such a weight as floats instead. The result is equal, but the
            weight is larger and the layer runs in floats. It goes before ``allow_requantize``.
        force: replace an existing output.
        dry_run: do everything but write the output.
        upgrade_opset: raise a model below opset 18 to it if that changes nothing, so that
            Col2Im can be used; None does so for ``cost`` and ``fastest`` on onnxruntime.
        budget: seconds of measurement for ``fastest``, approximately.
        cache: read and keep measurements.
        max_memory: how many times the original's peak memory ``fastest`` may make the model take
            on ``ort``; infinity to measure none.
        threads: threads of the backend, and those that ``cost`` predicts for; None for all
            processors.
        report: where to write a report as one HTML file, also if a check fails; it collects
            pictures of the changed nodes, differences of the outputs, and the time per layer.
        on_progress: called with the part of the measurements that is done, 0 to 1.

    Returns:
        The sites, the parity, the latency, and the rewritten model as a ModelProto.

    Raises:
        CheckFailed: certificate, parity, a build for a ``target`` or ``strict`` failed; nothing
            was written.
        UsageError, ModelError: the call or the model is at fault.
        BackendUnavailable: the backend is not available or cannot run the model.
    """
    from deployconv.graph.load import load
    from deployconv.rewriting import rewrite_model

    options = RewriteCommand(
        output=as_path(output),
        policy=policy,
        backend=backend,
        form=form,
        shuffle=shuffle,
        only=as_names(only),
        skip=as_names(skip),
        target=as_names(target),
        shape=as_shapes(shape),
        inputs=as_inputs(inputs),
        seed=seed,
        verify=verify,
        bench=bench,
        strict=strict,
        dump=as_path(dump),
        freeze_initializers=freeze_initializers,
        resample=resample,
        allow_requantize=allow_requantize,
        dequantize_weights=dequantize_weights,
        force=force,
        dry_run=dry_run,
        upgrade_opset=upgrade_opset,
        budget=budget,
        cache=cache,
        max_memory=max_memory,
        threads=threads,
        report=as_path(report),
    )
    check_report(options.report)
    if options.report is not None and options.report == options.output:
        raise UsageError(f"--report {options.report}: is the output too; name another file")
    taken = backend_of(options)
    if verify or policy == "fastest" or taken != DEFAULT_RUNTIME:
        get_backend(taken)  # a missing library is reported before any work
    request = request_of(source_of(model), options, on_progress)
    try:
        done = rewrite_model(load(model), request)
    except CheckFailed as failure:
        if failure.result is not None:
            _report(options.report, failure.result, message=str(failure))
        raise
    _report(options.report, done)
    return done


def _report(path: Path | None, result: Rewriting, **more: str) -> None:
    """Write the report, if one was asked for; ``more`` is added to the document of ``result``."""
    if path is not None:
        from deployconv.report.document import of_rewriting

        write_report(path, of_rewriting(result) | more)
