"""Stand-ins on integers: exact where they say so, and a constant in a wrong place shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from deployconv.graph.load import load
from deployconv.options import Form, RewriteOptions
from deployconv.proof.certificate import Certified, certify, certify_sites
from deployconv.rewrites import trial
from deployconv.rewrites.base import Rewrite, Trial
from deployconv.rewrites.planning import Planning, plan_model
from deployconv.rewrites.steps.pixelwise import Pixelwise
from deployconv.search.choice import Choice
from tests.build import Array, integers, run
from tests.match.graphs import NEAREST, codes, floats, ints, parsed
from tests.quantized import network
from tests.rewrites.plans import chain_of, chosen, region_of, verdict
from tests.rewrites.products import BEHIND

CHANNELS = 4
CONSTANTS: dict[str, Any] = {
    **{"wa": integers(2, 4, 4, 4, seed=1), "ba": integers(4, seed=2)},
    **{"wc": integers(3, 4, 3, 3, seed=3), "bc": integers(3, seed=4)},
    **{"w1": integers(3, 4, 1, 1, seed=5), "k": floats(1, 1, 2, 2)},
    **{"c": floats(3, -1, 5, 7).reshape(4, 1, 1), "n": floats(-3, -1, -5, -7).reshape(4, 1, 1)},
    **{"g": floats(3, -1, 5, 7), "o": floats(1, 2, 3, 4), "v": floats(1, 2, 3, 4)},
    **{"zeros": floats(0, 0, 0, 0), "zero": np.float32(0), "two": np.float32(2), "six": floats(6)},
    "one": ints(1),
    **{"under": np.float32(-4), "above": floats(3, 1, 5, 7).reshape(4, 1, 1)},
    **{"after": BEHIND, "tall": ints(2, 4, 5, 1, 3, 1), "flat": ints(2, 4, 10, 6)},
}
UP = "a = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wa, ba)"
REPEAT = f"r = Resize<{NEAREST}>(x, , k)"
SPREAD = "s = Reshape(x, tall) p = Pad(s, after) r = Reshape(p, flat)"
"""A zero after every pixel of ``x``."""
FILTER = "y = Conv<pads=[1,1,1,1]>(z, wc, bc)"

PER_CHANNEL = {
    "mul": "{y} = Mul({x}, c)",
    "mul_from_the_left": "{y} = Mul(c, {x})",
    "div": "{y} = Div({x}, c)",
    "prelu": "{y} = PRelu({x}, c)",
    "batch_norm": "{y} = BatchNormalization({x}, g, o, o, v)",
    "max": "{y} = Max({x}, n)",
    "min": "{y} = Min({x}, c)",
    "add": "{y} = Add({x}, c)",
    "sub_from_the_left": "{y} = Sub(c, {x})",
}
"""Exact layers with a constant per channel."""
ALIKE = {
    "relu": "{y} = Relu({x})",
    "abs": "{y} = Abs({x})",
    "leaky_relu": "{y} = LeakyRelu<alpha=0.1>({x})",
    "clip": "{y} = Clip({x}, zero, six)",
    "clip_below": "{y} = Clip({x}, under)",
    "clip_above": "{y} = Clip({x}, , two)",
    "mul_by_a_number": "{y} = Mul({x}, two)",
    "prelu_with_one_slope": "{y} = PRelu({x}, two)",
}
"""Exact layers that treat all channels alike."""
EXACT = {**PER_CHANNEL, **ALIKE}
ROUNDING = {
    "sigmoid": ("{y} = Sigmoid({x})", "Sigmoid"),
    "tanh": ("{y} = Tanh({x})", "Tanh"),
    "exp": ("{y} = Exp({x})", "Exp"),
    "square_root": ("{y} = Sqrt({x})", "Sqrt"),
    "gelu": ("{y} = Gelu({x})", "Gelu"),
    "power": ("{y} = Pow({x}, two)", "Pow"),
    "quotient_of_a_constant": ("{y} = Div(c, {x})", "Div"),
}
"""Layers without an exact stand-in, and their operator."""


def layer(body: str, source: str, target: str) -> str:
    return body.format(x=source, y=target)


def model_of(body: str, dims: str = "2,2,5,3", **constants: Any) -> ModelProto:
    return parsed(body, {**CONSTANTS, **constants}, dims, opset=20)


# --- One layer in each place that it may have: the rewrite of the site that takes it in


def after_in_a_chain(body: str) -> Rewrite:
    """A layer before it, so that nothing is folded into the weights."""
    model = model_of(f"{UP} t = Neg(a) {layer(body, 't', 'u')} y = Neg(u)")
    chain = chain_of(chosen(model, {"main/ConvTranspose_0": Choice("crop", "dcr", "chain")}))
    assert chain is not None
    assert len(chain.steps) == 3
    return chain


def after_in_a_region(body: str) -> Rewrite:
    model = model_of(f"{UP} t = Neg(a) {layer(body, 't', 'u')} y = Conv(u, w1)")
    region = region_of(chosen(model, {"main/ConvTranspose_0": Choice("crop", "crd", "region")}))
    assert region is not None
    assert len(region.steps) == 3
    return region


def between_resize_and_conv(body: str) -> Rewrite:
    return rewrite_of(f"{REPEAT} {layer(body, 'r', 'z')} {FILTER}")


def between_zeros_and_conv(body: str) -> Rewrite:
    return rewrite_of(f"{SPREAD} {layer(body, 'r', 'z')} {FILTER}")


def rewrite_of(body: str, form: Form = "auto") -> Rewrite:
    """The rewrite of the one site, whose image has as many channels as the constants."""
    (site,) = planned(model_of(body, "2,4,5,3"), form).sites
    assert site.rewrite is not None
    return site.rewrite


def planned(model: ModelProto, form: Form = "auto") -> Planning:
    return plan_model(load(model), RewriteOptions(form=form))


PLACES: dict[str, Callable[[str], Rewrite]] = {
    "chain": after_in_a_chain,
    "region": after_in_a_region,
    "before_a_conv": between_resize_and_conv,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("body", EXACT.values(), ids=EXACT)
def test_exact_layers_are_covered_by_the_certificate(
    body: str, place: Callable[[str], Rewrite]
) -> None:
    found = certify(place(body), "main/tested")
    assert (found.verdict, found.failure) == ("exact", None)
    assert found.trial.parity_only == ()


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("case", ROUNDING.values(), ids=ROUNDING)
def test_layers_that_round_are_listed(
    case: tuple[str, str], place: Callable[[str], Rewrite]
) -> None:
    body, operator = case
    found = certify(place(body), "main/tested")
    assert found.verdict == "exact"
    (label,) = found.trial.parity_only
    assert label.startswith(f"{operator}_")


# --- Faults


@dataclass(frozen=True)
class Tampered:
    """A rewrite whose new model is changed before it runs."""

    rewrite: Rewrite
    edit: Callable[[ModelProto, ModelProto], int]

    def trial(self, rng: np.random.Generator) -> Trial:
        made = self.rewrite.trial(rng)
        new = type(made.new)()
        new.CopyFrom(made.new)
        assert self.edit(new, made.old)
        return replace(made, new=new)


def tampered(rewrite: Rewrite, edit: Callable[[ModelProto, ModelProto], int]) -> Certified:
    return certify(Tampered(rewrite, edit), "main/tested")  # type: ignore[arg-type]


def with_channels_turned(new: ModelProto, old: ModelProto) -> int:
    """Every constant per channel that both models read has its channels moved by one."""
    shared = {one.name for one in old.graph.initializer if one.name.startswith("certificate/")}
    changed = 0
    for one in new.graph.initializer:
        values = numpy_helper.to_array(one)
        if one.name in shared and values.size == CHANNELS and values.dtype == np.float32:
            turned = np.roll(values.ravel(), 1).reshape(values.shape)
            one.CopyFrom(numpy_helper.from_array(turned, one.name))
            changed += 1
    return changed


def without(operator: str) -> Callable[[ModelProto, ModelProto], int]:
    """The first such node of the new model does nothing."""

    def edit(new: ModelProto, old: ModelProto) -> int:
        del old
        node = next(node for node in new.graph.node if node.op_type == operator)
        data = next(name for name in node.input if not is_constant(new, name))
        node.CopyFrom(helper.make_node("Identity", [data], [node.output[0]]))
        return 1

    return edit


def is_constant(model: ModelProto, name: str) -> bool:
    return name in {one.name for one in model.graph.initializer}


@pytest.mark.parametrize("body", PER_CHANNEL.values(), ids=PER_CHANNEL)
@pytest.mark.parametrize("place", ["region", "before_a_conv"])
def test_constants_of_other_channels_do_not_pass_the_certificate(place: str, body: str) -> None:
    assert tampered(PLACES[place](body), with_channels_turned).verdict == "failed"


@pytest.mark.parametrize("body", PER_CHANNEL.values(), ids=PER_CHANNEL)
def test_constants_that_a_chain_puts_elsewhere_do_not_pass_the_certificate(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values of another phase order, and values of another channel."""
    chain = after_in_a_chain(body)
    path = "deployconv.rewrites.steps.pixelwise._spread"
    assert verdict(chain) == "exact"
    for wrong in (spread_in_order, spread_turned):
        with monkeypatch.context() as patched:
            patched.setattr(path, wrong)
            assert verdict(chain) == "failed"


