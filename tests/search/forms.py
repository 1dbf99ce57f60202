"""Every form that the policies may choose for a site, checked at several sizes."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, checker

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify
from deployconv.rewrites.planning import apply
from deployconv.runtimes import get_backend
from deployconv.search.candidates import Candidates
from tests.build import Feeds, assert_equal, feeds_for


def assert_every_form(original: ModelProto, feeds: Sequence[Feeds] = ()) -> list[str]:
    """Take each form of each site alone: certified, and equal bits in onnxruntime.

    Returns the names of the forms of the first site.
    """
    candidates = Candidates.of(load(original), RewriteOptions(policy="cost"))
    given = feeds or [feeds_for(original)]
    expected = _outputs(original, given)
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
            for one, other in zip(expected, _outputs(after, given), strict=True):
                assert_equal(one, other)
    return names[0]


def _outputs(model: ModelProto, feeds: Sequence[Feeds]) -> list[Feeds]:
    """What onnxruntime computes of each, as the graph stands."""
    session = get_backend("ort").prepare(model.SerializeToString(), threads=1, optimise=False)
    return [session.run(given) for given in feeds]
