"""A sample's network through PyTorch's exporter to one self-contained ModelProto."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from .quantize import quantize, random_batches
from .sample import Input, Sample
from .weights import randomise

SEED = 34

TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
"""Largest difference from PyTorch, relative to the output's largest magnitude."""

_STACK_FRAME = 'File "'


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """Silence what the exporters say of themselves and not of the network."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the legacy exporter, all of it
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        logger.setLevel(logging.ERROR)  # it misses torchvision, which no sample uses
        try:
            yield
        finally:
            logger.setLevel(level)


Examples = tuple[torch.Tensor, ...]


def _example(spec: Input) -> torch.Tensor:
    if spec.dtype == "bool":
        return torch.ones(spec.shape, dtype=torch.bool)
    return torch.randn(spec.shape).to(getattr(torch, spec.dtype))


def _export_legacy(network: torch.nn.Module, sample: Sample, args: Examples) -> onnx.ModelProto:
    with TemporaryDirectory() as folder:
        path = Path(folder, sample.file)
        torch.onnx.export(
            network,
            args,
            path,
            dynamo=False,
            opset_version=sample.opset,
            input_names=[spec.name for spec in sample.inputs],
            output_names=[sample.output],
            dynamic_axes={spec.name: dict(spec.dynamic) for spec in sample.inputs if spec.dynamic},
        )
        return onnx.load(path)


def _export_dynamo(network: torch.nn.Module, sample: Sample, args: Examples) -> onnx.ModelProto:
    program = torch.onnx.export(
        network,
        args,
        dynamo=True,
        opset_version=sample.opset,
        input_names=[spec.name for spec in sample.inputs],
        output_names=[sample.output],
        dynamic_shapes=tuple(dict(spec.dynamic) or None for spec in sample.inputs),
        verbose=False,
    )
    assert program is not None, "torch.onnx.export(dynamo=True) returns the program"
    return program.model_proto  # in memory, so its weights are inside


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages inside it."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for child in value if isinstance(value, Iterable) else (value,):
                yield from _messages(child)


def _strip_stack_traces(model: onnx.ModelProto) -> None:
    """Drop the doc_strings and metadata that quote the exporting machine's stack and paths."""
    for message in _messages(model):
        if _STACK_FRAME in getattr(message, "doc_string", ""):
            message.ClearField("doc_string")
        properties = getattr(message, "metadata_props", ())
        kept = [entry for entry in properties if _STACK_FRAME not in entry.value]
        if len(kept) < len(properties):
            message.ClearField("metadata_props")
            message.metadata_props.extend(kept)


def _demand_same_output(
    model: onnx.ModelProto, network: torch.nn.Module, sample: Sample, args: Examples
) -> None:
    """Raise RuntimeError unless onnxruntime computes what PyTorch does on `args`."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {spec.name: arg.numpy() for spec, arg in zip(sample.inputs, args, strict=True)}
    (actual,) = session.run(None, feeds)
    expected = network(*args).numpy()
    scale = float(np.abs(expected.astype(np.float64)).max())
    difference = float(np.abs(actual.astype(np.float64) - expected).max())
    if not difference <= TOLERANCE[sample.dtype] * scale:
        raise RuntimeError(
            f"{sample.name}: the {sample.exporter} export differs from PyTorch by "
            f"{difference:.3g} at magnitude {scale:.3g}; choose another opset or exporter"
        )


@torch.no_grad()
def export(sample: Sample) -> onnx.ModelProto:
    """The sample as its exporter writes it: seeded, in eval mode, without stack traces.

    A quantized sample is then quantized, with seeded inputs. Raises RuntimeError where
    onnxruntime's output of the export is not PyTorch's.
    """
    torch.manual_seed(SEED)
    network = randomise(sample.build(), SEED).to(getattr(torch, sample.dtype))
    args = tuple(map(_example, sample.inputs))
    write = _export_dynamo if sample.exporter == "dynamo" else _export_legacy
    with _quiet_exporters():
        model = write(network, sample, args)
    _strip_stack_traces(model)
    _demand_same_output(model, network, sample, args)
    if sample.quantized is None:
        return model
    shapes = {spec.name: spec.shape for spec in sample.inputs}
    return quantize(model, random_batches(shapes, SEED), sample.quantized)
