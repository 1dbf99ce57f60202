"""Every form that the policies may choose for a site, checked at several sizes."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, checker

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify
from deployconv.rewrites.planning import apply
from deployconv.search.candidates import Candidates
from tests.build import Feeds, assert_equal, feeds_for, run


def assert_every_form(original: ModelProto, feeds: Sequence[Feeds] = ()) -> list[str]:
    """Take each form of each site alone: certified, and equal bits in onnxruntime.

    Returns the names of the forms of the first site.
    """
    candidates = Candidates.of(load(original), RewriteOptions(policy="cost"))
    names: list[list[str]] = []
    for planned in candidates.planning.default:
        options = candidates.of_site(planned)
        names.append([str(option.choice) for option in options])
        for option in options:
            found = certify(option.rewrite, planned.id)
            assert found.verdict == "exact", (option.choice, found.failure)
            assert found.trial.parity_only == ()
            after = apply(candidates.with_choices({planned.id: option.choice})).proto
            checker.check_model(after)
            for given in feeds or [feeds_for(original)]:
                assert_equal(run(original, given), run(after, given))
    return names[0]
