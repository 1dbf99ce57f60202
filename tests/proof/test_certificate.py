"""The certificate holds for what is right, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
import pytest
from deployconv.pipeline import certify_sites, plan_model
from deployconv.rewrites.lowering import (
    Plan,
    SeparablePlan,
    new_nodes,
    plan_separable,
    plan_site,
    separable,
)
from deployconv.rewrites.lowering.shuffle import SHUFFLES, ShuffleName
from onnx import ModelProto

import deployconv
from deployconv.errors import BackendUnavailable, CheckFailed
from deployconv.graph.load import load
from deployconv.match import Parameter, UpsampleSite
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.proof import certificate, pair
from deployconv.runtimes.base import Backend
from tests.build import Array, Size, conv_transpose, integers

Fault = Callable[[UpsampleSite, Plan], tuple[UpsampleSite, Plan]]


def upsampler(
    strides: Sequence[int] = (2, 2),
    sizes: Sequence[Size] = (5, 6, 4),
    group: int = 2,
    dtype: Any = np.float32,
    opset: int = 18,
) -> ModelProto:
    """4 to 6 channels, k4, unequal pads."""
    rank = len(strides)
    return conv_transpose(
        integers(4, 6 // group, *[4] * rank, dtype=dtype),
        sizes[:rank],
        integers(6, seed=1, dtype=dtype),
        opset=opset,
        strides=strides,
        group=group,
        pads=[1] * rank + [2] * rank,
    )


def verdicts(
    model: ModelProto, shuffle: Shuffle = "auto", seed: int = 0, form: Form = "auto"
) -> list[str | None]:
    planning = plan_model(load(model), RewriteOptions(form=form, shuffle=shuffle))
    return [report.certificate for report in certify_sites(planning, seed).reports]


# --- exact for what is right


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strides", [(2,), (2, 2), (3, 2), (2, 1, 3)])
@pytest.mark.parametrize("group", [1, 2])
def test_a_right_lowering_is_exact(strides: tuple[int, ...], group: int, seed: int) -> None:
    assert verdicts(upsampler(strides, group=group), seed=seed) == ["exact"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_element_types_are_certified_as_float32(dtype: Any) -> None:
    assert verdicts(upsampler(dtype=dtype, opset=22)) == ["exact"]


@pytest.mark.parametrize("shuffle", ["transpose", "col2im", "two-step"])
def test_dynamic_sizes_are_certified_as_they_are_written(
    shuffle: Shuffle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes that compute the sizes are part of what is run."""
    seen: list[str] = []

    def watched(site: UpsampleSite, plan: Plan, fresh: Callable[[str], str]) -> list[gs.Node]:
        nodes = new_nodes(site, plan, fresh)
        seen.extend(node.op for node in nodes)
        return nodes

    monkeypatch.setattr(pair, "new_nodes", watched)
    assert verdicts(upsampler((2, 3), (None, None)), shuffle) == ["exact"]
    assert "Shape" in seen


def test_a_site_too_large_to_run_is_run_smaller() -> None:
    """Some 10^11 multiplications: minutes at its own size."""
    model = conv_transpose(
        integers(256, 128, 4, 4), (512, 512), integers(128), strides=[2, 2], pads=[1] * 4
    )
    assert verdicts(model) == ["exact"]


def test_a_layer_that_is_right_for_one_size_is_run_at_that_size() -> None:
    model = conv_transpose(integers(2, 3, 3, 3), (7, 4), strides=[2, 2], output_shape=[13, 8])
    assert verdicts(model) == ["exact"]


# --- failed for what is wrong


def reading(change: Callable[[Array], Array]) -> Callable[[Parameter], Parameter]:
    """The parameter with other values, and the shape that these have."""

    def changed(parameter: Parameter) -> Parameter:
        values = change(parameter.read())
        return replace(parameter, shape=values.shape, read=lambda: values)

    return changed


def with_weight(change: Callable[[Array], Array]) -> Fault:
    return lambda site, plan: (replace(site, weight=reading(change)(site.weight)), plan)


def with_bias(change: Callable[[Array], Array]) -> Fault:
    def fault(site: UpsampleSite, plan: Plan) -> tuple[UpsampleSite, Plan]:
        assert site.bias is not None
        return replace(site, bias=reading(change)(site.bias)), plan

    return fault


def with_first_axis(**change: int) -> Fault:
    """The plan for a layer whose first axis has other numbers; the size stays."""

    def fault(site: UpsampleSite, plan: Plan) -> tuple[UpsampleSite, Plan]:
        first, *others = site.axes
        moved = {name: getattr(first, name) + by for name, by in change.items()}
        other = plan_site(replace(site, axes=(replace(first, **moved), *others)))
        assert isinstance(other, Plan)
        return site, other

    return fault


