"""`--policy cost` from the model to the result, with constants that decide the outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import deployconv
from deployconv.errors import UsageError
from deployconv.results import Prediction, Rewriting, SiteReport
from deployconv.runtimes import RUNTIMES
from deployconv.search import cost_model
from deployconv.search.cost_table import TABLES, CostTable, Rate
from deployconv.search.cost_terms import Term
from tests.build import (
    FLOAT,
    assert_equal,
    conv_transpose,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    run,
    tensor,
    upsampler,
    value,
)
from tests.search.nets import (
    head,
    net,
    pair,
    shuffled,
    shuffled_twice,
    up,
    upsampled_and_shuffled,
)


def table(margin: float = 0.0, **rates: float) -> CostTable:
    """A table of milliseconds per million; everything else is free."""
    terms: dict[Term, Rate] = {term: Rate(0.0, ms) for term, ms in rates.items()}  # type: ignore[misc]
    return CostTable(terms, block=0, margin=margin, fitted=True)


SLOW = {"depth_to_space": 3.0, "transposed": 8.0, "transposed_axis": 1.0, "transposed_rows": 1.0}
COL2IM_WINS = table(scattered=9.0, col2im=1.0, col2im_pairs=1.0, **SLOW)
NOTHING_WINS = table(col2im=1.0, col2im_pairs=1.0, **SLOW)


def test_a_crop_after_a_col2im_is_predicted_at_dynamic_sizes_too() -> None:
    """Shape inference knows the result of a Col2Im only if its sizes are an initializer."""
    shape = {"x": (1, 2, 5, 6)}
    predicted = []
    for sizes in ((5, 6), ("h", "w")):
        done = deployconv.rewrite(
            upsampler(sizes, opset=18), policy="cost", shape=shape, verify=False, bench=False
        )
        names = {entry.name: entry for entry in done.sites[0].candidates}
        predicted.append(names["crop, col2im"])
    static, dynamic = predicted
    assert isinstance(static, Prediction)
    assert isinstance(dynamic, Prediction)
    # The sizes are computed while the model runs.
    assert static.predicted_ms < dynamic.predicted_ms < 2 * static.predicted_ms


@pytest.fixture
def constants(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Use a table in place of that of onnxruntime."""

    def use(made: CostTable) -> None:
        monkeypatch.setattr(cost_model, "TABLES", {**TABLES, "ort": made})

    return use


def rewritten(original: ModelProto, **options: Any) -> Rewriting:
    return deployconv.rewrite(original, policy="cost", bench=False, **options)


def names(site: SiteReport) -> list[str]:
    return [entry.name for entry in site.candidates]


def chosen(site: SiteReport) -> list[str]:
    return [entry.name for entry in site.candidates if entry.chosen]


def test_the_cheapest_form_is_written_and_verified(constants: Any) -> None:
    constants(COL2IM_WINS)
    original = pair(opset=17)
    done = rewritten(original)
    assert done.model is not None
    assert [site.certificate for site in done.sites] == ["exact", "exact"]
    assert [site.shuffle for site in done.sites] == ["col2im", "col2im"]
    assert [chosen(site) for site in done.sites] == [["crop, col2im"], ["split, col2im"]]
    assert done.model.opset_import[0].version == 18
    assert_equal(run(original, feeds_for(original)), run(done.model, feeds_for(original)))


def test_the_opset_stays_if_the_call_says_so(constants: Any) -> None:
    constants(COL2IM_WINS)
    done = rewritten(pair(opset=17), upgrade_opset=False)
    assert done.model is not None
    assert done.model.opset_import[0].version == 17
    assert [site.shuffle for site in done.sites] == ["two-step", "two-step"]


def test_a_site_stays_if_all_forms_are_predicted_to_be_slower(constants: Any) -> None:
    constants(NOTHING_WINS)
    original = pair()
    done = rewritten(original)
    assert done.model == original
    for site in done.sites:
        assert site.reason is not None
        assert (site.status, site.reason.code) == ("kept", "slower")
        assert "predicted" in site.reason.text
        assert chosen(site) == ["as it was"]


def test_a_site_stays_if_no_form_is_faster(constants: Any) -> None:
    constants(table())
    assert rewritten(pair()).model == pair()


@pytest.mark.parametrize(("margin", "status"), [(0.7, "kept"), (0.6, "rewritten")])
def test_a_form_has_to_save_more_than_the_margin(
    margin: float, status: str, constants: Any
) -> None:
    """k2 s2: as many columns as elements are shuffled; a third of the time is left."""
    constants(table(margin, scattered=3.0, depth_to_space=1.0, transposed=3.0))
    body = conv_transpose(integers(2, 2, 2, 2), (4, 6), strides=[2, 2])
    (site,) = rewritten(body, shuffle="dcr").sites
    assert site.status == status


