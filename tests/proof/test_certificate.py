"""Right rewrites are certified exact, wrong ones fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto

import deployconv
from deployconv.errors import BackendUnavailable, CheckFailed, UsageError
from deployconv.graph.load import load
from deployconv.match import Parameter
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.proof import certificate
from deployconv.proof.certificate import Certified, certify, certify_sites
from deployconv.results import ShuffleName
from deployconv.rewrites import separable
from deployconv.rewrites.base import Rewrite, Trial
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.planning import plan_model
from deployconv.rewrites.separable import SeparableConv, plan_separable
from deployconv.rewrites.shuffles import SHUFFLES
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Backend
from tests.build import (
    FLOAT,
    Array,
    Size,
    conv_transpose,
    graph,
    integers,
    node,
    run,
    tensor,
    value,
)
from tests.build import model as proto_of

Fault = Callable[[Any], Any]
"""Returns a rewrite with a mistake."""


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


# --- right rewrites are exact


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
    emit = PolyphaseConv.emit

    def watched(rewrite: PolyphaseConv, emitter: Emitter) -> None:
        emit(rewrite, emitter)
        seen.extend(node.op for node in emitter.nodes)

    monkeypatch.setattr(PolyphaseConv, "emit", watched)
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


# --- wrong rewrites fail


def reading(change: Callable[[Array], Array]) -> Callable[[Parameter], Parameter]:
    """Replace the values of a parameter, and its shape by theirs."""

    def changed(parameter: Parameter) -> Parameter:
        values = change(parameter.read())
        return replace(parameter, shape=values.shape, read=lambda: values)

    return changed


def with_weight(change: Callable[[Array], Array]) -> Fault:
    def fault(rewrite: Any) -> Any:
        site = rewrite.site
        return replace(rewrite, site=replace(site, weight=reading(change)(site.weight)))

    return fault


def with_bias(change: Callable[[Array], Array]) -> Fault:
    def fault(rewrite: Any) -> Any:
        site = rewrite.site
        assert site.bias is not None
        return replace(rewrite, site=replace(site, bias=reading(change)(site.bias)))

    return fault


def with_first_axis(**change: int) -> Fault:
    """Return the rewrite of a layer with another first axis, as the rewrite of this one."""

    def fault(rewrite: PolyphaseConv) -> PolyphaseConv:
        first, *others = rewrite.site.axes
        moved = {name: getattr(first, name) + by for name, by in change.items()}
        other = plan_conv(replace(rewrite.site, axes=(replace(first, **moved), *others)))
        assert isinstance(other, PolyphaseConv)
        return replace(other, site=rewrite.site)

    return fault


def with_crop(begin: int, end: int) -> Fault:
    def fault(rewrite: PolyphaseConv) -> PolyphaseConv:
        (first, last), *others = rewrite.layout.crop
        crop = ((first + begin, last + end), *others)
        return replace(rewrite, layout=replace(rewrite.layout, crop=crop))

    return fault


def off_by_one(values: Array) -> Array:
    changed = values.copy()
    changed.flat[-1] += 1
    return changed


FAULTS: dict[str, Fault] = {
    "bias dropped": lambda rewrite: replace(rewrite, site=replace(rewrite.site, bias=None)),
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
    "axes exchanged": lambda rewrite: replace(rewrite, axes=rewrite.axes[::-1]),
}


def introduce(
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    kind: type[PolyphaseConv | SeparableConv] = PolyphaseConv,
) -> None:
    """Let a rewrite of this kind write its nodes with this mistake, and nothing else differ."""
    emit = kind.emit

    def faulty(rewrite: Any, emitter: Emitter) -> None:
        emit(fault(rewrite), emitter)

    monkeypatch.setattr(kind, "emit", faulty)


def uneven(group: int) -> ModelProto:
    """A layer in which no two axes, groups or channels are alike: no exchange can hide."""
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
    row = SHUFFLES[shuffle]
    wrong = replace(row, channel_order="CRD" if row.channel_order == "DCR" else "DCR")
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
    assert [(step.step, step.reason) for step in raised.value.result.not_run] == [
        ("parity", "a certificate failed"),
        ("latency", "--no-bench"),
    ]
    assert list(tmp_path.iterdir()) == []


# --- one Conv per axis


def one_after_the_other(channels: int = 3) -> ModelProto:
    """A layer with a Conv per axis, no two alike. The trial draws other kernels than these ones."""
    ones, bias = np.ones((channels, 1, 4, 4), np.float32), integers(channels, seed=1)
    pads = [1, 1, 2, 0]
    return conv_transpose(ones, (5, 6), bias, strides=[2, 2], group=channels, pads=pads)


def with_steps(change: Callable[[tuple[PolyphaseConv, ...]], Sequence[PolyphaseConv]]) -> Fault:
    def fault(rewrite: SeparableConv) -> SeparableConv:
        return replace(rewrite, steps=tuple(change(rewrite.steps)))

    return fault


def crop_moved(step: PolyphaseConv, by: int) -> PolyphaseConv:
    """Move the crop along the axis that the step enlarges."""
    crop = tuple(
        (begin + by, end - by) if stride > 1 else (begin, end)
        for (begin, end), stride in zip(step.layout.crop, step.layout.stride, strict=True)
    )
    return replace(step, layout=replace(step.layout, crop=crop))


def with_origin(axis: int, by: int) -> Fault:
    """Return the rewrite of a layer whose taps along one axis read other positions."""

    def fault(rewrite: SeparableConv) -> SeparableConv:
        axes = list(rewrite.site.axes)
        axes[axis] = replace(axes[axis], origin=axes[axis].origin + by)
        other = plan_separable(replace(rewrite.site, axes=tuple(axes)))
        assert other is not None
        return replace(other, site=rewrite.site)

    return fault


SEPARABLE_FAULTS: dict[str, Fault] = {
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
    introduce(monkeypatch, fault, SeparableConv)
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


def test_a_layer_that_no_runtime_runs_is_not_certified() -> None:
    """output_padding of a stride or more: ONNX allows it, onnxruntime and the reference do not."""
    model = conv_transpose(integers(2, 3, 3), (5,), strides=[2], dilations=[3], output_padding=[2])
    with pytest.raises(BackendUnavailable, match="no certificate") as raised:
        verdicts(model)
    assert raised.value.status == 3
    assert "\n" not in str(raised.value)


# --- what a failed certificate says and keeps


def two_layers(first: str = "first", second: str = "second", source: str = "x") -> ModelProto:
    """Two upsampling layers, one after the other."""
    layers = [
        node("ConvTranspose", [source, "w"], ["a"], name=first, strides=[2, 2]),
        node("MaxPool", ["a"], ["b"], name="pool", kernel_shape=[3, 3]),
        node("ConvTranspose", ["b", "w"], ["y"], name=second, strides=[2, 2]),
    ]
    inputs, outputs = [value(source, FLOAT, [1, 2, 5, 4])], [value("y", FLOAT, [None] * 4)]
    return proto_of(graph(layers, inputs, outputs, [tensor("w", integers(2, 2, 2, 2))]))


def broken_at(site: str) -> Fault:
    """In the layer ``site`` one weight is off by one."""

    def fault(rewrite: PolyphaseConv) -> PolyphaseConv:
        changed: PolyphaseConv = FAULTS["one weight off by one"](rewrite)
        return changed if rewrite.site.id == site else rewrite

    return fault


def certified(model: ModelProto, seed: int = 0) -> Certified:
    """The certificate of the first site of ``model``."""
    (planned, *_) = plan_model(load(model), RewriteOptions()).sites
    assert planned.rewrite is not None
    return certify(planned.rewrite, planned.id, seed)


def described(expected: Array, actual: Array) -> str:
    """The expected message for two arrays of one shape, found element by element."""
    differ = [index for index in np.ndindex(expected.shape) if expected[index] != actual[index]]
    first = differ[0]
    return (
        f"{len(differ)} of {expected.size} elements differ, first at {list(first)}:"
        f" {expected[first]:g} expected, {actual[first]:g} computed"
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["one weight off by one", "bias dropped", "cropped one too early"])
def test_a_failure_names_index_expected_and_actual(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce(monkeypatch, FAULTS[name])
    found = certified(uneven(group=2), seed)
    expected, actual = (
        run(proto, found.trial.feeds)[found.trial.output]
        for proto in (found.trial.old, found.trial.new)
    )
    assert found.verdict == "failed"
    assert found.failure == described(expected, actual)
    planning = plan_model(load(uneven(group=2)), RewriteOptions())
    (report,) = certify_sites(planning, seed).reports
    assert report.certificate_failure == found.failure
    with pytest.raises(CheckFailed) as raised:
        deployconv.rewrite(uneven(group=2), seed=seed, bench=False)
    message = f"certificate failed: main/up ({found.failure}): nothing was written"
    assert str(raised.value) == message
    assert raised.value.result is not None
    assert [site.certificate_failure for site in raised.value.result.sites] == [found.failure]


def test_a_failure_names_shapes_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    introduce(monkeypatch, FAULTS["cropped one too few"])
    found = certified(uneven(group=1))
    assert found.failure == "shape [2, 3, 9, 13] expected, [2, 3, 0, 13] computed"


def test_what_agrees_has_no_failure() -> None:
    found = certified(uneven(group=2))
    assert (found.verdict, found.failure) == ("exact", None)
    (report,) = certify_sites(plan_model(load(uneven(group=2)), RewriteOptions()), 0).reports
    assert report.certificate_failure is None


@dataclass(frozen=True)
class Tried:
    """A stand-in for a rewrite: its new model adds ``by`` to the only value."""

    at: float
    by: float

    def trial(self, rng: np.random.Generator) -> Trial:
        del rng
        ends = [value("x", FLOAT, [1])], [value("y", FLOAT, [1])]
        add = [node("Add", ["x", "by"], ["y"])]
        constants = [tensor("by", np.float32(by)) for by in (0.0, self.by)]
        old, new = (proto_of(graph(add, *ends, [constant])) for constant in constants)
        return Trial(old, new, {"x": np.array([self.at], np.float32)}, "y")


@pytest.mark.parametrize(
    ("at", "by", "failure"),
    [
        (8388606, 1, "8388606 expected, 8388607 computed"),
        (-4194303.25, 0.25, "-4194303.25 expected, -4194303 computed"),
        (3, float("nan"), "3 expected, nan computed"),
    ],
)
def test_a_message_distinguishes_large_numbers(at: float, by: float, failure: str) -> None:
    """The largest sums of a trial have seven digits, and halves and quarters beyond these."""
    found = certify(cast(Rewrite, Tried(at, by)), "site")
    assert found.failure == f"1 of 1 elements differ, first at [0]: {failure}"


def test_both_models_and_their_inputs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce(monkeypatch, broken_at("main/second"))
    folder = tmp_path / "not there yet" / "dump"
    with pytest.raises(CheckFailed) as raised:
        deployconv.rewrite(two_layers(), dump=folder, bench=False)
    # Only what failed is kept.
    assert [entry.name for entry in folder.iterdir()] == ["main_second"]
    kept = folder / "main_second"
    assert sorted(file.name for file in kept.iterdir()) == ["inputs.npz", "new.onnx", "old.onnx"]
    with np.load(kept / "inputs.npz") as archive:
        feeds = dict(archive)
    made = []
    for name in ("old.onnx", "new.onnx"):
        session = get_backend("ort").prepare(kept / name, optimise=False)
        (output,) = session.run(feeds).values()
        made.append(output)
    assert raised.value.result is not None
    first, second = raised.value.result.sites
    assert (first.certificate, first.certificate_failure) == ("exact", None)
    assert (second.certificate, second.certificate_failure) == ("failed", described(*made))


def test_nothing_is_kept_if_all_agree(tmp_path: Path) -> None:
    done = deployconv.rewrite(two_layers(), dump=tmp_path / "dump", bench=False)
    assert [site.certificate for site in done.sites] == ["exact", "exact"]
    assert list(tmp_path.iterdir()) == []


def test_ids_that_are_alike_as_names_of_folders_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce(monkeypatch, FAULTS["one weight off by one"])
    planning = plan_model(load(two_layers("a/b", "a:b")), RewriteOptions())
    reports = certify_sites(planning, 0, tmp_path).reports
    assert [report.id for report in reports] == ["main/a/b", "main/a:b"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["main_a_b", "main_a_b_2"]


def test_an_id_that_is_too_long_for_the_name_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce(monkeypatch, FAULTS["one weight off by one"])
    certify_sites(plan_model(load(two_layers("é" * 300)), RewriteOptions()), 0, tmp_path)
    assert len(list(tmp_path.glob("*/old.onnx"))) == 2


@pytest.mark.parametrize("source", ["file", "allow_pickle", "/encoder/Relu_output_0"])
def test_inputs_of_any_name_are_kept(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce(monkeypatch, broken_at("main/first"))
    planning = plan_model(load(two_layers(source=source)), RewriteOptions())
    certify_sites(planning, 0, tmp_path)
    with np.load(tmp_path / "main_first" / "inputs.npz") as archive:
        assert list(archive) == [source]
        assert archive[source].dtype == np.float32


def test_a_folder_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    introduce(monkeypatch, broken_at("main/first"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"main_first: .*first at \[.*cannot be written .*--dump"):
        deployconv.rewrite(two_layers(), dump=tmp_path / "file", bench=False)
