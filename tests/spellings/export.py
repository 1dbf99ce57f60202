"""A spelling through PyTorch's exporters; needs torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any

import onnx
import torch
from torch import nn

from tests.spellings.compute import compute
from tests.spellings.corpus import Exporter, Run, Shape, Spelling, example, run_of
from tests.spellings.strip import strip

Examples = tuple[torch.Tensor, ...]

_BRIEF = 120
"""Characters of an exporter's message that are kept: what follows quotes graphs and paths."""


class NotExportable(Exception):
    """The exporter cannot write the spelling; ``reason`` is stable and says in short why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def build(spelling: Spelling) -> nn.Module:
    """The network in eval mode with small whole weights, none of them random."""
    network = spelling.module_builder().eval()
    for index, (name, parameter) in enumerate(network.named_parameters()):
        layer = network.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, (nn.BatchNorm2d, nn.PReLU)):  # these have values of their own
            flat = torch.arange(parameter.numel())
            values = (flat * 3 + flat // 4 + index) % 7 - 3
            parameter.data = values.reshape(parameter.shape).float()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            _train(layer)
    return network


def _train(layer: nn.BatchNorm2d) -> None:
    """Weights and statistics per channel; the standard deviation is 2, so nothing is rounded."""
    channels = torch.arange(layer.num_features)
    layer.weight.data = (channels % 3 + 1).float()
    layer.bias.data = (2 - channels).float()
    layer.running_mean = (channels % 2).float()
    layer.running_var = torch.full((layer.num_features,), 4.0)


def _tensors(shapes: Iterable[Shape]) -> Examples:
    return tuple(torch.from_numpy(example(shape)) for shape in shapes)


def other_shapes(spelling: Spelling) -> tuple[Shape, ...]:
    """Other sizes for a dynamic export: one more batch, spatial sides twice or so as long."""
    assert spelling.dynamic_axes is not None
    return tuple(
        tuple(
            size if axis not in axes else size + 1 if axis == 0 else size + 2
            for axis, size in enumerate(shape)
        )
        for shape, axes in zip(spelling.inputs, spelling.dynamic_axes, strict=True)
    )


@torch.no_grad()
def expected(spelling: Spelling, shapes: tuple[Shape, ...]) -> Run:
    """PyTorch's own output on inputs of ``shapes``."""
    output: torch.Tensor = build(spelling)(*_tensors(shapes))
    return run_of(shapes, output.numpy())


def expected_runs(spelling: Spelling, dynamic: bool) -> tuple[Run, ...]:
    """What every export of ``spelling`` must compute; a dynamic one at two sizes."""
    shapes = [spelling.inputs]
    if dynamic:
        shapes.append(other_shapes(spelling))
    return tuple(expected(spelling, shape) for shape in shapes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporters say of themselves; what they wrote is compared afterwards."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


def _legacy(
    network: nn.Module, args: Examples, names: list[str], axes: Any, opset: int
) -> onnx.ModelProto:
    buffer = BytesIO()
    torch.onnx.export(
        network,
        args,
        buffer,  # type: ignore[arg-type]  # the annotation leaves out what legacy takes
        dynamo=False,
        opset_version=opset,
        input_names=names,
        output_names=["y"],
        dynamic_axes=dict(zip(names, axes, strict=True)) if axes else None,
    )
    return onnx.load_from_string(buffer.getvalue())


def _dynamo(
    network: nn.Module, args: Examples, names: list[str], axes: Any, opset: int
) -> onnx.ModelProto:
    program = torch.onnx.export(
        network,
        args,
        dynamo=True,
        opset_version=opset,
        input_names=names,
        output_names=["y"],
        dynamic_shapes=tuple(dict(axis) for axis in axes) if axes else None,
        verbose=False,
    )
    assert program is not None, "torch.onnx.export(dynamo=True) returns the program"
    return program.model_proto


@cache
@torch.no_grad()
def export(spelling: Spelling, exporter: Exporter, opset: int, dynamic: bool) -> onnx.ModelProto:
    """The spelling as ``exporter`` writes it, `strip`-ped; the same object when asked again.

    Raises NotExportable where the exporter refuses, its graph does not run, or does not compute
    what PyTorch does, at the sizes of the export or, if dynamic, at others.
    """
    names = ["x", "second"][: len(spelling.inputs)]
    axes = spelling.dynamic_axes if dynamic else None
    write = _dynamo if exporter == "dynamo" else _legacy
    try:
        with _quiet():
            model = write(build(spelling), _tensors(spelling.inputs), names, axes, opset)
    except Exception as error:  # the exporters raise whatever their passes do
        raise NotExportable(f"refused: {_brief(error)}") from error
    strip(model)
    for run in expected_runs(spelling, dynamic):
        try:
            actual = run_of(run.inputs, compute(model, run))
        except Exception as error:  # onnxruntime's exceptions share no base
            raise NotExportable(f"does not run: {_brief(error)}") from error
        if actual != run:
            raise NotExportable(f"computes something else for {run.inputs[0]}")
    return model


def _brief(error: BaseException) -> str:
    """The innermost cause's type and how its message begins, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    message = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {message[:_BRIEF]}"
