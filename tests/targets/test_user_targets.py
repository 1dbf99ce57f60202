"""A target of the user's own: what is rewritten for it, and what is said of the rest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from matrix.forms import FORMS
from onnx import ModelProto, helper

import deployconv
from deployconv.api.requests import backend_of
from deployconv.errors import CheckFailed, UsageError
from deployconv.options import CheckCommand, RewriteCommand
from tests.build import conv_transpose, integers, node
from tests.targets.npu import NPU, dcgan, unet, written


def operators(model: ModelProto | None) -> set[str]:
    assert model is not None
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("network", [unet(), dcgan()], ids=["unet", "dcgan"])
def test_networks_are_written_in_the_operators_of_an_npu(
    network: ModelProto, tmp_path: Path
) -> None:
    target = written(tmp_path, NPU)
    done = deployconv.rewrite(network, target=target, bench=False, strict=True)
    assert operators(done.model) <= {"Conv", "Relu", "Concat", "Reshape", "Transpose"}
    assert {site.certificate for site in done.sites} == {"exact"}
    assert done.parity is not None
    assert done.parity.passed
    assert [one.misfits for one in done.targets] == [()]
    assert {one.verdict for site in done.sites for one in site.targets} == {"refused"}


def test_what_is_left_is_named(tmp_path: Path) -> None:
    target = written(tmp_path, NPU)
    done = deployconv.rewrite(dcgan("Tanh"), target=target, bench=False)
    (left,) = done.targets[0].misfits
    assert (left.code, left.text, left.nodes) == (
        "operator",
        "Tanh, which npu does not take",
        ("last",),
    )
    assert done.warnings == ("npu: left in the model: Tanh, which npu does not take",)
    with pytest.raises(CheckFailed, match="--strict: npu: left in the model: Tanh") as failed:
        deployconv.rewrite(dcgan("Tanh"), target=target, strict=True)
    assert failed.value.result is not None
    assert failed.value.result.targets[0].misfits == (left,)


def test_operators_of_another_domain_are_named_with_it(tmp_path: Path) -> None:
    model = conv_transpose(integers(2, 3, 2, 2), (4, 5), strides=[2, 2])
    model.graph.node[-1].output[0] = "up"
    model.graph.node.append(node("Mish", ["up"], ["y"], domain="mine", name="last"))
    model.opset_import.append(helper.make_opsetid("mine", 1))

    def left(operators: str) -> tuple[str, ...]:
        text = f'name = "npu"\n[takes]\noperators = {operators}\n'
        target = deployconv.inspect(model, target=written(tmp_path, text)).targets[0]
        return tuple(one.text for one in target.misfits)

    assert left('["ConvTranspose"]') == ("mine::Mish, which npu does not take",)
    assert left('["ConvTranspose", "Mish"]') == ("mine::Mish, which npu does not take",)
    assert left('["ai.onnx::ConvTranspose", "mine::Mish"]') == ()


def test_an_operator_of_another_domain_is_not_read_as_the_one_of_onnx(tmp_path: Path) -> None:
    model = conv_transpose(integers(2, 3, 2, 2), (4, 5), strides=[2, 2])
    model.graph.node[-1].output[0] = "up"
    model.graph.node.append(node("DepthToSpace", ["up"], ["y"], domain="mine", name="last"))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    target = written(tmp_path, "[takes]\ndepth_to_space = {DCR = [4]}\n")
    assert deployconv.inspect(model, target=target).targets[0].misfits == ()


@pytest.mark.parametrize(
    ("takes", "code", "text"),
    [
        ("max_rank = 3", "rank", "over 4 dimensions, where npu takes 3"),
        ('dtypes = ["float16"]', "dtype", "in float32, where npu takes float16"),
        ("opset = {max = 13}", "opset", "opset 17, where npu takes 1 to 13"),
        ("opset = {min = 18}", "opset", "opset 17, where npu takes 18 on"),
        ("dynamic_sizes = false", "dynamic-size", "input 'x' has dynamic sizes"),
    ],
)
def test_limits_of_the_whole_model(takes: str, code: str, text: str, tmp_path: Path) -> None:
    model = conv_transpose(integers(2, 3, 2, 2), ("h", 5), strides=[2, 2])
    target = written(tmp_path, f'name = "npu"\n[takes]\n{takes}\n')
    found = deployconv.inspect(model, target=target).targets[0].misfits
    assert any(one.code == code and text in one.text for one in found), found


@pytest.mark.parametrize(
    ("depth_to_space", "shuffle"),
    [
        ('{DCR = "any"}', "dcr"),
        ("{CRD = [2]}", "crd"),
        ("{}", "two-step"),
    ],
)
def test_channel_orders_and_blocks(depth_to_space: str, shuffle: str, tmp_path: Path) -> None:
    model = conv_transpose(integers(2, 3, 2, 2), (4, 5), strides=[2, 2])
    text = f"[takes]\nmax_rank = 4\ndepth_to_space = {depth_to_space}\n"
    done = deployconv.rewrite(model, target=written(tmp_path, text), bench=False)
    assert [site.shuffle for site in done.sites] == [shuffle]
    assert done.parity is not None
    assert done.parity.passed


def test_a_profile_may_extend_another(tmp_path: Path) -> None:
    text = 'extends = "iree"\n[[layers]]\nwhen = {stride = 2}\ntext = "fast"\naction = "keep"\n'
    target = written(tmp_path, text, "mine.toml")
    model = conv_transpose(integers(2, 3, 2, 2), (4, 5), strides=[2, 2])
    (site,) = deployconv.inspect(model, target=target).sites
    assert (site.status, site.reason and site.reason.code) == ("kept", "slower-on-target")
    assert site.targets[0].text == "fast"
    odd = conv_transpose(integers(2, 3, 3, 3), (4, 4), strides=[2, 2], output_shape=[8, 8])
    (site,) = deployconv.inspect(odd, target=target).sites
    assert (site.status, site.targets[0].verdict) == ("rewritten", "refused")


def test_preferred_forms_are_tried_in_order(tmp_path: Path) -> None:
    model = conv_transpose(integers(4, 1, 4, 4), (4, 5), strides=[2, 2], pads=[1] * 4, group=4)
    target = written(tmp_path, 'prefer = ["pad dcr", "pad two-step", "transpose"]')
    (site,) = deployconv.inspect(model, target=target).sites
    assert (site.form, site.shuffle) == ("pad", "two-step")  # dcr takes no groups


@pytest.mark.parametrize(
    ("kernel", "choose", "form", "taps"),
    [
        (3, "first", "pad", 16),
        (3, "fewest-multiplications", "split", 9),
        (5, "fewest-multiplications", "split", 25),
        (2, "fewest-multiplications", "pad", 4),  # one Conv where several save nothing
    ],
)
def test_form_of_fewest_multiplications_is_chosen(
    tmp_path: Path, kernel: int, choose: str, form: str, taps: int
) -> None:
    model = conv_transpose(integers(2, 3, kernel, kernel), (4, 5), strides=[2, 2])
    text = f'prefer = ["pad dcr", "split dcr"]\nchoose = "{choose}"'
    (site,) = deployconv.inspect(model, target=written(tmp_path, text)).sites
    assert site.macs is not None
    assert (site.form, site.macs.after) == (form, 2 * 3 * taps)


@pytest.mark.parametrize(
    ("other", "form"),
    [
        ('prefer = ["dcr"]\nchoose = "fewest-multiplications"', "split"),
        ('prefer = ["dcr", "split dcr"]', "pad"),
        ("", "split"),  # no preference
    ],
)
def test_all_targets_have_to_choose_by_multiplications(
    tmp_path: Path, other: str, form: str
) -> None:
    model = conv_transpose(integers(2, 3, 3, 3), (4, 5), strides=[2, 2])
    text = 'title = "another"\n' + other
    targets = ["esp32p4", written(tmp_path, text)]
    (site,) = deployconv.inspect(model, target=targets).sites
    assert site.form == form


def test_options_of_the_call_come_first(tmp_path: Path) -> None:
    model = conv_transpose(integers(2, 3, 4, 4), (4, 5), strides=[2, 2], pads=[1] * 4)
    target = written(tmp_path, 'action = "keep"\nprefer = ["pad dcr"]')

    def planned(**options: str) -> tuple[str, str | None, str | None]:
        done = deployconv.rewrite(model, target=target, verify=False, bench=False, **options)
        (site,) = done.sites
        return site.status, site.form, site.shuffle

    assert planned() == ("kept", None, None)
    assert planned(policy="all") == ("rewritten", "pad", "dcr")
    assert planned(policy="all", shuffle="transpose") == ("rewritten", "crop", "transpose")


def test_several_targets_get_what_all_of_them_take() -> None:
    model = conv_transpose(integers(2, 3, 3, 3), (4, 4), strides=[2, 2], output_shape=[8, 8])
    (site,) = deployconv.inspect(model, target=["iree", "ncnn"]).sites
    assert (site.status, site.shuffle) == ("rewritten", "transpose")  # one takes DCR, one CRD
    assert [(one.target, one.verdict) for one in site.targets] == [
        ("iree", "refused"),
        ("ncnn", "misread"),
    ]
    assert Counter(one.name for one in deployconv.inspect(model, target=["iree"] * 2).targets) == {
        "iree": 1
    }


def test_a_layer_that_one_target_needs_is_rewritten_though_another_one_is_slower() -> None:
    model = conv_transpose(integers(4, 1, 4, 4), (4, 5), strides=[2, 2], pads=[1] * 4, group=4)
    (alone,) = deployconv.inspect(model, target="mnn").sites
    assert alone.reason is not None
    assert alone.reason.code == "slower-on-target"
    (both,) = deployconv.inspect(model, target=["mnn", "iree"]).sites
    assert both.status == "rewritten"


def test_targets_that_agree_on_no_form(tmp_path: Path) -> None:
    model = conv_transpose(integers(2, 3, 2, 2), (4, 5), strides=[2, 2])
    one = written(tmp_path, 'prefer = ["dcr"]', "one.toml")
    other = written(tmp_path, 'prefer = ["crd"]', "other.toml")
    with pytest.raises(UsageError, match="one and other: no form and shuffle suits all of them"):
        deployconv.inspect(model, target=[one, other])


def test_a_layer_that_no_form_suits_says_so(tmp_path: Path) -> None:
    model = conv_transpose(integers(2, 3, 2, 2), (4, 5), strides=[2, 2])
    target = written(tmp_path, '[takes]\noperators = ["Conv", "Relu"]')
    (site,) = deployconv.inspect(model, target=target).sites
    assert (site.status, site.reason and site.reason.code) == ("skipped", "target-restrictions")
    with pytest.raises(CheckFailed, match="--strict: left alone"):
        deployconv.rewrite(model, target=target, strict=True)


def test_portable_changes_nothing_and_ort_is_policy_cost() -> None:
    model = unet()
    plain = deployconv.rewrite(model, verify=False, bench=False)
    portable = deployconv.rewrite(model, target="portable", verify=False, bench=False)
    assert plain.model is not None
    assert portable.model == plain.model
    cost = deployconv.rewrite(model, policy="cost", verify=False, bench=False)
    ort = deployconv.rewrite(model, target="ort", verify=False, bench=False)
    assert ort.model == cost.model
    assert [(a.status, a.candidates) for a in ort.sites] == [
        (b.status, b.candidates) for b in cost.sites
    ]


@pytest.mark.parametrize(
    ("keys", "backend"),
    [
        ('package = "numpy"\nbackend = "openvino"', "openvino"),
        ('package = "no_such_package"\nbackend = "openvino"', "ort"),
        ('package = "numpy"\nbackend = "tensorrt-rtx"', "ort"),  # it runs on a GPU only
        ('package = "numpy"', "ort"),
    ],
)
def test_models_run_on_the_target_if_it_is_here(keys: str, backend: str, tmp_path: Path) -> None:
    target = written(tmp_path, keys)
    assert backend_of(RewriteCommand(target=("ort-web", target))) == backend
    assert backend_of(CheckCommand(target=(target,))) == backend
    assert backend_of(RewriteCommand(target=(target,), backend="ort:cuda")) == "ort:cuda"


def test_a_file_that_names_no_backend(tmp_path: Path) -> None:
    target = written(tmp_path, 'package = "numpy"\nbackend = "openvno"')
    with pytest.raises(UsageError, match=r"'backend' is 'openvno'.* did you mean 'openvino'"):
        deployconv.rewrite(unet(), target=target)


def test_what_is_needed_is_rewritten_under_every_policy() -> None:
    odd = conv_transpose(integers(2, 3, 3, 3), (4, 4), strides=[2, 2], output_shape=[8, 8])
    even = conv_transpose(integers(2, 3, 3, 3), (4, 4), strides=[2, 2])

    def status(model: ModelProto) -> str:
        options = {"policy": "cost", "verify": False, "bench": False}
        return deployconv.rewrite(model, target="mnn", backend="ort", **options).sites[0].status

    assert (status(odd), status(even)) == ("rewritten", "kept")


def test_policies_choose_among_the_shuffles_that_a_target_names() -> None:
    # Small kernels after a nearest Resize are worth a rewrite by every policy.
    network = FORMS["nearest_conv3"].model()
    network.opset_import[0].version = 18

    def chosen(**options: str) -> str | None:
        done = deployconv.rewrite(network, policy="cost", verify=False, bench=False, **options)
        return done.sites[0].shuffle

    assert chosen() == "col2im"
    assert chosen(target="ncnn", backend="ort") in ("crd", "transpose", "two-step")


def test_the_input_is_left_as_it_was(tmp_path: Path) -> None:
    network = unet()
    before = network.SerializeToString(deterministic=True)
    deployconv.rewrite(network, target=written(tmp_path, NPU), verify=False, bench=False)
    assert network.SerializeToString(deterministic=True) == before
