"""What the facts of a layer are, and what follows from rules over them."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from matrix.forms import FORMS
from matrix.further import EVERY
from ml_dtypes import bfloat16
from onnx import AttributeProto, ModelProto, helper, numpy_helper

import deployconv
from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.match import Site, find_sites
from deployconv.options import RewriteOptions
from deployconv.restrictions import UNRESTRICTED, Restrictions
from deployconv.results import Reason
from deployconv.targets.catalogue import target_names
from deployconv.targets.facts import FACTS, facts_of
from deployconv.targets.profile import Profile, Rule, Takes, read_profile
from deployconv.targets.rules import TargetRules, agreed, intersection, judge, rules_for
from tests.build import FLOAT, conv_transpose, graph, integers, model, node, tensor, value
from tests.match.graphs import NEAREST, floats, parsed


def only_site(model: ModelProto) -> Site:
    (site,) = find_sites(view(load(model)))
    return site


def transposed(*kernel: int, group: int = 1, dtype: Any = np.float32, **rest: Any) -> ModelProto:
    weight = integers(4, 4 // group, *kernel, dtype=dtype)
    sizes = rest.pop("sizes", (4, 6, 5)[: len(kernel)])
    return conv_transpose(weight, sizes, **{"strides": [2] * len(kernel), "group": group, **rest})


OF_FORMS = {
    "k2s2": {"kernel_is_stride": True, "stride": 2, "rank": 2, "depthwise": False, "padded": False},
    "k4s2p1": {"kernel": 4, "padded": True, "asymmetric_pads": False, "pixels": 400, "batch": 1},
    "k1s2": {"kernel_below_stride": True, "zero_phases": True, "kernel_is_stride": False},
    "k3s2p1op1": {"output_padding": True, "zero_phases": False},
    "dw_k4s2": {"depthwise": True, "grouped": False, "group": 16},
    "g4_k4s2": {"depthwise": False, "grouped": True, "group": 4},
    "dil2_k3s2": {"dilated": True, "zero_phases": True},
    "dil2_k3s1": {"dilated": True, "zero_phases": False},
    "asym_pads": {"asymmetric_pads": True},
    "s21": {"equal_strides": False, "stride": 2, "least_stride": 1},
    "same_upper": {"auto_pad": "SAME_UPPER", "output_shape": False, "odd_output_shape": False},
    "output_shape": {"output_shape": True, "odd_output_shape": True},
    "nobias_k4s2p1": {"bias": False},
    "d1_k4s2p1": {"rank": 1, "bias": True},
    "d3_k2s2": {"rank": 3},
    "batch2_k4s2p1": {"batch": 2},
    "dynhw_k4s2p1": {"dynamic_sizes": True, "dynamic_batch": True, "pixels": None},
    "dynn_k2s2": {"dynamic_sizes": False, "dynamic_batch": True, "batch": None},
    "nearest_conv3": {"pattern": "nearest_resize", "operator": "Conv", "output_shape": None},
    "zero_insert_conv4": {"pattern": "zero_insertion"},
    "ps_6d": {"pattern": "pixel_shuffle", "operator": "Reshape", "depth_to_space_mode": None},
    "d2s_dcr": {"depth_to_space_mode": "DCR", "rank": 2},
    "d2s_crd": {"depth_to_space_mode": "CRD"},
    "fp16_k4s2p1": {"dtype": "float16", "quantized": False},
    "qdq_channel_k2s2": {"dtype": "int8", "quantized": True},
    "same_upper_k2s2": {"span_within_stride": True, "kernel_below_stride": False},
    "output_shape_dilated": {"span_within_stride": False, "states_kernel": True},
    "output_shape_dynamic": {"output_shape": True, "dynamic_sizes": True},
    "d3_s122": {"over_depth": False},
    "d3_k3s1": {"over_depth": True},
    "d3_no_kernel_shape": {"states_kernel": False},
    "lin_hp": {"by_sizes": False, "named_axes": 0, "negative_axes": False, "channels_last": False},
    "lin_hp_sizes": {"by_sizes": True, "keeps_an_axis": False},
    "lin_hp_axes": {"named_axes": 2, "negative_axes": False},
    "lin_hp_axes_negative": {"named_axes": 2, "negative_axes": True},
    "lin_hp_axes_one": {"named_axes": 1, "keeps_an_axis": True},
    "lin_hp_last": {"channels_last": True, "keeps_an_axis": True},
    "lin_ac_dynamic": {"rounded_length": True},
    "lin_dyn": {"rounded_length": False},
    "lin_asym_width": {"only_last_axis": True, "channels_last": False},
    "lin_1d": {"keeps_an_axis": False, "rank": 1},
}


@pytest.mark.parametrize(("form", "expected"), OF_FORMS.items(), ids=list(OF_FORMS))
def test_facts(form: str, expected: dict[str, Any]) -> None:
    facts = facts_of(only_site(EVERY[form].model()))
    assert {name: facts[name] for name in expected} == expected


def test_the_axes_of_a_nearest_resize_before_a_conv_are_its_own() -> None:
    body = f"z = Resize<{NEAREST}, axes=[2,3]>(x, , s) y = Conv<pads=[1,1,1,1]>(z, w, b)"
    facts = facts_of(only_site(parsed(body, {"s": floats(2, 2)}, opset=18)))
    assert (facts["operator"], facts["named_axes"]) == ("Conv", 2)


@pytest.mark.parametrize(
    ("proto", "odd"),
    [
        (transposed(3, 3, output_shape=[8, 12]), True),
        (transposed(4, 4, output_shape=[8, 12]), False),
        (transposed(4, 4, output_shape=[9, 12]), True),
        (transposed(3, 3, output_shape=[8, 12], output_padding=[1, 1]), False),
        (transposed(3, 3), False),
    ],
)
def test_odd_output_shape(proto: ModelProto, odd: bool) -> None:
    assert facts_of(only_site(proto))["odd_output_shape"] is odd


def test_depthwise_is_a_matter_of_the_input_channels() -> None:
    def facts(*shape: int, group: int) -> tuple[Any, Any]:
        proto = conv_transpose(integers(*shape), (4, 5), strides=[2, 2], group=group)
        found = facts_of(only_site(proto))
        return found["depthwise"], found["grouped"]

    assert facts(4, 1, 2, 2, group=4) == (True, False)
    assert facts(4, 3, 2, 2, group=4) == (True, False)  # several outputs for each channel
    assert facts(16, 4, 2, 2, group=4) == (False, True)
    assert facts(1, 4, 2, 2, group=1) == (False, False)


@pytest.mark.parametrize("form", FORMS)
def test_a_fact_is_of_its_type_or_not_known(form: str) -> None:
    for name, found in facts_of(only_site_of(form)).items():
        assert found is None or type(found) is FACTS[name].kind, name


SITES: dict[str, Site] = {}


def only_site_of(form: str) -> Site:
    if form not in SITES:
        SITES[form] = only_site(FORMS[form].model())
    return SITES[form]


def profile(text: str) -> Profile:
    return read_profile("test.toml", text, "test")


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ("stride = 2", True),
        ("stride = [1, 3]", False),
        ("stride = {min = 2}", True),
        ("stride = {min = 3}", False),
        ("stride = {max = 1}", False),
        ("stride = {min = 1, max = 2}", True),
        ("dtype = 'float32'", True),
        ("dtype = ['float16', 'bfloat16']", False),
        ("padded = true", True),
        ("padded = false", False),
        ("stride = 2, padded = false", False),
        ("depth_to_space_mode = 'DCR'", False),  # it is no DepthToSpace
        ("antialias = false", False),  # nor a Resize
    ],
)
def test_conditions(when: str, holds: bool) -> None:
    (rule,) = profile(f"[[layers]]\nwhen = {{{when}}}\ntext = 'x'").layers
    assert rule.holds(facts_of(only_site(transposed(4, 4, pads=[1] * 4)))) is holds


RULES = {
    "no rule": ("", ("fits", "rewrite", None)),
    "no rule, kept": ("action = 'keep'", ("fits", "keep", None)),
    "refused": ("R", ("refused", "rewrite", "r")),
    "the worst counts": ("S R M", ("refused", "rewrite", "r")),
    "the first of those that fit or are slow": ("F S", ("fits", "keep", "f")),
    "slow is rewritten": ("S F", ("slow", "rewrite", "s")),
    "needed goes before slower": ("F M", ("misread", "rewrite", "m")),
    "no form helps": ("N", ("refused", "keep", "n")),
    "no form helps against one of two": ("M N", ("refused", "keep", "n")),
}
LETTERS = {
    "R": "verdict = 'refused'",
    "M": "verdict = 'misread'",
    "S": "verdict = 'slow'",
    "F": "action = 'keep'",
    "N": "verdict = 'refused'\naction = 'keep'",
}


@pytest.mark.parametrize(("rules", "expected"), RULES.values(), ids=list(RULES))
def test_verdict_and_action(rules: str, expected: tuple[str, str, str | None]) -> None:
    text = rules
    if "=" not in rules:
        text = "name = 'test'\n" + "".join(
            f"[[layers]]\nwhen = {{stride = 2}}\ntext = '{one.lower()}'\n{LETTERS[one]}\n"
            for one in rules.split()
        )
    said = judge(profile(text), only_site(transposed(2, 2))).site
    assert (said.verdict, said.action, said.text) == expected


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "size", "status"),
    [
        (16, 4, 8, 20, "rewritten"),
        (16, 8, 8, 20, "kept"),
        (17, 8, 8, 20, "rewritten"),
        (32, 16, 8, 20, "kept"),
        (49, 16, 8, 20, "rewritten"),
        (17, 8, 4, 20, "kept"),
        (17, 8, 8, 3, "kept"),
    ],
)
def test_stride_4_is_rewritten_for_rknn_where_it_takes_fewer_cycles(
    inputs: int, outputs: int, kernel: int, size: int, status: str
) -> None:
    weight = integers(inputs, outputs, kernel, kernel)
    (site,) = deployconv.inspect(
        conv_transpose(weight, (size, size), strides=[4, 4]), target="rk3588"
    ).sites
    assert site.status == status


def test_what_mends_all_faults_is_preferred() -> None:
    text = """
