"""The times of layers, grouped by site."""

from __future__ import annotations

import pytest
from onnx import ModelProto

import deployconv
from deployconv.proof.site_times import SiteNames, group_by_site
from deployconv.results import LayerTime
from tests.build import conv_transpose, integers, node, tensor, upsampler
from tests.runtimes.rtx import MODELS

ORIGINAL = SiteNames(
    owners={"up": "main/up", "up2": "main/up2"},
    nodes=frozenset({"up", "up2", "relu", "up/own"}),
    labels={"up": "main/up", "up2": "main/up2"},
)


def times(*layers: tuple[str, ...]) -> list[LayerTime]:
    """One layer of 1 ms for each group of nodes."""
    return [LayerTime(" + ".join(nodes), 1.0, nodes) for nodes in layers]


def test_a_layer_belongs_to_the_sites_among_its_nodes() -> None:
    found = group_by_site(
        times(("relu",), ("up", "relu"), ("up", "up2"), ("up",), ("copy",)), ORIGINAL
    )
    assert [(one.sites, one.ms, [layer.name for layer in one.layers]) for one in found] == [
        (("main/up",), 2.0, ["up + relu", "up"]),
        (("main/up", "main/up2"), 1.0, ["up + up2"]),
        ((), 2.0, ["relu", "copy"]),
    ]


def test_no_time_is_counted_twice_and_none_is_lost() -> None:
    layers = times(("up", "up2"), ("up2",), ("elsewhere",))
    assert sum(one.ms for one in group_by_site(layers, ORIGINAL)) == 3.0
    assert group_by_site([], ORIGINAL) == ()


def test_what_is_no_node_of_the_model_is_left_out() -> None:
    ((group),) = group_by_site([LayerTime("x", 1.0, ("up", "__myl_1"))], ORIGINAL)
    assert group.layers[0].nodes == ("up",)


def test_a_node_in_a_subgraph_comes_with_its_path() -> None:
    (group,) = group_by_site([LayerTime("x", 1.0, ("up | then_branch",))], ORIGINAL)
    assert group.sites == ("main/up",)
    assert group.layers[0].nodes == ("up | then_branch",)


def test_nodes_that_replace_a_site_count_as_that_site() -> None:
    made = SiteNames(
        owners={"up/conv": "main/up/shuffle"},
        nodes=frozenset({"up/conv", "up/shuffle", "up2/conv", "up2/x/conv", "relu", "up/own"}),
        labels={},
    ).with_ids_of(ORIGINAL)
    assert made.owners == {
        "up/conv": "main/up",
        "up/shuffle": "main/up",
        "up2/conv": "main/up2",
        "up2/x/conv": "main/up2",
    }  # "up/own" stood in the original already


def rewritten(model: ModelProto) -> ModelProto:
    done = deployconv.rewrite(model, bench=False, verify=False).model
    assert done is not None
    return done


def test_names_of_a_model_and_of_the_rewritten_one() -> None:
    model = upsampler()
    names = SiteNames.of(model.SerializeToString())
    assert names.owners == {"up": "main/up"}
    after = SiteNames.of(rewritten(model).SerializeToString())
    assert after.owners == {"up/conv": "main/up/shuffle", "up/shuffle": "main/up/shuffle"}
    assert after.with_ids_of(names).owners == dict.fromkeys(after.nodes, "main/up")


def test_a_node_without_a_name_is_called_as_the_importer_calls_it() -> None:
    model = conv_transpose(integers(2, 3, 4, 4), (5, 6), strides=[2, 2])
    model.graph.node[0].name = ""
    names = SiteNames.of(model.SerializeToString())
    assert names.owners == {"node_of_y": "main/ConvTranspose_0"}
    after = SiteNames.of(rewritten(model).SerializeToString()).with_ids_of(names)
    assert set(after.owners.values()) == {"main/ConvTranspose_0"}


def test_a_site_that_stays_keeps_its_id() -> None:
    model = upsampler()
    model.graph.node[0].output[0] = "h"
    model.graph.node.append(node("ConvTranspose", ["h", "v"], ["y"], name="last", strides=[2, 2]))
    model.graph.initializer.append(tensor("v", integers(3, 2, 2, 2)))
    names = SiteNames.of(model.SerializeToString())
    done = deployconv.rewrite(model, skip=["main/last"], bench=False, verify=False).model
    assert done is not None
    after = SiteNames.of(done.SerializeToString()).with_ids_of(names)
    assert after.owners["last"] == "main/last"
    assert after.owners["up/conv"] == "main/up"


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_every_new_node_of_a_sample_finds_its_site(path: object) -> None:
    names = SiteNames.of(path)  # type: ignore[arg-type]
    done = deployconv.rewrite(path, bench=False, verify=False)  # type: ignore[arg-type]
    assert done.model is not None
    after = SiteNames.of(done.model.SerializeToString()).with_ids_of(names)
    fresh = after.nodes - names.nodes
    assert fresh <= set(after.owners)
    changed = {site.id for site in done.sites if site.status == "rewritten"}
    assert {after.owners[one] for one in fresh} == changed
