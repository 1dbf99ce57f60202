"""Certificates: the old and the new nodes of a rewrite agree bit for bit on small integers.

Weights, biases and inputs are integers so small that every float32 sum is exact in any order.
So a wrong index shows in the part that is certified, and rounding cannot make a right one fail.
Layers that cannot be exact on integers are listed: only the parity check of the whole model covers
them. Float16, bfloat16 and float64 layers are certified as their float32 twin: neither the nodes
nor the arrangement of the weights depends on the element type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from deployconv.errors import BackendUnavailable, DeployconvError, UsageError
from deployconv.options import DEFAULT_RUNTIME
from deployconv.results import Certificate, SiteReport
from deployconv.rewrites.base import Oracle, Rewrite, Trial
from deployconv.rewrites.planning import Planning
from deployconv.rewrites.trial import ORACLE_INPUT, ORACLE_OUTPUT
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Session

Array = NDArray[Any]

_LONGEST_NAME = 200
"""Characters of the name of a folder; file systems allow some more."""


@dataclass(frozen=True, eq=False)
class Certified:
    """What the trial of one rewrite showed.

    Attributes:
        verdict: whether old and new nodes agree.
        trial: the two models and their inputs.
        failure: the first element that differs, in words; None if none does.
    """

    verdict: Certificate
    trial: Trial
    failure: str | None = None

    def dump(self, folder: Path) -> None:
        """Write both models and their inputs to ``folder``, which is made if need be.

        Raises UsageError if that cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            onnx.save(self.trial.old, folder / "old.onnx")
            onnx.save(self.trial.new, folder / "new.onnx")
            _write_arrays(folder / "inputs.npz", self.trial.feeds)
        except OSError as error:
            raise UsageError(
                f"{folder}: the models of a failed certificate ({self.failure}) cannot be written"
                f" ({error.strerror}): choose another --dump"
            ) from error


def certify(rewrite: Rewrite, name: str, seed: int = 0) -> Certified:
    """Run the old and the new nodes of a rewrite on integers and compare every element.

    Both run in onnxruntime if it is installed and can run them, else in the ONNX reference
    evaluator. ``name`` is what errors call the layer. The weights of an operator are those that
    onnxruntime shows; if it cannot run the operator alone, only parity covers them.

    Raises BackendUnavailable if neither can run one of them.
    """
    trial = rewrite.trial(np.random.default_rng(seed))
    old, new = (_Runner(model, trial.output, name) for model in (trial.old, trial.new))
    failure = _first_difference(old.run(trial.feeds), new.run(trial.feeds))
    if failure is None and trial.may_be_empty:
        failure = _failure_on_empty_batch(old, new, trial.feeds)
    unseen: list[str] = []
    for oracle in trial.oracles if failure is None else ():
        runner = _Runner(oracle.model, ORACLE_OUTPUT, name)
        try:
            shown = runner.run_in_onnxruntime({ORACLE_INPUT: oracle.image})
        except DeployconvError:
            # The reference evaluator is no oracle: it computes some weights in another way.
            unseen.append(oracle.layer)
            continue
        failure = failure or _first_beyond(oracle, shown)
    missing = tuple(dict.fromkeys((*trial.parity_only, *unseen)))
    trial = replace(trial, parity_only=missing)
    return Certified("exact" if failure is None else "failed", trial, failure)


def certify_sites(planning: Planning, seed: int, dump: Path | None = None) -> Planning:
    """Certify every site that is rewritten or kept with changed weights.

    Args:
        planning: its reports get the verdicts.
        seed: seed of the random integers.
        dump: folder in which the models of each failed certificate get a folder of their own.

    Raises:
        BackendUnavailable: no runtime here can run a site.
        UsageError: ``dump`` cannot be written.
    """
    done = []
    folders: set[str] = set()
    reports: dict[str, SiteReport] = {}
    for planned in planning.sites:
        report = planned.report
        if planned.rewrite is not None:
            found = certify(planned.rewrite, planned.id, seed)
            if dump is not None and found.failure is not None:
                found.dump(dump / folder_name(planned.id, folders))
            report = replace(
                report,
                certificate=found.verdict,
                parity_only=found.trial.parity_only,
                certificate_failure=found.failure,
            )
            reports[planned.id] = report
        elif planned.joined is not None:
            head = reports[planned.joined]
            report = replace(report, certificate=head.certificate)
        done.append(replace(planned, report=report))
    return replace(planning, sites=tuple(done))


