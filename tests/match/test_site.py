"""What all types of sites have."""

from __future__ import annotations

from pathlib import Path

import pytest

import deployconv
from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.match import ResampleSite, ShuffleSite, Site, SkippedSite, find_sites
from tests.match.graphs import parsed

MODELS = Path(__file__).parents[2] / "models"
SKIPPED = "z = ConvTranspose(x, x) y = Identity(z)"
"""The weight is no constant."""


def sites_of(name: str) -> dict[str, Site]:
    return {site.id: site for site in find_sites(view(load(MODELS / f"{name}.onnx")))}


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_report_says_what_the_site_answers(path: Path) -> None:
    sites = sites_of(path.stem)
    reports = deployconv.inspect(path).sites
    # A Resize that makes an image smaller is listed only where it may be rewritten.
    listed = {
        name for name, site in sites.items() if not isinstance(site, ResampleSite) or site.enlarges
    }
    assert {report.id for report in reports} == listed
    for report in reports:
        site = sites[report.id]
        assert report.dtype == site.dtype
        assert site.reason is None or report.status == "skipped"
        if site.reason is not None:
            assert report.reason == site.reason


def test_only_what_has_a_reason_cannot_be_rewritten() -> None:
    (skipped,) = find_sites(view(load(parsed(SKIPPED, dims="2,2,3,3"))))
    assert isinstance(skipped, SkippedSite)
    assert skipped.reason is not None
    assert skipped.reason.code == "runtime-weight"
    assert skipped.explicit_attributes is None
    (shuffle,) = sites_of("espcn_x3").values()
    assert isinstance(shuffle, ShuffleSite)
    assert shuffle.reason is None


@pytest.mark.parametrize(
    ("name", "dtype", "integer"),
    [
        ("dcgan_int8", "int8", True),
        ("dcgan_generator", "float32", False),
        ("dcgan_fp16", "float16", False),
        ("espcn_x3", "float32", False),
    ],
)
def test_element_types_of_the_weights(name: str, dtype: str, integer: bool) -> None:
    for site in sites_of(name).values():
        assert site.dtype == dtype
        assert site.has_integer_weight == integer