def test_candidates_are_reported_as_predictions(constants: Any) -> None:
    constants(COL2IM_WINS)
    (site,) = rewritten(upsampler(), form="crop", shuffle="dcr").sites
    kept, dcr = site.candidates
    assert isinstance(kept, Prediction)
    assert isinstance(dcr, Prediction)
    assert kept.name == "as it was"
    # 3 channels of 16 columns for each of 5x6 pixels; 3 channels of 4 phases for 6x7.
    assert kept.predicted_ms == pytest.approx(9.0 * 3 * 16 * 30 / 1e6)
    assert dcr.predicted_ms == pytest.approx(3.0 * 3 * 4 * 42 / 1e6)


@pytest.mark.parametrize(("least", "status"), [(0.1, "rewritten"), (0.9, "kept")])
def test_a_site_stays_if_the_whole_model_gains_little(
    constants: Any, least: float, status: str
) -> None:
    """The ConvTranspose takes no time any more; the Relu before it takes as long as it did."""
    rates: dict[Term, Rate] = {"scattered": Rate(1.0), "pointwise": Rate(8.0)}
    constants(CostTable(rates, block=0, margin=0.0, fitted=True, least=least))
    relu = node("Relu", ["x"], ["r"], name="relu")
    (site,) = rewritten(net(relu, up("r", "y", "up")), shuffle="dcr").sites
    assert site.status == status


@pytest.mark.parametrize(("dtype", "kept"), [(np.float32, True), (np.float16, False)])
def test_only_float32_is_computed_on_blocks(constants: Any, dtype: Any, kept: bool) -> None:
    rates: dict[Term, Rate] = {"scattered": Rate(1.0), "blocked": Rate(1e3)}
    constants(CostTable(rates, block=16, margin=0.0, fitted=True))
    body = conv_transpose(integers(16, 16, 2, 2, dtype=dtype), (4, 6), strides=[2, 2])
    (site,) = rewritten(body, shuffle="dcr").sites
    assert (site.status == "kept") == kept


def test_the_choice_depends_on_the_number_of_threads(constants: Any) -> None:
    shared: dict[Term, Rate] = {"scattered": Rate(8.0), "depth_to_space": Rate(0.0, 5.0)}
    constants(CostTable(shared, block=0, margin=0.0, fitted=True))
    body = conv_transpose(integers(2, 2, 2, 2), (4, 6), strides=[2, 2])
    one, two = (rewritten(body, shuffle="dcr", threads=threads).sites[0] for threads in (1, 2))
    assert (one.status, two.status) == ("rewritten", "kept")


def test_sizes_are_those_that_are_given(constants: Any, tmp_path: Path) -> None:
    constants(COL2IM_WINS)
    body = upsampler(("h", "w"))
    guessed = rewritten(body).sites[0].candidates[0]
    shaped = rewritten(body, shape={"x": (1, 2, 5, 6)}).sites[0].candidates[0]
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 2, 5, 6), np.float32))
    loaded = rewritten(body, inputs=tmp_path / "x.npz").sites[0].candidates[0]
    assert isinstance(guessed, Prediction)
    assert isinstance(shaped, Prediction)
    assert shaped == loaded
    assert guessed.predicted_ms == pytest.approx(shaped.predicted_ms * 64 * 64 / 30)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="no such input"):
        rewritten(upsampler(), shape={"z": (1, 2, 5, 6)}, verify=False)


def test_in_a_function_nothing_is_known() -> None:
    call = node("Up", ["x"], ["y"], domain="local")
    inside = [
        node("Constant", [], ["w"], value=tensor("w", integers(2, 2, 2, 2))),
        node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
    ]
    body = graph([call], [value("x", FLOAT, [1, 2, 4, 6])], [value("y", FLOAT, [None] * 4)])
    proto = model(body, domains=("local",))
    function = proto.functions.add(name="Up", domain="local", input=["x"], output=["y"])
    function.node.extend(inside)
    function.opset_import.extend(proto.opset_import[:1])
    (site,) = rewritten(proto).sites
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("kept", "unpredicted")
    assert site.candidates == ()


def test_a_separable_form_is_taken_if_that_is_cheaper(constants: Any) -> None:
    """Moving whole rows is cheap, and the first shuffle has an eighth of the elements."""
    weight = np.ones((3, 1, 16, 16), np.float32) * np.float32([1, 2, 3]).reshape(3, 1, 1, 1)
    original = conv_transpose(weight, (5, 6), strides=[8, 8], group=3, opset=18)
    constants(table(scattered=9.0, col2im=1.0, col2im_rows=0.1, **SLOW))
    done = rewritten(original)
    (site,) = done.sites
    assert (site.form, site.certificate) == ("separable", "exact")
    assert chosen(site) == ["separable, col2im"]
    assert done.model is not None
    assert_equal(run(original, feeds_for(original)), run(done.model, feeds_for(original)))
    constants(table(scattered=9.0, col2im=1.0, col2im_rows=1.0, **SLOW))
    assert chosen(rewritten(original).sites[0]) == ["crop, col2im"]


