"""One rewrite from the loaded model to the written one, each step in its order.

plan -> certify -> (compile as exported) -> edit -> stage -> (compile) -> parity -> latency
-> publish
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deployconv.errors import BackendUnavailable, CheckFailed
from deployconv.graph.load import LoadedModel
from deployconv.graph.save import needs_external_data, refuse_existing, refuse_inputs, staged
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites, failed_certificates
from deployconv.results import NotRun, Rewriting, Step
from deployconv.rewrites.planning import apply
from deployconv.runtimes.base import ModelSource
from deployconv.search.choice import TunerOptions
from deployconv.search.policy import plan_by_policy

if TYPE_CHECKING:
    from deployconv.proof.builds import Targets

# What compares, times and compiles models is imported by the functions that do, as a call may ask
# for none of it, and the imports take as long as the rewrite of a small model.


_LARGE = 1 << 24
"""Bytes of a model that is not kept in memory for longer than it is needed."""


@dataclass(frozen=True)
class Request:
    """What is asked of a rewrite.

    Attributes:
        source: the original for a backend.
        options: which sites, into which form.
        tuner: backend, threads and inputs, for the proof as well as for ``fastest``.
        upgrade_opset: raise the model to the opset of Col2Im; None where that is worth it.
        output: where the model goes; None writes nothing.
        force: replace an existing output.
        dry_run: do everything but write the output.
        verify: certify each site and check the parity of the whole model.
        bench: time both models.
        strict: a site that is left alone is a failure.
        targets: what both models are compiled for; None for nothing.
    """

    source: ModelSource
    options: RewriteOptions
    tuner: TunerOptions
    upgrade_opset: bool | None
    output: Path | None
    force: bool
    dry_run: bool
    verify: bool
    bench: bool
    strict: bool
    targets: Targets | None


def rewrite_model(loaded: LoadedModel, request: Request) -> Rewriting:
    """Rewrite, prove, time and write ``loaded``.

    Raises:
        CheckFailed: a check did not hold; nothing was written.
        UsageError, ModelError: the call or the model is at fault.
        BackendUnavailable: the backend is not available or cannot run the model.
    """
    external = needs_external_data(loaded.proto)
    if request.output is not None:
        refuse_inputs(request.output, loaded)
        if not request.force and not request.dry_run:
            refuse_existing(request.output, external)
    planning = plan_by_policy(
        loaded, request.source, request.options, request.tuner, request.upgrade_opset
    )
    if request.verify:
        planning = certify_sites(planning, request.tuner.feed.seed, request.tuner.dump)
    done = Rewriting(loaded.info, planning.reports, warnings=planning.warnings)
    _check_sites(done, request)
    before = request.targets.build(loaded, request.source) if request.targets else None
    if request.targets and before:
        from deployconv.proof.builds import with_target_notes

        done = with_target_notes(
            done, [planned.found for planned in planning.sites], before, request.targets
        )
    after, folder = apply(planning), loaded.folder
    place = None if request.dry_run else request.output
    with staged(after.proto, folder, place, after.added, external) as candidate:
        if candidate.path.stat().st_size >= _LARGE and (request.verify or request.bench):
            # Sessions take memory: the original need not be held beside its copy. What was found
            # in it refers to itself.
            del planning, loaded
            gc.collect()
        done = replace(done, model=after.proto if place is None else candidate.proto)
        if request.targets and before:
            from deployconv.proof.builds import compile_rewritten

            done = compile_rewritten(done, before, candidate.path, request.targets)
        done = _proved(done, candidate.path, request)
        done = _timed(done, candidate.path, request)
        if place is not None:
            done = replace(done, output=candidate.publish(place, request.force))
    return done


def _check_sites(done: Rewriting, request: Request) -> None:
    """Raise CheckFailed for a failed certificate, or under ``strict`` for a site left alone."""
    failed = failed_certificates(done.sites)
    if failed:
        raise CheckFailed(f"certificate failed: {', '.join(failed)}: nothing was written", done)
    left = [site.id for site in done.sites if site.left_alone]
    if request.strict and left:
        raise CheckFailed(f"--strict: left alone: {', '.join(left)}: nothing was written", done)


def _proved(done: Rewriting, candidate: Path, request: Request) -> Rewriting:
    """Add the parity of the whole model. Raises CheckFailed where it does not hold."""
    if not request.verify:
        return _not_run(done, "certificate", "parity", reason="--no-verify")
    from deployconv.proof.parity import check_parity

    tuner = request.tuner
    if absent := _no_gpu(request):
        return _not_run(done, "parity", reason=absent)
    requantized = any(site.requantized is not None for site in done.sites)
    parity = check_parity(
        request.source, candidate, tuner.backend, tuner.feed, tuner.threads, requantized
    )
    done = replace(done, parity=parity)
    if not parity.passed:
        worst = next(output for output in parity.outputs if not output.passed)
        why = worst.problem or f"max |difference| {worst.max_abs:.3g} > {worst.tolerance:.3g}"
        raise CheckFailed(f"parity failed: output '{worst.name}': {why}: nothing was written", done)
    return done


def _timed(done: Rewriting, candidate: Path, request: Request) -> Rewriting:
    """Add the latency of both models, or why it could not be measured."""
    if not request.bench:
        return _not_run(done, "latency", reason="--no-bench")
    tuner = request.tuner
    if absent := _no_gpu(request):
        return _not_run(done, "latency", reason=absent)
    if not any(site.status == "rewritten" for site in done.sites):
        return _not_run(done, "latency", reason="no site was rewritten")
    from deployconv.proof.latency import measure_latency

    try:
        latency = measure_latency(
            request.source, candidate, tuner.backend, tuner.feed, tuner.threads
        )
    except BackendUnavailable as missing:
        # Parity has run, perhaps as a float32 twin: the model is proved, only not timed.
        return _not_run(done, "latency", reason=str(missing))
    return replace(done, latency=latency)


def _no_gpu(request: Request) -> str | None:
    """Why the models are only compiled for the targets of the call; None if they can run here."""
    if not request.targets:
        return None
    from deployconv.proof.builds import no_gpu

    return no_gpu(request.tuner.backend)


def _not_run(done: Rewriting, *steps: Step, reason: str) -> Rewriting:
    return replace(done, not_run=(*done.not_run, *(NotRun(step, reason) for step in steps)))
