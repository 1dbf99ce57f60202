"""Rewrite one model: plan, certify, write to a temporary file, compare, time, move into place.

If targets were named, the original is compiled for them after the certificates, and the
rewritten model before the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deployconv.errors import BackendUnavailable, CheckFailed
from deployconv.graph.load import LoadedModel
from deployconv.graph.save import (
    StagedModel,
    needs_external_data,
    refuse_existing,
    refuse_inputs,
    staged,
)
from deployconv.options import DEFAULT_BENCH_SECONDS, RewriteCommand, RewriteOptions
from deployconv.proof.certificate import certify_sites, failed_certificates
from deployconv.results import Inspection, NotRun, Parity, Rewriting, Step, TargetModel
from deployconv.rewrites.planning import Planning, apply, plan_model
from deployconv.runtimes.base import ModelSource
from deployconv.runtimes.shapes import all_shown
from deployconv.search.choice import TunerOptions
from deployconv.search.policy import plan_by_policy

if TYPE_CHECKING:
    from onnx import ModelProto

    from deployconv.proof.builds import Targets
    from deployconv.targets.rules import TargetRules

# What compares, times and compiles models is imported by the functions that do, as a call may ask
# for none of it, and the imports take as long as the rewrite of a small model.


@dataclass(frozen=True)
class Request:
    """What is asked of a rewrite.

    Attributes:
        source: the original model, as a backend loads it.
        command: the options of the call.
        options: which sites are rewritten, into which form.
        tuner: backend, threads and inputs, for the proof as well as for ``fastest``.
        targets: what both models are compiled for; None if they are not.
        rules: the rules of the targets that were named; None if none was.
        warnings: what was noticed of the call before.
    """

    source: ModelSource
    command: RewriteCommand
    options: RewriteOptions
    tuner: TunerOptions
    targets: Targets | None
    rules: TargetRules | None = None
    warnings: tuple[str, ...] = ()


def rewrite_model(loaded: LoadedModel, request: Request) -> Rewriting:
    """Rewrite ``loaded``, check the result, time both models and write the new one.

    Raises:
        CheckFailed: a check did not hold; nothing was written.
        UsageError, ModelError: the call or the model is at fault.
        BackendUnavailable: the backend is not available or cannot run the model.
    """
    command = request.command
    external = needs_external_data(loaded.proto)
    if command.output is not None:
        refuse_inputs(command.output, loaded)
        if not command.force and not command.dry_run:
            refuse_existing(command.output, external)
    planning = plan_by_policy(
        loaded, request.source, request.options, request.tuner, command.upgrade_opset
    )
    if command.verify:
        planning = certify_sites(planning, request.tuner.feed.seed, request.tuner.dump)
    warnings = (*request.warnings, *planning.warnings)
    result = Rewriting(loaded.info, planning.reports, warnings=warnings)
    _raise_for_certificates(result, request)
    after = apply(planning)
    result = _with_targets(replace(result, changed=after.changed), after.proto, request)
    _raise_if_strict(result, request)
    before = request.targets.build(loaded, request.source) if request.targets else None
    if request.targets and before:
        from deployconv.proof.builds import with_target_notes

        sites = [planned.found for planned in planning.sites]
        result = with_target_notes(result, sites, before, request.targets)
    output = None if command.dry_run else command.output
    with staged(after.proto, loaded.folder, output, after.added, external) as candidate:
        result = replace(result, model=after.proto if output is None else candidate.proto)
        if request.targets and before:
            from deployconv.proof.builds import compile_rewritten

            result = compile_rewritten(result, before, candidate.path, request.targets)
        try:
            result = _with_parity(result, candidate.path, request)
            result = _with_latency(result, candidate.path, request)
        except CheckFailed as failure:
            found = failure.result or result
            failed = _with_details(found, loaded, planning, candidate, request)
            raise CheckFailed(str(failure), failed) from failure
        result = _with_details(result, loaded, planning, candidate, request)
        if output is not None:
            result = replace(result, output=candidate.publish(output, command.force))
    return result


def inspect_for_targets(loaded: LoadedModel, source: ModelSource, rules: TargetRules) -> Inspection:
    """List the sites of ``loaded`` with what targets do with them, and what is left at the end.

    Nothing is written, certified or compiled.
    """
    from deployconv.targets.dla import SOURCE, VERSIONS, dla_note
    from deployconv.targets.fit import target_models

    options = rules.options
    planning = plan_by_policy(loaded, source, options, TunerOptions(), None)
    reports = planning.reports
    documented = next((one for one in rules.profiles if one.documented), None)
    if documented is not None:
        portable = {
            one.id: one for one in plan_model(loaded, replace(options, request_for=None)).sites
        }
        notes = {key: dla_note(one.found, one.rewrite) for key, one in portable.items()}
        reports = tuple(replace(one, dla=notes[one.id]) for one in reports)
    return Inspection(
        loaded.info,
        reports,
        target=documented.name if documented else None,
        note=f"{VERSIONS} ({SOURCE})" if documented else None,
        targets=target_models(apply(planning).proto, rules.profiles),
    )


def _raise_for_certificates(result: Rewriting, request: Request) -> None:
    """Raise CheckFailed for a failed certificate."""
    failed = failed_certificates(result.sites)
    if failed:
        result = _stopped(result, request, "a certificate failed")
        raise CheckFailed(f"certificate failed: {', '.join(failed)}: nothing was written", result)


def _with_targets(result: Rewriting, model: ModelProto, request: Request) -> Rewriting:
    """Add what is left in ``model`` that a target does not take, with a warning for each target."""
    if request.rules is None:
        return result
    from deployconv.targets.fit import target_models

    found = target_models(model, request.rules.profiles)
    return replace(result, targets=found, warnings=(*result.warnings, *_left_for(found)))


def _left_for(targets: Sequence[TargetModel]) -> list[str]:
    """What is left in a model that each target does not take, a sentence for each target."""
    return [f"{one.name}: left in the model: {one.left}" for one in targets if one.misfits]


def _raise_if_strict(result: Rewriting, request: Request) -> None:
    """Raise CheckFailed under ``strict`` for a site left alone, and for what a target refuses."""
    if not request.command.strict:
        return
    alone = [site.id for site in result.sites if site.left_alone]
    left = [f"left alone: {', '.join(alone)}"] if alone else []
    left += _left_for(result.targets)
    if left:
        reason = "a site was left alone" if alone else "a target does not take it"
        result = _stopped(result, request, reason)
        raise CheckFailed(f"--strict: {'; '.join(left)}: nothing was written", result)


def _with_parity(result: Rewriting, candidate: Path, request: Request) -> Rewriting:
    """Add the parity of the whole model. Raises CheckFailed if it does not hold."""
    if not request.command.verify:
        return _with_not_run(result, "certificate", "parity", reason="--no-verify")
    from deployconv.proof.parity import check_parity

    tuner = request.tuner
    if absent := _no_gpu(request):
        return _with_not_run(result, "parity", reason=absent)
    requantized = any(site.requantized is not None for site in result.sites)
    parity = check_parity(
        request.source,
        candidate,
        tuner.backend,
        tuner.feed,
        tuner.threads,
        requantized,
        other_sizes=result.changed,
        of_rewrite=True,
    )
    result = replace(result, parity=parity)
    if not parity.passed:
        result = _with_not_run(result, "latency", reason="parity failed")
        raise CheckFailed(f"parity failed: {_difference(parity)}: nothing was written", result)
    return result


def _difference(parity: Parity) -> str:
    """What differs by too much: an output, and at which sizes if not at the first ones."""
    outputs, where = parity.outputs, ""
    if all(output.passed for output in outputs):
        size = next(size for size in parity.other_sizes if size.status == "failed")
        outputs, where = size.outputs, f"at {all_shown(size.shapes)}: "
        if not outputs:
            return f"{where}{size.reason}"
    worst = next(output for output in outputs if not output.passed)
    why = worst.problem or f"max |difference| {worst.max_abs:.3g} > {worst.tolerance:.3g}"
    return f"{where}output '{worst.name}': {why}"


def _with_latency(result: Rewriting, candidate: Path, request: Request) -> Rewriting:
    """Add the latency of both models, or why it could not be measured."""
    if not request.command.bench:
        return _with_not_run(result, "latency", reason="--no-bench")
    tuner = request.tuner
    if absent := _no_gpu(request):
        return _with_not_run(result, "latency", reason=absent)
    if not result.changed:
        return _with_not_run(result, "latency", reason="nothing was changed")
    from deployconv.proof.latency import measure_latency

    try:
        latency = measure_latency(
            *(request.source, candidate, tuner.backend, tuner.feed, tuner.threads),
            budget=min(DEFAULT_BENCH_SECONDS, tuner.budget / 4),
            strict=request.options.policy == "fastest",
        )
    except BackendUnavailable as missing:
        # The parity check passed, perhaps with float32 twins: only the timing is missing.
        return _with_not_run(result, "latency", reason=str(missing))
    return replace(result, latency=latency)


def _with_details(
    result: Rewriting,
    loaded: LoadedModel,
    planning: Planning,
    candidate: StagedModel,
    request: Request,
) -> Rewriting:
    """Add what a report draws, if one was asked for."""
    if request.command.report is None:
        return result
    from deployconv.details.collect import ModelPair, collect_details

    tuner = request.tuner
    models = request.source, candidate.path
    details = collect_details(
        loaded.proto,
        candidate.proto,
        planning.sites,
        ModelPair(models, tuner.backend, tuner.feed, tuner.threads),
        compared=result.parity is not None,
        timed=result.latency is not None,
    )
    return replace(result, details=details)


def _no_gpu(request: Request) -> str | None:
    """Why the models are only compiled for the targets of the call; None if they can run here."""
    if not request.targets:
        return None
    from deployconv.proof.builds import no_gpu

    return no_gpu(request.tuner.backend)


def _stopped(result: Rewriting, request: Request, reason: str) -> Rewriting:
    """Say why the steps after a failure did not run: an option of the call, else ``reason``."""
    if request.command.verify:
        result = _with_not_run(result, "parity", reason=reason)
    else:
        result = _with_not_run(result, "certificate", "parity", reason="--no-verify")
    return _with_not_run(
        result, "latency", reason=reason if request.command.bench else "--no-bench"
    )


def _with_not_run(result: Rewriting, *steps: Step, reason: str) -> Rewriting:
    return replace(result, not_run=(*result.not_run, *(NotRun(step, reason) for step in steps)))