def failed_certificates(reports: Iterable[SiteReport]) -> list[str]:
    """The sites whose certificate failed: the id, and the first element that differs."""
    return [
        f"{report.id} ({report.certificate_failure})" if report.certificate_failure else report.id
        for report in reports
        if report.certificate == "failed"
    ]


def _first_beyond(oracle: Oracle, shown: Array) -> str | None:
    """Where the weights of an operator are not those that were written; None if nowhere."""
    if oracle.expected.shape != shown.shape:
        return f"shape {shown.shape} of its weights where {oracle.expected.shape} was expected"
    beyond = np.argwhere(~(np.abs(oracle.expected - shown) <= oracle.atol))
    if not len(beyond):
        return None
    at = tuple(map(int, beyond[0]))
    written = f"{oracle.expected[at]:.9g} was written"
    return f"its weight at {list(at)} is {shown[at]:.9g} where {written}"


def _first_difference(expected: Array, actual: Array) -> str | None:
    """Where two arrays differ first: index, expected, actual; None if they are equal."""
    if expected.shape != actual.shape:
        return f"shape {list(expected.shape)} expected, {list(actual.shape)} computed"
    differs = np.argwhere(expected != actual)
    if not len(differs):
        return None
    index = tuple(int(place) for place in differs[0])
    return (
        f"{len(differs)} of {expected.size} elements differ, first at {list(index)}:"
        f" {float(expected[index]):.9g} expected, {float(actual[index]):.9g} computed"
    )


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an .npz file; `numpy.savez` takes no array that has the name of its own argument."""
    with ZipFile(path, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, values, allow_pickle=False)


def folder_name(site: str, taken: set[str]) -> str:
    """The id of a site as the name of a folder that is not ``taken`` yet."""
    plain = [sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "_" for sign in site]
    name = base = "".join(plain)[:_LONGEST_NAME]
    number = 2
    while name in taken:
        name = f"{base}_{number}"
        number += 1
    taken.add(name)
    return name


class _Runner:
    """Runs one model of a trial; ``site`` is what errors call the layer."""

    def __init__(self, model: ModelProto, output: str, site: str) -> None:
        self._model, self._output, self._site = model, output, site

    @cached_property
    def _session(self) -> Session:
        backend = get_backend(DEFAULT_RUNTIME)
        return backend.prepare(self._model.SerializeToString(), optimise=False)

    def run(self, feeds: Mapping[str, Array]) -> Array:
        """Return the output. Raises BackendUnavailable if nothing here can run the model."""
        try:
            return self.run_in_onnxruntime(feeds)
        except DeployconvError as refusal:
            # onnxruntime is not installed, or refuses what ONNX allows.
            try:
                return run_reference(self._model, feeds)[self._output]
            except Exception as error:
                raise BackendUnavailable(
                    f"{self._site}: no certificate, as neither onnxruntime ({refusal}) nor the"
                    f" ONNX reference evaluator ({type(error).__name__}) runs it: leave it out"
                    f" with --skip"
                ) from error

    def run_in_onnxruntime(self, feeds: Mapping[str, Array]) -> Array:
        """Return the output. Raises DeployconvError if onnxruntime cannot run the model."""
        return self._session.run(feeds)[self._output]


def _failure_on_empty_batch(old: _Runner, new: _Runner, feeds: Mapping[str, Array]) -> str | None:
    """What fails on an empty batch, in words.

    None if nothing does, and if onnxruntime cannot run the old nodes on one, or their constants
    give the result another batch.
    """
    empty = {name: x[:0] for name, x in feeds.items()}
    try:
        expected = old.run_in_onnxruntime(empty)
    except DeployconvError:
        return None
    if len(expected):
        return None
    try:
        actual = new.run_in_onnxruntime(empty)
    except DeployconvError as refusal:
        return f"an empty batch: {refusal}"
    failure = _first_difference(expected, actual)
    return failure and f"an empty batch: {failure}"


def run_reference(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a tiny model in the ONNX reference evaluator, which is slow; all outputs by name.

    An error of the evaluator is passed on as it is.
    """
    from onnx.reference import ReferenceEvaluator

    from deployconv.graph.reference_operators import ConvTranspose

    evaluator = ReferenceEvaluator(model, new_ops=[ConvTranspose])
    results = evaluator.run(None, dict(feeds))
    return dict(zip(evaluator.output_names, map(np.asarray, results), strict=True))