prefer = ["pad dcr", "transpose"]
[[layers]]
when = {padded = true}
verdict = "refused"
prefer = ["normalised", "transpose", "pad dcr"]
text = "pads"
[[layers]]
when = {group = {min = 2}}
verdict = "refused"
text = "groups"
"""

    def preferred(model: ModelProto) -> list[str]:
        return [str(one) for one in judge(profile(text), only_site(model)).prefer]

    assert preferred(transposed(4, 4, pads=[1] * 4)) == ["normalised", "transpose", "pad dcr"]
    assert preferred(transposed(4, 4, pads=[1] * 4, group=2)) == ["transpose", "pad dcr"]
    assert preferred(transposed(4, 4, group=2)) == ["pad dcr", "transpose"]


def test_a_depth_to_space_that_its_target_leaves_to_the_cpu_is_written_otherwise() -> None:
    (site,) = deployconv.inspect(FORMS["d2s_dcr"].model(), target="ethos-u55").sites
    assert (site.status, site.shuffle) == ("rewritten", "two-step")


def test_a_size_of_zero_in_a_reshape_is_a_fault_of_the_layer_as_exported() -> None:
    proto = FORMS["ps_6d"].model()
    for held in proto.graph.initializer:
        if held.name == "split":
            sizes = numpy_helper.to_array(held).copy()
            sizes[0] = 0
            held.CopyFrom(numpy_helper.from_array(sizes, held.name))
    inspection = deployconv.inspect(proto, target="imx500")
    (site,) = inspection.sites
    assert (site.status, site.shuffle, site.targets[0].verdict) == (
        *("rewritten", "transpose", "refused"),
    )
    assert inspection.targets[0].misfits == ()


def test_attributes_that_are_parameters_of_a_function_are_not_known() -> None:
    pads = AttributeProto(name="pads", type=AttributeProto.INTS, ref_attr_name="p")
    proto = function_model(pads, p=[1, 1, 1, 1])
    facts = facts_of(only_site(proto))
    assert (facts["operator"], facts["padded"], facts["stride"]) == ("ConvTranspose", None, None)
    for name in target_names():
        (site,) = deployconv.inspect(proto, target=name).sites
        assert site.reason is not None


def function_model(*attributes: AttributeProto, **given: Any) -> ModelProto:
    """A local function around one ConvTranspose, with ``attributes``, called with ``given``."""
    up = node("ConvTranspose", ["a", "w"], ["c"], name="up", strides=[2, 2])
    up.attribute.extend(attributes)
    function = helper.make_function(
        *("local", "Up", ["a", "w"], ["c"], [up], [helper.make_opsetid("", 17)]),
        attributes=list(given),
    )
    body = graph(
        [node("Up", ["x", "w"], ["y"], domain="local", **given)],
        [value("x", FLOAT, [1, 2, 5, 6])],
        [value("y", FLOAT, [None] * 4)],
        [tensor("w", integers(2, 3, 4, 4))],
    )
    return model(body, domains=["local"], functions=[function])


FOUR = ["pad transpose", "pad dcr", "crop transpose", "crop dcr"]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (["dcr"], ["pad dcr"], ["pad dcr"]),
        (
            ["pad", "crop"],
            ["transpose", "dcr"],
            ["pad transpose", "pad dcr", "crop transpose", "crop dcr"],
        ),
        (["crd", "transpose"], ["dcr", "transpose"], ["transpose"]),
        (["normalised", "dcr"], ["dcr"], ["dcr"]),
        (["normalised"], ["normalised", "dcr"], ["normalised"]),
        (["auto"], ["dcr"], ["dcr"]),
    ],
)
def test_forms_of_two_targets(one: list[str], other: list[str], both: list[str]) -> None:
    profiles = [profile(f"prefer = {json.dumps(given)}") for given in (one, other)]
    found = agreed([each.prefer for each in profiles], profiles)
    assert list(map(str, found)) == both


def why_kept(*texts: str) -> Reason | None:
    """Why targets of these profiles leave a ConvTranspose as it is."""
    rules = TargetRules(tuple(map(profile, texts)), RewriteOptions())
    return rules(only_site(transposed(2, 2, dtype=bfloat16, opset=22))).keep


TAKEN = "test takes it as it is"
UNTRIED = "no rule of test speaks of this layer, and no run of one like it is recorded"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (['tested = ["layers"]'], TAKEN),
        (['tested = ["resizes"]'], UNTRIED),
        ([""], UNTRIED),
        (['documented = "dla"'], "no rule in the documentation of test is against it"),
        (['tested = ["layers"]', ""], UNTRIED),
    ],
)
def test_a_layer_is_said_to_be_taken_only_where_one_like_it_was_tested(
    texts: list[str], said: str
) -> None:
    kept = why_kept(*(f'name = "test"\naction = "keep"\n{text}' for text in texts))
    assert kept is not None
    assert (kept.code, kept.text) == ("fits-target", said)


@pytest.mark.parametrize(("kind", "said"), [("resizes", TAKEN), ("layers", UNTRIED)])
def test_a_resize_by_itself_is_tested_apart(kind: str, said: str) -> None:
    text = f'name = "test"\naction = "keep"\ntested = ["{kind}"]'
    body = 'y = Resize<mode="linear">(x, , s)'
    given = parsed(body, {"s": floats(1, 1, 2, 2)}, opset=18)
    keep = TargetRules((profile(text),), RewriteOptions())(only_site(given)).keep
    assert keep is not None
    assert keep.text == said


def test_reasons_of_layers_that_stay() -> None:
    def code(text: str) -> str | None:
        keep = why_kept(text)
        return None if keep is None else keep.code

    rule = "[[layers]]\nwhen = {stride = 2}\ntext = 'x'\naction = 'keep'\n"
    assert code("action = 'keep'") == "fits-target"
    assert code(rule) == "slower-on-target"
    assert code(f"{rule}verdict = 'refused'") == "unsupported-on-target"
    assert code("action = 'rewrite'") is None


@pytest.mark.parametrize("name", target_names())
def test_every_profile_judges_every_form(name: str) -> None:
    rules = rules_for([name], RewriteOptions(), None)
    for form in FORMS:
        asked = rules(only_site_of(form))
        (said,) = asked.targets
        assert said.text or said.verdict == "fits"
        needed = said.verdict in ("refused", "misread")
        assert asked.required or not needed or said.action == "keep"
        assert (asked.keep is None) == (said.action != "keep")


def test_everything_that_may_be_restricted_is_a_key() -> None:
    assert {one.name for one in fields(Restrictions)} <= {one.name for one in fields(Takes)}
    limits = Takes(frozenset({"Conv"}), {"DCR": (2,)}, 4, reshape_zero=False, edge_pads=False)
    made = limits.restrictions
    assert (made.operators, made.max_rank, made.reshape_zero) == ({"Conv"}, 4, False)
    assert (made.crops, made.edge_pads) == (False, False)  # there is no Slice


def test_what_two_targets_take() -> None:
    one = Restrictions(frozenset({"Conv", "Relu"}), {"DCR": (2, 4), "CRD": None}, 6, crops=False)
    other = Restrictions(frozenset({"Conv"}), {"DCR": None, "CRD": (3,)}, None, edge_pads=False)
    both = intersection(one, other)
    assert (both.operators, both.max_rank) == ({"Conv"}, 6)
    assert both.depth_to_space == {"DCR": (2, 4), "CRD": (3,)}
    assert (both.crops, both.edge_pads, both.reshape_zero) == (False, False, True)
    assert intersection(both, UNRESTRICTED) == both == intersection(UNRESTRICTED, both)
    assert (
        intersection(
            Restrictions(depth_to_space={"DCR": None}), Restrictions(depth_to_space={"CRD": None})
        ).depth_to_space
        == {}
    )
    assert intersection(Restrictions(shuffle_in_twos=True), UNRESTRICTED).shuffle_in_twos


def test_a_rule_is_what_a_layer_is_judged_by() -> None:
    rule = Rule({"stride": (2,)}, "slow", "x")
    assert not rule.needed
    assert Rule({}, "misread", "x").needed