def test_matrices_are_taken_if_multiplying_is_cheaper_than_moving(constants: Any) -> None:
    weight = np.ones((3, 1, 16, 16), np.float32)
    original = conv_transpose(weight, (5, 6), strides=[8, 8], group=3, opset=18)
    constants(table(scattered=9.0, col2im=1.0, col2im_rows=0.1, gemm=0.001, **SLOW))
    done = rewritten(original)
    (site,) = done.sites
    assert (site.form, site.shuffle, site.certificate) == ("matrix", None, "exact")
    assert chosen(site) == ["matrix"]
    assert done.model is not None
    assert_equal(run(original, feeds_for(original)), run(done.model, feeds_for(original)))
    constants(table(scattered=9.0, col2im=1.0, col2im_rows=0.1, gemm=0.1, **SLOW))
    assert chosen(rewritten(original).sites[0]) == ["separable, col2im"]


# --- chains


def test_a_chain_is_taken_if_it_saves_more_than_its_sites(constants: Any) -> None:
    constants(COL2IM_WINS)
    first, second = rewritten(head()).sites
    assert chosen(first) == ["crop, col2im + chain"]
    assert (second.status, second.certificate) == ("rewritten", "exact")
    assert chosen(second) == []
    assert "as it was" in names(second)


def test_a_chain_is_not_taken_if_its_sites_save_more(constants: Any) -> None:
    """The block-diagonal Conv has more multiplications than the two layers."""
    constants(table(scattered=9.0, col2im=1.0, col2im_pairs=1.0, gemm=0.5, **SLOW))
    first, second = rewritten(head()).sites
    assert "chain" not in "".join(chosen(first))
    assert chosen(second) != []


@pytest.mark.parametrize("proto", [shuffled_twice(), upsampled_and_shuffled()])
def test_one_shuffle_is_taken_if_two_cost_more(proto: ModelProto, constants: Any) -> None:
    constants(table(scattered=9.0, col2im=1.0, col2im_pairs=2.0, **SLOW))
    done = rewritten(proto)
    first, *others = done.sites
    assert chosen(first)[0].endswith("col2im + pointwise")
    assert {(site.status, site.certificate) for site in done.sites} == {("rewritten", "exact")}
    assert [chosen(site) for site in others] == [[] for _ in others]
    assert done.model is not None
    assert ops(done.model) == {"Conv": 1, "Relu": 1, "Reshape": 1, "Col2Im": 1}


# --- only, skip, other patterns


def test_only_leaves_the_others_alone(constants: Any) -> None:
    constants(COL2IM_WINS)
    small, large = rewritten(pair(), only=("large",)).sites
    assert small.reason is not None
    assert (small.reason.code, small.candidates) == ("not-selected", ())
    assert large.status == "rewritten"


def test_a_pixel_shuffle_becomes_a_cheaper_shuffle(constants: Any) -> None:
    constants(COL2IM_WINS)
    (site,) = rewritten(shuffled()).sites
    assert (site.status, site.shuffle) == ("rewritten", "col2im")


# --- backends that nothing was measured on


def repeated() -> ModelProto:
    """Nearest Resize x2, Conv 3x3, on a large image."""
    body = graph(
        [
            node("Resize", ["x", "", "scales"], ["a"], mode="nearest"),
            node("Conv", ["a", "w"], ["y"], name="conv", pads=[1] * 4),
        ],
        [value("x", FLOAT, [1, 64, 64, 64])],
        [value("y", FLOAT, [None] * 4)],
        [
            tensor("w", integers(64, 64, 3, 3)),
            tensor("scales", np.array([1, 1, 2, 2], np.float32)),
        ],
    )
    return model(body)


@pytest.mark.parametrize(
    "backend", [name for name, row in RUNTIMES.items() if not TABLES[row.cost_table].fitted]
)
def test_without_measurements_a_rewrite_has_to_save_multiplications(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployconv.api.rewriting.get_backend", lambda name: None)
    (saves,) = rewritten(repeated(), backend=backend, verify=False).sites
    assert saves.status == "rewritten"
    done = rewritten(pair(), backend=backend, verify=False)
    assert [site.status for site in done.sites] == ["kept", "kept"]
    assert any("not fitted" in warning for warning in done.warnings)


def test_tensorrt_gets_what_it_cannot_build_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployconv.api.rewriting.get_backend", lambda name: None)
    dilated = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], dilations=[2, 2])
    for backend, status in (("tensorrt-rtx", "rewritten"), ("ort:cuda", "kept")):
        (site,) = rewritten(dilated, backend=backend, verify=False).sites
        assert site.status == status


def test_every_backend_has_a_table() -> None:
    assert set(TABLES) == {runtime.cost_table for runtime in RUNTIMES.values()}
    for made in TABLES.values():
        assert all(rate.parallel >= 0 and rate.serial >= 0 for rate in made.rates.values())
        assert 0 < made.margin < 1
