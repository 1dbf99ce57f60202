"""The samples of networks with an interpolating Resize, each by both exporters where they can."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from .resizing import (
    BicubicSkip,
    BilinearUnet,
    DptFusion,
    Preprocessing,
    SegformerHead,
    TrilinearDecoder,
)
from .sample import Input, Layer, Sample


def _resized(*stride: int, count: int = 1) -> Layer:
    return Layer("interpolating_resize", (), stride, count=count)


SEGFORMER_HEAD = Sample(
    name="segformer_head",
    description="decode head of a segmentation transformer; three bilinear Resizes to the size of"
    " the first level, Concat, 1x1 Convs",
    source="Xie et al. 2021, SegFormer",
    build=partial(SegformerHead, levels=(16, 24, 32, 48), width=32, classes=6),
    inputs=(
        Input("level_1", (1, 16, 16, 24)),
        Input("level_2", (1, 24, 8, 12)),
        Input("level_3", (1, 32, 4, 6)),
        Input("level_4", (1, 48, 2, 3)),
    ),
    output="classes",
    layers=(_resized(2, 2), _resized(4, 4), _resized(8, 8)),
    exporter="dynamo",
    opset=18,
)
DPT_FUSION = Sample(
    name="dpt_fusion",
    description="fusion block of a depth network; bilinear x2 with aligned corners, 1x1 Conv",
    source="Ranftl et al. 2021, DPT",
    build=partial(DptFusion, width=16),
    inputs=(Input("deeper", (1, 16, 10, 14)), Input("features", (1, 16, 10, 14))),
    output="fused",
    layers=(_resized(2, 2),),
    exporter="dynamo",
    opset=20,
)
BICUBIC_SKIP = Sample(
    name="bicubic_skip",
    description="super-resolution that adds to the bicubic enlargement; dynamic height and width",
    source="Kim et al. 2016, VDSR; Shi et al. 2016, ESPCN",
    build=partial(BicubicSkip, width=16),
    inputs=(Input("image", (1, 3, 20, 28), dynamic={2: "height", 3: "width"}),),
    output="enlarged",
    layers=(Layer("pixel_shuffle", (3, 3), (2, 2)), _resized(2, 2)),
    exporter="legacy",
    opset=17,
)
BILINEAR_UNET = Sample(
    name="bilinear_unet",
    description="segmentation decoder; bilinear x2, Concat with a skip connection, Conv 3x3",
    source="Ronneberger et al. 2015, U-Net",
    build=partial(BilinearUnet, width=32),
    inputs=(Input("bottom", (1, 32, 9, 12)), Input("skip", (1, 16, 18, 24))),
    output="classes",
    layers=(_resized(2, 2),),
    exporter="dynamo",
    opset=18,
)
PREPROCESSING = Sample(
    name="antialiased_preprocessing",
    description="an image made smaller with antialias, and normalised, as it was exported with the"
    " model",
    source="torchvision, Resize",
    build=partial(Preprocessing, size=(24, 32)),
    inputs=(Input("image", (1, 3, 60, 80)),),
    output="normalised",
    layers=(),  # it enlarges nothing
    exporter="dynamo",
    opset=18,
)
TRILINEAR_DECODER = Sample(
    name="trilinear_decoder",
    description="volumetric segmentation decoder; trilinear x2 between Convs",
    source="Cicek et al. 2016, 3D U-Net",
    build=partial(TrilinearDecoder, width=16),
    inputs=(Input("volume", (1, 16, 4, 6, 8)),),
    output="classes",
    layers=(_resized(2, 2, 2),),
    exporter="dynamo",
    opset=18,
)


def _legacy(sample: Sample) -> Sample:
    return replace(sample, name=f"{sample.name}_legacy", exporter="legacy", opset=17)


RESIZED: tuple[Sample, ...] = (
    SEGFORMER_HEAD,
    _legacy(SEGFORMER_HEAD),
    DPT_FUSION,
    _legacy(DPT_FUSION),
    BICUBIC_SKIP,
    replace(BICUBIC_SKIP, name="bicubic_skip_dynamo", exporter="dynamo", opset=18),
    BILINEAR_UNET,
    _legacy(BILINEAR_UNET),
    PREPROCESSING,  # the legacy exporter knows no antialias
    TRILINEAR_DECODER,
    _legacy(TRILINEAR_DECODER),
)