def with_crop(begin: int, end: int) -> Fault:
    def fault(site: UpsampleSite, plan: Plan) -> tuple[UpsampleSite, Plan]:
        (first, last), *others = plan.layout.crop
        crop = ((first + begin, last + end), *others)
        return site, replace(plan, layout=replace(plan.layout, crop=crop))

    return fault


def off_by_one(values: Array) -> Array:
    changed = values.copy()
    changed.flat[-1] += 1
    return changed


FAULTS: dict[str, Fault] = {
    "bias dropped": lambda site, plan: (replace(site, bias=None), plan),
    "biases in the wrong order": with_bias(lambda bias: bias[::-1]),
    "one bias off by one": with_bias(off_by_one),
    "one weight off by one": with_weight(off_by_one),
    "kernel not flipped": with_weight(lambda weight: weight[..., ::-1]),
    "kernel axes exchanged": with_weight(lambda weight: weight.swapaxes(-1, -2)),
    "input channels exchanged": with_weight(lambda weight: weight[::-1]),
    "output channels exchanged": with_weight(lambda weight: weight[:, ::-1]),
    "cropped one too early": with_crop(-1, 1),
    "cropped one too late": with_crop(1, -1),
    "cropped one too few": with_crop(0, -1),
    "offsets one too high": with_first_axis(origin=1),
    "offsets one too low": with_first_axis(origin=-1),
    "taps one too far apart": with_first_axis(step=-1),
    "axes exchanged": lambda site, plan: (site, replace(plan, axes=plan.axes[::-1])),
}


