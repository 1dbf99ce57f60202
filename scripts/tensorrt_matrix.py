"""Parse and build every form with TensorRT-RTX, as exported and rewritten, and record it.

    python scripts/tensorrt_matrix.py                  every form of upsampling layer
    python scripts/tensorrt_matrix.py --forms 'k4*'    only these; the rest of the record stays
    python scripts/tensorrt_matrix.py --resizes        the Resizes instead of the forms

It needs TensorRT-RTX (pip install 'deployconv[rtx]') and no GPU: nothing is executed. A Resize
that is built counts as computed wrong if the parsed layer has other coordinates than the model. The
records are files in ``tests/targets/recorded``; those of the Resizes are in ``resizes``.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import distributions
from importlib.util import find_spec

import onnx
from matrix.arguments import add_layers, chosen_layers, new_parser, status_of
from matrix.further import EVERY
from matrix.record import EXPORTED, Record, Run
from matrix.runs import in_each_spelling, record_runs

import deployconv
from deployconv.errors import BackendUnavailable

TARGET, COMPILED_FOR = "tensorrt", "sm89"
PACKAGE = "tensorrt_rtx"
_ATTRIBUTE = "coordinate_transformation_mode"
COORDINATES = {
    "half_pixel": "HALF_PIXEL",
    "pytorch_half_pixel": "HALF_PIXEL",
    "align_corners": "ALIGN_CORNERS",
    "asymmetric": "ASYMMETRIC",
}
"""What TensorRT calls the coordinates that it has; those of a length of 1 are a property apart."""


def built(name: str, spelling: str, model: bytes) -> Run:
    """Build one model, and compare the Resizes that TensorRT parsed with those of the model."""
    form = EVERY[name]
    dynamic = any(isinstance(size, str) for size in form.shape)
    report = deployconv.build(
        onnx.load_model_from_string(model),
        target=COMPILED_FOR,
        backend="tensorrt-rtx",
        shape={"x": form.sizes()} if dynamic else {},
    )
    for stage in report.targets[0].stages:
        if stage.status == "failed":
            return Run(name, spelling, "refused", f"{stage.name}: {stage.reason}")
    wrong = next(misread(model), None)
    if wrong is not None:
        return Run(name, spelling, "misread", f"parsed as {wrong}; built, not executed")
    return Run(name, spelling, "converted")


def misread(model: bytes) -> Iterator[str]:
    """The Resizes that TensorRT parses with other coordinates: the mode and the coordinates."""
    import tensorrt_rtx as trt

    asked = [
        {one.name: one.s.decode() for one in node.attribute}.get(_ATTRIBUTE, "half_pixel")
        for node in onnx.load_model_from_string(model).graph.node
        if node.op_type == "Resize"
    ]
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    parser.parse(model)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    resizes = [layer for layer in layers if layer.type == trt.LayerType.RESIZE]
    for coordinates, layer in zip(asked, resizes, strict=True):
        layer.__class__ = trt.IResizeLayer
        parsed = layer.coordinate_transformation.name
        if parsed != COORDINATES.get(coordinates):
            yield f"{layer.resize_mode.name} with {parsed}"


def main() -> int:
    parser = new_parser(__doc__)
    add_layers(parser)
    chosen = parser.parse_args()
    names, folder = chosen_layers(chosen)
    if find_spec(PACKAGE) is None:
        raise BackendUnavailable(f"{PACKAGE} is not installed: pip install 'deployconv[rtx]'")
    packages = {
        f"{one.name}=={one.version}" for one in distributions() if one.name.startswith(PACKAGE)
    }
    version = next(one for one in packages if one.startswith(f"{PACKAGE}==")).replace("==", " ")
    record = Record(
        TARGET,
        f"{version}, parsed and built for {COMPILED_FOR}",
        datetime.date.today().isoformat(),
        (),
        tuple(sorted(packages)),
    )
    runs = (
        run
        for name in names
        for run in in_each_spelling(name, (EXPORTED, "target"), TARGET, partial(built, name))
    )
    record_runs(record, runs, folder)
    return 0


if __name__ == "__main__":
    sys.exit(status_of(main))
