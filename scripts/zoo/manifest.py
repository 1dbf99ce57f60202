"""``models/manifest.json`` and the README made from it; needs no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper

from .sample import Input, Sample

SCHEMA_VERSION = 1
_FLAT_LIST = re.compile(r"\[([^\[\]{}]*)\]")

Entry = dict[str, Any]
"""What the manifest says of one model; JSON types only."""

VOLATILE = ("sha256", "size", "torch")
"""Fields that another version of PyTorch changes although the graph stays the same."""


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def operators(model: ModelProto) -> dict[str, int]:
    """How often each operator stands in the model, bodies and functions included."""
    counts = Counter(node.op_type for node in _nodes(model.graph))
    for function in model.functions:
        counts.update(node.op_type for node in function.node)
    return dict(sorted(counts.items()))


def _input(spec: Input) -> Entry:
    shape = [spec.dynamic.get(axis, size) for axis, size in enumerate(spec.shape)]
    return {"name": spec.name, "dtype": spec.dtype, "shape": shape, "example": spec.shape}


def _output(value: onnx.ValueInfoProto) -> Entry:
    kind = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": str(helper.tensor_dtype_to_np_dtype(kind.elem_type)),
        "shape": [dim.dim_param or dim.dim_value for dim in kind.shape.dim],
    }


def entry(sample: Sample, model: ModelProto, data: bytes, torch_version: str) -> Entry:
    """The manifest's entry for `sample`, exported as `model` and stored as `data`."""
    sites: Counter[str] = Counter()
    for layer in sample.layers:
        sites[layer.pattern] += layer.count
    raw: Entry = {
        "name": sample.name,
        "file": sample.file,
        "description": sample.description,
        "source": sample.source,
        "exporter": sample.exporter,
        "torch": torch_version,
        "quantized": sample.quantized,
        "opset": sample.opset,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "inputs": [_input(spec) for spec in sample.inputs],
        "outputs": [_output(value) for value in model.graph.output],
        "sites": dict(sites),
        "layers": [asdict(layer) for layer in sample.layers],
        "operators": operators(model),
    }
    plain: Entry = json.loads(json.dumps(raw))  # tuples become lists, as in the file
    return plain


def render_manifest(entries: Sequence[Entry]) -> str:
    document = {"schema_version": SCHEMA_VERSION, "models": list(entries)}
    text = json.dumps(document, indent=2)
    # A shape on one line, not a line a dimension.
    return _FLAT_LIST.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _factor(values: Sequence[int]) -> str:
    """``[4, 4]`` as ``4``, ``[2, 2, 1]`` as ``2x2x1``."""
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def _layer(layer: Entry) -> str:
    text = f"{layer['count']} {layer['pattern']}"
    text += f" k{_factor(layer['kernel'])}" if layer["kernel"] else ""
    text += f" s{_factor(layer['stride'])}"
    if set(layer["dilation"]) != {1}:
        text += f" dilation {_factor(layer['dilation'])}"
    if layer["group"] != 1:
        text += f" group {layer['group']}"
    return text


def _row(model: Entry) -> str:
    cells = (
        f"[{model['name']}]({model['file']})",
        model["description"],
        model["source"],
        model["exporter"] + (", quantized" if model["quantized"] else ""),
        str(model["opset"]),
        f"{model['size'] / 1000:.0f}",
        "; ".join(map(_layer, model["layers"])),
    )
    return f"| {' | '.join(cells)} |"


_README = """\
# Sample models

Small networks with upsampling layers, exported from PyTorch in the usual ways. Their weights are
random, so they compute nothing useful. `deployconv check models/` rewrites and checks all of them.

| model | what it stands for | source | exporter | opset | kB | upsampling layers |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

In the last column `k` is the kernel and `s` the stride or upsampling factor. The kernel of a
`pixel_shuffle` is that of the Conv before it. The kernel of a `nearest_resize` or a
`zero_insertion` is that of the Conv after it; an `interpolating_resize` has none. A ConvTranspose
with stride 1 is counted too: it becomes a plain Conv. The layers are those of the architecture,
written down by hand. The tests compare them with what deployconv finds in the file.

- **Exporter**: `dynamo` is `torch.onnx.export(..., dynamo=True)`, `legacy` is `dynamo=False`. They
  write the same network differently, and both are in use.
- **Quantized** models are in the Q/DQ format. They were exported, then prepared and quantized by
  onnxruntime's `quantize_static` with random inputs from a fixed seed. Weights are int8 with one
  scale per output channel. In the manifest, `quantized` is the type of the activations, which have
  a zero point. The value `symmetric` stands for int8 activations without zero points, and biases in
  float.
- **Weights** are random from a fixed seed, and scaled so that outputs are neither tiny nor
  saturated. BatchNorm statistics and biases are neither zero nor one.
- **Nothing was changed after the export**, except that stack traces of the exporting machine were
  removed. Each export was compared with PyTorch's own output before it was written or quantized.
- **`manifest.json`** has the same facts and more, for programs: checksums, inputs and outputs with
  dynamic axes and an example shape, operator counts, and `sites` (how many upsampling layers of
  each pattern).

`python scripts/make_models.py` writes this file, the manifest and the models. It needs onnxscript
and PyTorch {torch}, or another version with both exporters. With `--check` it writes nothing. It
then exports again and shows which files differ in structure.
"""


def render_readme(entries: Sequence[Entry]) -> str:
    """The README's text; a table row for each entry of the manifest."""
    versions = sorted({str(model["torch"]).partition("+")[0] for model in entries})
    return _README.format(rows="\n".join(map(_row, entries)), torch=", ".join(versions))