def spread_in_order(values: Array, layout: Array) -> Array:
    """As if the phases of a channel stood side by side."""
    return np.repeat(values, layout.size // values.size, axis=int(np.argmax(values.shape)))


def spread_turned(values: Array, layout: Array) -> Array:
    """As if each channel were the next one; the phases are right."""
    axis = int(np.argmax(values.shape))
    spread = np.empty(layout.size, values.dtype)
    spread[layout.reshape(len(layout), -1)] = np.roll(values, 1).reshape(-1, 1)
    return spread.reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("name", EXACT)
def test_a_layer_that_is_left_out_does_not_pass_the_certificate(
    name: str, place: Callable[[str], Rewrite]
) -> None:
    body = EXACT[name]
    operator = body.split("= ")[1].split("(")[0].split("<")[0]
    assert tampered(place(body), without(operator)).verdict == "failed"


def test_two_channels_never_have_the_same_scale() -> None:
    """Or their exchange would pass."""
    for seed in range(50):
        draws = trial.Draws(8, 20, np.random.default_rng(seed))
        for count in (2, 3, 4):
            assert len(set(draws.powers((count, 1, 1)).ravel().tolist())) == count


def test_a_scale_of_one_channel_always_enlarges() -> None:
    """A factor of 1 could be left out, and so could one of -1 before Abs."""
    for seed in range(50):
        draws = trial.Draws(8, 20, np.random.default_rng(seed))
        alike = replace(draws, alike=True)
        assert abs(draws.powers(())) == 2
        assert draws.powers((1,), (1, 4)) == 4
        assert np.abs(alike.powers((4,))).tolist() == [2, 2, 2, 2]
        assert sorted(np.abs(draws.powers((2, 1, 1))).ravel()) == [1, 2]


def test_scales_of_many_channels_are_all_drawn() -> None:
    draws = trial.Draws(8, 20, np.random.default_rng(0))
    values, counts = np.unique(draws.powers((16,)), return_counts=True)
    assert values.tolist() == [-2, -1, 1, 2]
    assert counts.tolist() == [4, 4, 4, 4]


# --- What only the parity check covers


def labels(body: str, choice: Choice | None = None, dims: str = "2,2,5,3") -> list[str]:
    """The operators of the nodes that the report of the first site lists."""
    model = model_of(body, dims)
    planning = planned(model)
    if choice is not None:
        planning = chosen(model, {planning.sites[0].id: choice})
    done = certify_sites(planning, seed=0)
    first = done.reports[0]
    assert first.certificate == "exact"
    assert first.certificate_failure is None
    scope = done.sites[0].found.scope
    named = {scope.label(node): node.op for node in scope.nodes}
    return [named[label] for label in first.parity_only]


REGION = Choice("pad", "crd", "region")
LISTED = {
    "nothing": (f"{UP} y = Conv(a, w1)", []),
    "softmax": (f"{UP} t = Softmax<axis=1>(a) y = Conv(t, w1)", ["Softmax"]),
    "gate": (f"{UP} s = Sigmoid(a) t = Mul(a, s) y = Conv(t, w1)", ["Sigmoid", "Mul"]),
    "sum_of_images": (f"{UP} s = Abs(a) t = Add(a, s) y = Conv(t, w1)", []),
    "difference_of_images": (f"{UP} s = Abs(a) t = Sub(a, s) y = Conv(t, w1)", []),
    "largest_of_images": (f"{UP} s = Neg(a) t = Max(a, s) y = Conv(t, w1)", []),
    "exact_reductions": (
        f"{UP} s = Abs(a) m = ReduceMax(s, one) t = Sub(s, m) q = ReduceSum(t, one) y = Add(t, q)",
        [],
    ),
    "mean": (f"{UP} s = Abs(a) m = ReduceMean(s, one) y = Sub(s, m)", []),
    "norm": (f"{UP} s = Abs(a) m = ReduceL2(s, one) y = Div(s, m)", ["ReduceL2", "Div"]),
    "instance_norm": (
        f"{UP} s = InstanceNormalization(a, g, o) y = Conv(s, w1)",
        ["InstanceNormalization"],
    ),
}


@pytest.mark.parametrize("case", LISTED.values(), ids=LISTED)
def test_what_a_region_lists(case: tuple[str, list[str]]) -> None:
    body, expected = case
    assert labels(body, REGION) == expected


CANCELLING = {
    "swish_as_a_quotient": "t = Neg(a) e = Exp(t) s = Add(e, two) y = Div(a, s)",
    "gate_of_the_opposite": "t = Neg(a) s = Sigmoid(t) y = Mul(a, s)",
    "product_with_what_is_left": "s = Sub(two, a) y = Mul(a, s)",
    "doubled": "t = Mul(a, two) s = Sub(two, t) y = Mul(s, a)",
}
"""Layers of which the plain sum of what they multiply or divide does not depend on their input."""


@pytest.mark.parametrize("body", CANCELLING.values(), ids=CANCELLING)
def test_a_product_of_opposites_does_not_hide_the_layers_before_it(body: str) -> None:
    planning = chosen(model_of(f"{UP} {body}"), {"main/ConvTranspose_0": REGION})
    region = region_of(planning)
    assert region is not None
    for seed in range(10):
        found = certify(region, "main/tested", seed)
        assert found.verdict == "exact"
        assert computed(found.trial, "y").std() > 0
    assert tampered(region, without("Neg" if "Neg" in body else "Sub")).verdict == "failed"


def test_exact_layers_are_not_listed() -> None:
    body = (
        f"{UP} f = BatchNormalization(a, g, o, v, v) r = Relu(f) s = Add(r, c) t = Mul(s, c)"
        " u = PRelu(t, c) h = BatchNormalization(u, g, o, v, v) y = Sigmoid(h)"
    )
    assert labels(body, Choice("crop", "auto", "chain")) == ["Sigmoid"]
    assert labels(body.replace("Sigmoid", "Relu"), Choice("crop", "auto", "chain")) == []


def test_integer_layers_list_their_quantization() -> None:
    """A QuantizeLinear rounds."""
    planning = certify_sites(planned(network()), seed=0)
    (site,) = planning.sites
    assert site.report.certificate == "exact"
    scope = site.found.scope
    named = {scope.label(node): node.op for node in scope.nodes}
    assert [named[label] for label in site.report.parity_only] == ["QuantizeLinear"]


def test_layers_that_enlarge_too_much_are_left_out_and_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With so few exact integers no sum has room for the factors of a scale."""
    body = f"{UP} r = Relu(a) y = Mul(r, c)"
    choice = Choice("crop", "auto", "chain")
    assert labels(body, choice) == []
    monkeypatch.setattr(trial, "EXACT", 1 << 5)
    assert labels(body, choice) == ["Mul"]
    assert labels(f"{UP} y = BatchNormalization(a, g, o, v, v)") == ["BatchNormalization"]
    assert labels(f"{UP} m = ReduceMean(a, one) y = Sub(a, m)") == ["ReduceMean", "Sub"]
    assert labels(f"{UP} r = Relu(a) y = Clip(r, zero, six)", choice) == []


def test_integers_leave_room_for_what_other_layers_add_up() -> None:
    """Scales are left out if they enlarge too much; sums and reductions cannot be."""
    rng = np.random.default_rng(0)
    fits = trial.Draws.fitting(rng, 20, [64], growth=8, multiplied=2)
    scaled = trial.Draws.fitting(rng, 20, [64], growth=1 << 20, multiplied=2, plain_growth=1 << 10)
    beyond = trial.Draws.fitting(rng, 20, [64], growth=1 << 20, multiplied=2, plain_growth=1 << 18)
    assert (fits.bound, fits.plain, fits.exact) == (64, False, True)
    assert (scaled.bound, scaled.plain, scaled.exact) == (11, True, True)
    assert (beyond.bound, beyond.plain, beyond.exact) == (1, True, False)


def test_sums_that_may_be_rounded_certify_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a trial still compares both models, but every node is listed."""
    monkeypatch.setattr(trial, "EXACT", 1)
    planning = planned(model_of(f"{UP} y = Relu(a)", "2,2,5,3"))
    (site,) = certify_sites(planning, seed=0).sites
    assert site.report.certificate == "exact"
    assert site.report.parity_only == site.report.nodes


# --- Layers between inserted zeros and the Conv


KEEPING = {
    "mul": "{y} = Mul({x}, c)",
    "prelu": "{y} = PRelu({x}, c)",
    "leaky_relu": "{y} = LeakyRelu({x})",
    "batch_norm": "{y} = BatchNormalization({x}, g, zeros, zeros, v)",
    "clip": "{y} = Clip({x}, under, six)",
    "max": "{y} = Max({x}, n)",
    "min": "{y} = Min({x}, above)",
    "there_and_back": "q = Add({x}, c) {y} = Sub(q, c)",
    "abs": "{y} = Abs({x})",
}


@pytest.mark.parametrize("body", KEEPING.values(), ids=KEEPING)
def test_inserted_zeros_stay_zeros(body: str) -> None:
    rewrite = between_zeros_and_conv(body)
    found = certify(rewrite, "main/tested")
    assert (found.verdict, found.trial.parity_only) == ("exact", ())
    image = computed(found.trial, "z")
    assert image.shape == (2, 4, 10, 6)
    inserted = np.ones((10, 6), bool)
    inserted[::2, ::2] = False
    assert not image[:, :, inserted].any()
    assert image[:, :, ~inserted].std() > 0


def computed(made: Trial, name: str) -> Array:
    """The tensor ``name`` of the old model."""
    shown = type(made.old)()
    shown.CopyFrom(made.old)
    shown.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    return run(shown, made.feeds)[name]


@pytest.mark.parametrize("name", ["mul", "prelu", "batch_norm"])
def test_scales_of_other_channels_show_between_zeros(name: str) -> None:
    rewrite = between_zeros_and_conv(KEEPING[name])
    assert tampered(rewrite, with_channels_turned).verdict == "failed"


def test_between_repeated_pixels_constants_need_not_be_zero() -> None:
    made = certify(between_resize_and_conv("{y} = Add({x}, c)"), "main/tested").trial
    (added,) = (
        numpy_helper.to_array(one)
        for one in made.old.graph.initializer
        if one.name == "certificate/z/1"
    )
    assert added.all()


@pytest.mark.parametrize(
    "body", ["{y} = Add({x}, c)", "{y} = Sigmoid({x})", "{y} = Clip({x}, two)"]
)
def test_what_makes_other_values_of_zeros_is_refused(body: str) -> None:
    model = model_of(f"{SPREAD} {layer(body, 'r', 'z')} {FILTER}", "2,4,5,3")
    assert codes(planned(model).reports) == ["shifted-zeros"]


def test_a_prelude_and_a_chain_are_certified_together() -> None:
    body = (
        f"{REPEAT} s = Mul(r, c) z = Tanh(s) a = Conv<pads=[1,1,1,1]>(z, w4)"
        " t = Relu(a) u = PRelu(t, c) y = Sigmoid(u)"
    )
    model = model_of(body, "2,4,5,3", w4=integers(4, 4, 3, 3, seed=7))
    chain = chain_of(chosen(model, {"main/Conv_3": Choice("crop", "dcr", "chain")}))
    assert chain is not None
    found = certify(chain, "main/tested")
    assert found.verdict == "exact"
    assert [label.partition("_")[0] for label in found.trial.parity_only] == ["Tanh", "Sigmoid"]
    assert tampered(chain, with_channels_turned).verdict == "failed"


def test_a_step_with_other_constants_does_not_pass_the_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new model runs another step than the old one."""
    region = after_in_a_region(PER_CHANNEL["prelu"])
    right = Pixelwise.emit_on_pixels

    def wrong(step: Pixelwise, emitter: Any, made: Any, image: Any) -> Any:
        if step.node.op != "PRelu":
            return right(step, emitter, made, image)
        turned = np.roll(step.constants[1].read(), 1)
        return emitter.add("PRelu", [made[step.reads[0]], emitter.constant("slopes", turned)])

    monkeypatch.setattr(Pixelwise, "emit_on_pixels", wrong)
    assert verdict(region) == "failed"
