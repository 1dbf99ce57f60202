"""Time the forms of a site in small models, without the rest of the model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

from onnx import ModelProto, ValueInfoProto

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.graph.save import staged
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.rewrites.planning import apply
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Array, Session
from deployconv.search.choice import Choice
from deployconv.search.measure import Timing, time_against_first
from deployconv.search.small_model import SmallModel
from deployconv.search.workbench import Workbench


@dataclass(frozen=True, eq=False)
class SmallModels:
    """The sites of one model, each by itself; ``bench`` has the model."""

    bench: Workbench

    def compare(
        self, planned: PlannedSite, forms: Sequence[Choice], seconds: float
    ) -> list[Timing]:
        """Time forms of one site against the site as it was, the likely fastest first.

        Returns as many timings as there was time to make models for; none if not even for two, or
        if the site cannot be run without the rest of the model.

        Raises FormFailed for a form that computes something else.
        """
        begin = time.monotonic()
        small = self._cut.get(planned.id)
        if small is None or not set(small.inputs) <= self._tensors.keys():
            return []
        feeds = {name: self._tensors[name] for name in small.inputs}
        # A layer that stays may have other layers folded into its weights.
        kept = self.bench.candidates.with_choices({}).sites
        rewrite = next(one.rewrite for one in kept if one.id == planned.id)
        sessions = [self._session(small.with_rewrite(rewrite, feeds))]
        made = time.monotonic()
        for choice in forms:
            now = time.monotonic()
            if now + (now - made) / len(sessions) > begin + seconds:
                break
            self.bench.certify({planned.id: choice})
            rewrite = self.bench.candidates.option(planned, choice).rewrite
            sessions.append(self._session(small.with_rewrite(rewrite, feeds)))
        ready = [session for session in sessions if session is not None]
        if len(ready) < max(2, len(sessions)):
            return []
        return time_against_first(ready, feeds, begin + seconds - time.monotonic())

    def _session(self, model: ModelProto | None) -> Session | None:
        """A session of a small model; None if the backend does not take it by itself."""
        if model is None:
            return None
        tuner = self.bench.tuner
        try:
            source = model.SerializeToString()
            return get_backend(tuner.backend).prepare(source, threads=tuner.threads)
        except (BackendUnavailable, ModelError, ValueError):
            return None

    @cached_property
    def _cut(self) -> Mapping[str, SmallModel]:
        """The sites that can be cut out of the model, by id."""
        candidates = self.bench.candidates
        found = {}
        for planned in candidates.planning.default:
            rewrites = [option.rewrite for option in candidates.of_site(planned)]
            small = SmallModel.around(candidates.planning.view, rewrites) if rewrites else None
            if small is not None:
                found[planned.id] = small
        return found

    @cached_property
    def _tensors(self) -> Mapping[str, Array]:
        """What the sites read, from one run of the whole model; only inputs if it cannot run."""
        bench, candidates = self.bench, self.bench.candidates
        names = {name: None for small in self._cut.values() for name in small.inputs}
        after = apply(candidates.with_choices({}))
        shown = {output.name for output in after.proto.graph.output} | bench.feeds.keys()
        after.proto.graph.output.extend(
            ValueInfoProto(name=name) for name in names if name not in shown
        )
        try:
            with ExitStack() as stack:
                folder = candidates.model.folder
                path = stack.enter_context(staged(after.proto, folder, None, after.added)).path
                tuner = bench.tuner
                session = get_backend(tuner.backend).prepare(path, threads=tuner.threads)
                return {**bench.feeds, **session.run(bench.feeds)}
        except (BackendUnavailable, ModelError, UsageError):
            return bench.feeds
