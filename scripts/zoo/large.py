"""The samples at sizes at which people run them, and some of their layers alone.

They are exported when they are needed, as they would take up too much room in ``models/``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import nn

from .audio import HifiganVocoder
from .catalogue import CATALOGUE
from .generative import ConvUpsampler, DcganGenerator, VaeDecoder
from .mixing import DeeplabHead, LevelFusion
from .resizing import (
    BicubicSkip,
    BilinearUnet,
    Descriptors,
    DptFusion,
    Preprocessing,
    SegformerHead,
    TrilinearDecoder,
)
from .sample import Input, Sample
from .segmentation import FcnBilinear, SamMaskDecoder, TextDetectorHead, UnetDecoder
from .superresolution import Espcn, Fsrcnn

_SMALL = {sample.name: sample for sample in CATALOGUE}


def _sized(name: str, small: str, build: Callable[[], nn.Module], *inputs: Input) -> Sample:
    """The sample ``small`` with another network and other inputs, exported as it is."""
    return replace(_SMALL[small], name=name, build=build, inputs=inputs)


def _resize_and_conv() -> nn.Module:
    """Nearest x2 and Conv 3x3, the upsampling layer of `VaeDecoder`."""
    return nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(64, 64, 3, padding=1))


def _detector_upsampling() -> nn.Module:
    """What stands behind the Conv 3x3 of `TextDetectorHead`: two k2 s2, pointwise layers."""
    return TextDetectorHead(24).body[3:]


_UPSAMPLING: tuple[Sample, ...] = (
    _sized(  # of an image of 640x640, a quarter of that
        *("text_detector_head_640", "text_detector_head", TextDetectorHead),
        Input("features", (1, 96, 160, 160)),
    ),
    _sized(
        *("unet_decoder_256", "unet_decoder", partial(UnetDecoder, width=128)),
        Input("bottom", (1, 128, 64, 64)),
        Input("skip_2x", (1, 64, 128, 128)),
        Input("skip_4x", (1, 32, 256, 256)),
    ),
    _sized(
        *("dcgan_64", "dcgan_generator", partial(DcganGenerator, latent=100, width=64, stages=4)),
        Input("latent", (1, 100, 1, 1)),
    ),
    _sized("fsrcnn_x3_180x320", "fsrcnn_x3", Fsrcnn, Input("luminance", (1, 1, 180, 320))),
    _sized(
        *("vae_decoder_512", "vae_block", partial(VaeDecoder, width=64, doublings=3)),
        Input("latent", (1, 4, 64, 64)),
    ),
    _sized(
        *("hifigan_vocoder_64", "hifigan_vocoder", partial(HifiganVocoder, width=256)),
        Input("mel", (1, 80, 64), dynamic={2: "frames"}),
    ),
    _sized(
        *("fcn_8s_512", "fcn_bilinear", partial(FcnBilinear, deep=512, pool4=512, pool3=256)),
        Input("deep", (1, 512, 16, 16)),
        Input("pool4", (1, 512, 32, 32)),
        Input("pool3", (1, 256, 64, 64)),
    ),
    _sized(
        *("sam_mask_decoder_256", "sam_mask_decoder", partial(SamMaskDecoder, width=256)),
        Input("embedding", (1, 256, 64, 64)),
        Input("tokens", (1, 4, 32)),
    ),
    _sized("espcn_x3_180x320", "espcn_x3", Espcn, Input("luminance", (1, 1, 180, 320))),
    _sized(
        *("text_detector_upsampling", "text_detector_head", _detector_upsampling),
        Input("features", (1, 24, 160, 160)),
    ),
    _sized(
        "fsrcnn_x3_last_layer",
        "fsrcnn_x3",
        partial(nn.ConvTranspose2d, 56, 1, 9, 3, padding=4, output_padding=2),
        Input("features", (1, 56, 180, 320)),
    ),
    _sized(
        *("vae_upsampling_layer", "vae_block", _resize_and_conv),
        Input("features", (1, 64, 128, 128)),
    ),
)
RESIZING: tuple[Sample, ...] = (
    _sized(  # of an image of 512x512
        *("level_fusion_512", "unet_decoder", LevelFusion),
        Input("level_1", (1, 256, 128, 128)),
        Input("level_2", (1, 256, 64, 64)),
        Input("level_3", (1, 256, 32, 32)),
        Input("level_4", (1, 256, 16, 16)),
    ),
    _sized(
        *("deeplab_head_512", "unet_decoder", DeeplabHead),
        Input("features", (1, 256, 32, 32)),
    ),
    _sized(  # of an image of 512x512
        *("segformer_head_512", "segformer_head", SegformerHead),
        Input("level_1", (1, 32, 128, 128)),
        Input("level_2", (1, 64, 64, 64)),
        Input("level_3", (1, 160, 32, 32)),
        Input("level_4", (1, 256, 16, 16)),
    ),
    _sized(
        *("dpt_fusion_48", "dpt_fusion", DptFusion),
        Input("deeper", (1, 256, 48, 48)),
        Input("features", (1, 256, 48, 48)),
    ),
    _sized(
        *("bicubic_skip_x4_180x320", "bicubic_skip", partial(BicubicSkip, scale=4)),
        Input("image", (1, 3, 180, 320)),
    ),
    _sized(
        *("bilinear_unet_128", "bilinear_unet", BilinearUnet),
        Input("bottom", (1, 64, 64, 64)),
        Input("skip", (1, 32, 128, 128)),
    ),
    _sized(
        *("antialiased_preprocessing_640", "antialiased_preprocessing", Preprocessing),
        Input("image", (1, 3, 480, 640)),
    ),
    _sized(
        *("trilinear_decoder_32", "trilinear_decoder", TrilinearDecoder),
        Input("volume", (1, 32, 32, 32, 32)),
    ),
    _sized(  # ends in a cubic Resize x8
        *("descriptors_240x320", "bilinear_unet", Descriptors),
        Input("image", (1, 1, 240, 320)),
    ),
)
"""Networks with an interpolating Resize."""

LARGE: tuple[Sample, ...] = (*_UPSAMPLING, *RESIZING)

_UPSAMPLER = replace(_SMALL["upsampler_int8"], quantized=None)

UPSAMPLERS: tuple[Sample, ...] = tuple(
    replace(
        _UPSAMPLER,
        name=f"conv_upsampler_{width}",
        build=partial(ConvUpsampler, width),
        inputs=(Input("features", (1, width, size, size)),),
    )
    for width, size in ((64, 64), (128, 48))
)
"""An upsampling layer between two Convs: the least that there is."""

_NETWORKS = (
    "text_detector_head_640",
    "unet_decoder_256",
    "dcgan_64",
    "fsrcnn_x3_180x320",
    "vae_decoder_512",
    "hifigan_vocoder_64",
    "fcn_8s_512",
    "sam_mask_decoder_256",
)
DECODERS: tuple[Sample, ...] = tuple(one for one in LARGE if one.name in _NETWORKS)
"""Those of `LARGE` that are a whole decoder with a layer to rewrite."""