def introduce(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Let the lowering under trial make this mistake, and nothing else differ."""

    def faulty(site: UpsampleSite, plan: Plan, fresh: Callable[[str], str]) -> list[gs.Node]:
        return new_nodes(*fault(site, plan), fresh)

    monkeypatch.setattr(pair, "new_nodes", faulty)


def uneven(group: int) -> ModelProto:
    """No two axes, groups or channels are alike, so that whatever is exchanged shows."""
    weight, bias = integers(4, 3, 4, 4), integers(3 * group, seed=1)
    pads = [1, 0, 2, 1]
    return conv_transpose(weight, (5, 6), bias, strides=[2, 2], group=group, pads=pads)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_no_fault_passes(fault: Fault, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    introduce(monkeypatch, fault)
    assert verdicts(uneven(group=2), seed=seed) == ["failed"]


@pytest.mark.parametrize(
    "shuffle", ["dcr", "crd", "transpose", "two-step", "col2im", "channels-last"]
)
def test_channels_in_the_wrong_order_do_not_pass(
    shuffle: ShuffleName, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled = SHUFFLES[shuffle]
    wrong = replace(spelled, phases_first=not spelled.phases_first)
    monkeypatch.setitem(SHUFFLES, shuffle, wrong)
    assert verdicts(upsampler(group=1), shuffle) == ["failed"]


@pytest.mark.parametrize(
    "fault", ["bias dropped", "biases in the wrong order", "kernel not flipped"]
)
def test_no_seed_lets_a_fault_of_few_values_pass(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two channels and two taps: equal values, or a bias of 0, would hide what is exchanged."""
    model = conv_transpose(integers(1, 2, 2), (3,), integers(2, seed=1), strides=[2])
    introduce(monkeypatch, FAULTS[fault])
    assert [verdicts(model, seed=seed) for seed in range(100)] == [["failed"]] * 100


def test_a_failed_certificate_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce(monkeypatch, FAULTS["bias dropped"])
    output = tmp_path / "out.onnx"
    with pytest.raises(CheckFailed, match=r"certificate failed: main/up") as raised:
        deployconv.rewrite(upsampler(), output=output, bench=False)
    assert raised.value.status == 1
    assert raised.value.result is not None
    assert [site.certificate for site in raised.value.result.sites] == ["failed"]
    assert list(tmp_path.iterdir()) == []


# --- one axis after the other


def one_after_the_other(channels: int = 3) -> ModelProto:
    """No two axes are alike; any kernels of ones are products, and the trial draws others."""
    ones, bias = np.ones((channels, 1, 4, 4), np.float32), integers(channels, seed=1)
    pads = [1, 1, 2, 0]
    return conv_transpose(ones, (5, 6), bias, strides=[2, 2], group=channels, pads=pads)


def with_steps(change: Callable[[tuple[Plan, ...]], Sequence[Plan]]) -> Any:
    def fault(site: UpsampleSite, plan: SeparablePlan) -> tuple[UpsampleSite, SeparablePlan]:
        return site, replace(plan, steps=tuple(change(plan.steps)))

    return fault


def crop_moved(step: Plan, by: int) -> Plan:
    """Along the axis that the step enlarges."""
    crop = tuple(
        (begin + by, end - by) if stride > 1 else (begin, end)
        for (begin, end), stride in zip(step.layout.crop, step.layout.stride, strict=True)
    )
    return replace(step, layout=replace(step.layout, crop=crop))


def with_origin(axis: int, by: int) -> Any:
    """The plan for a layer whose taps along one axis read other places."""

    def fault(site: UpsampleSite, plan: SeparablePlan) -> tuple[UpsampleSite, SeparablePlan]:
        axes = list(site.axes)
        axes[axis] = replace(axes[axis], origin=axes[axis].origin + by)
        other = plan_separable(replace(site, axes=tuple(axes)))
        assert other is not None
        return site, other

    return fault


SEPARABLE_FAULTS: dict[str, Any] = {
    **{
        name: FAULTS[name]
        for name in (
            *("bias dropped", "biases in the wrong order", "one bias off by one"),
            *("kernel not flipped", "kernel axes exchanged", "input channels exchanged"),
        )
    },
    "kernel not flipped along the first axis": with_weight(lambda weight: weight[:, :, ::-1]),
    "columns cropped one too early": with_steps(lambda steps: (crop_moved(steps[0], -1), steps[1])),
    "rows cropped one too early": with_steps(lambda steps: (steps[0], crop_moved(steps[1], -1))),
    "rows cropped one too late": with_steps(lambda steps: (steps[0], crop_moved(steps[1], 1))),
    "columns read one too high": with_origin(1, 1),
    "rows read one too low": with_origin(0, -1),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shuffle", ["transpose", "two-step"])
def test_axis_by_axis_is_exact(shuffle: Shuffle, seed: int) -> None:
    assert verdicts(one_after_the_other(), shuffle, seed, "separable") == ["exact"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", SEPARABLE_FAULTS.values(), ids=list(SEPARABLE_FAULTS))
def test_no_fault_along_one_axis_passes(
    fault: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce(monkeypatch, fault)
    assert verdicts(one_after_the_other(), seed=seed, form="separable") == ["failed"]


FACTORS: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "exchanged": lambda rows, columns: (columns, rows),
    "of another channel": lambda rows, columns: (rows, columns[::-1]),
    "one off by a half": lambda rows, columns: (rows, columns + 0.5 * np.eye(*columns.shape)),
    "one without its sign": lambda rows, columns: (np.abs(rows), np.abs(columns)),
    "one flipped": lambda rows, columns: (rows[:, ::-1], columns),
    "one twice as large": lambda rows, columns: (2 * rows, columns),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("change", FACTORS.values(), ids=list(FACTORS))
def test_no_wrong_factor_passes(
    change: Callable[[Array, Array], tuple[Array, Array]],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = separable.factors

    def wrong(kernel: Array) -> tuple[Array, ...] | None:
        found = right(kernel)
        assert found is not None
        rows, columns = found
        return tuple(factor.astype(kernel.dtype) for factor in change(rows, columns))

    monkeypatch.setattr(separable, "factors", wrong)
    assert verdicts(one_after_the_other(), seed=seed, form="separable") == ["failed"]


# --- without onnxruntime


@pytest.fixture
def no_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Backend:
        raise BackendUnavailable(f"backend '{name}' is not installed")

    monkeypatch.setattr(certificate, "get_backend", missing)


@pytest.mark.usefixtures("no_onnxruntime")
@pytest.mark.parametrize("strides", [(2,), (2, 2), (3, 2)])
@pytest.mark.parametrize("group", [1, 2])
def test_the_reference_evaluator_certifies_as_well(strides: tuple[int, ...], group: int) -> None:
    assert verdicts(upsampler(strides, group=group)) == ["exact"]


@pytest.mark.usefixtures("no_onnxruntime")
def test_a_depthwise_layer_keeps_its_biases_apart() -> None:
    model = conv_transpose(
        integers(3, 1, 4, 4), (4, 5), integers(3, seed=1), strides=[2, 2], group=3
    )
    assert verdicts(model) == ["exact"]


@pytest.mark.usefixtures("no_onnxruntime")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_no_fault_passes_the_reference_evaluator(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce(monkeypatch, fault)
    assert verdicts(uneven(group=1)) == ["failed"]


def test_what_nothing_runs_is_not_certified() -> None:
    """output_padding of a stride or more: ONNX allows it, onnxruntime and the reference do not."""
    model = conv_transpose(integers(2, 3, 3), (5,), strides=[2], dilations=[3], output_padding=[2])
    with pytest.raises(BackendUnavailable, match="no certificate") as raised:
        verdicts(model)
    assert raised.value.status == 3
    assert "\n" not in str(raised.value)
