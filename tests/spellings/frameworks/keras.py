"""Keras 3 models, exported by ``model.export(format="onnx")``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from tests.spellings.corpus import example
from tests.spellings.frameworks.case import Case, Exported, Network, Sizes, run, weights

IMAGE = (2, 3, 4, 3)
LINE = (2, 5, 3)
VOLUME = (1, 2, 3, 3, 2)
Steps = Callable[[Any, Any], Any]
"""A network after its input: Keras and the input tensor in, the output tensor out."""


def steps(body: Steps) -> Callable[[], Network]:
    """A builder of the network: a function of the input's symbolic shape that makes the model."""

    def build() -> Network:
        import keras

        def make(shape: tuple[int | None, ...]) -> Any:
            keras.utils.clear_session()
            image = keras.Input(batch_shape=shape, name="x")
            model = keras.Model(image, body(keras, image))
            fill(model)
            return model

        return make

    return build


def fill(model: Any) -> None:
    """Small whole weights; a BatchNormalization divides by 2."""
    for index, variable in enumerate(model.weights):
        value = weights(*variable.shape, start=index)
        if variable.path.endswith("moving_variance"):
            value[:] = 4
        elif variable.path.endswith("gamma"):
            value = abs(value) + 1
        variable.assign(value)


def export(case: Case, sizes: Sizes) -> Exported:
    """The model as Keras writes it, and what Keras computes."""
    (shape,) = case.inputs
    axes = case.dynamic_axes(shape, sizes)
    model = case.build()(tuple(None if axis in axes else size for axis, size in enumerate(shape)))
    model(example(shape))  # an export needs one call before it
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        more = {"opset_version": case.opset} if case.opset else {}
        model.export(path, format="onnx", verbose=False, **more)
        return Exported(onnx.load(path), lambda x: model(x).numpy())


def up2d(*factors: int, **more: Any) -> Steps:
    """UpSampling2D, then a Conv2D."""

    def body(keras: Any, x: Any) -> Any:
        x = keras.layers.UpSampling2D(factors, **more)(x)
        return keras.layers.Conv2D(4, 3, padding="same")(x)

    return body


def layer(name: str, *arguments: Any, **more: Any) -> Steps:
    """One layer of Keras."""
    return lambda keras, x: getattr(keras.layers, name)(*arguments, **more)(x)


def then(*bodies: Steps) -> Steps:
    """One after the other."""

    def body(keras: Any, x: Any) -> Any:
        for step in bodies:
            x = step(keras, x)
        return x

    return body


norm = layer("BatchNormalization", epsilon=0.0)
relu = layer("ReLU")
leaky = layer("LeakyReLU", negative_slope=0.25)
conv = layer("Conv2D", 4, 3, padding="same")
up = layer("UpSampling2D", 2)


def residual(keras: Any, x: Any) -> Any:
    x = conv(keras, x)
    x = keras.layers.Add()([x, conv(keras, relu(keras, x))])
    return conv(keras, up(keras, x))


def residual_behind(keras: Any, x: Any) -> Any:
    """The residual block of a GAN: both branches upsample, one through two Convs."""
    main = conv(keras, relu(keras, conv(keras, up(keras, relu(keras, x)))))
    side = layer("Conv2D", 4, 1)(keras, up(keras, x))
    return keras.layers.Add()([main, side])


def unet(keras: Any, x: Any) -> Any:
    """A ConvTranspose, joined with the finer image: its Conv is no part of the layer."""
    fine = relu(keras, conv(keras, x))
    coarse = conv(keras, keras.layers.MaxPooling2D(2)(fine))
    coarse = transpose2d(3, 2, 2, "valid")(keras, coarse)
    return conv(keras, keras.layers.Concatenate()([coarse, fine]))


def subpixel(keras: Any, x: Any) -> Any:
    """ESPCN's last layer, by TensorFlow's own operator."""

    def call(x: Any) -> Any:
        import tensorflow as tf

        return tf.nn.depth_to_space(x, 2)

    return keras.layers.Lambda(call)(layer("Conv2D", 12, 3, padding="same")(keras, x))


def gated(keras: Any, x: Any) -> Any:
    """Squeeze and excitation before the upsampling: a factor per image and channel."""
    weight = keras.layers.GlobalMaxPooling2D(keepdims=True)(x)
    x = keras.layers.Multiply()([x, relu(keras, layer("Conv2D", 3, 1)(keras, weight))])
    return conv(keras, up(keras, x))


def reshape(*shape: int) -> Steps:
    return layer("Reshape", shape)


def dcgan(keras: Any, x: Any) -> Any:
    x = leaky(keras, keras.layers.Dense(2 * 2 * 3, use_bias=False)(x))
    x = keras.layers.Reshape((2, 2, 3))(x)
    x = keras.layers.Conv2DTranspose(3, 4, strides=2, padding="same", use_bias=False)(x)
    x = leaky(keras, norm(keras, x))
    return keras.layers.Conv2DTranspose(1, 4, strides=2, padding="same")(x)


def shuffle(order: tuple[int, ...], factor: int = 2) -> Steps:
    """Pixel shuffle of a channels-last image; ``order`` is that of the transpose."""

    def body(keras: Any, x: Any) -> Any:
        def call(x: Any) -> Any:
            n, h, w, channels = keras.ops.shape(x)
            c = channels // factor**2
            parts = (n, h, w, factor, factor, c) if order[-1] == 5 else (n, h, w, c, factor, factor)
            x = keras.ops.transpose(keras.ops.reshape(x, parts), order)
            return keras.ops.reshape(x, (n, h * factor, w * factor, c))

        return keras.layers.Lambda(call)(x)

    return body


def patch_expand(keras: Any, x: Any) -> Any:
    """Swin-UNet's: tokens, a Dense, and its channels to a block of four tokens."""
    x = keras.layers.Dense(8, use_bias=False)(x)
    x = keras.layers.Reshape((3, 4, 2, 2, 2))(x)
    x = keras.layers.Permute((1, 3, 2, 4, 5))(x)
    return keras.layers.Reshape((48, 2))(x)


def unpatchify(keras: Any, x: Any) -> Any:
    """ViT's decoder: each token becomes a patch of pixels."""
    x = keras.layers.Dense(12)(x)
    x = keras.layers.Reshape((3, 4, 2, 2, 3))(x)
    x = keras.layers.Permute((1, 3, 2, 4, 5))(x)
    return keras.layers.Reshape((6, 8, 3))(x)


def repeated(keras: Any, x: Any) -> Any:
    return keras.ops.repeat(keras.ops.repeat(x, 2, axis=1), 2, axis=2)


def resized(interpolation: str) -> Steps:
    return lambda keras, x: keras.ops.image.resize(x, (6, 8), interpolation=interpolation)


def runtime_weight(keras: Any, x: Any) -> Any:
    """A kernel that is computed from the image."""

    def call(x: Any) -> Any:
        kernel = keras.ops.reshape(keras.ops.sum(x, axis=(0, 1, 2)), (1, 1, 1, 3))
        kernel = keras.ops.tile(kernel, (2, 2, 2, 1))
        return keras.ops.conv_transpose(x, kernel, 2, "valid", data_format="channels_last")

    return keras.layers.Lambda(call)(x)


def transpose2d(*arguments: Any, **more: Any) -> Steps:
    return layer("Conv2DTranspose", *arguments, **more)


def _case(name: str, family: Any, stride: Any, body: Steps, *sizes: Sizes, **more: Any) -> Case:
    inputs = more.pop("inputs", (IMAGE,))
    return Case(name, family, stride, inputs, steps(body), sizes or ("dynamic",), **more)


def _transposed(name: str, stride: Any, body: Steps, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "conv_transpose", stride, body, *sizes, **more)


def _nearest(name: str, stride: Any, body: Steps, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "nearest_resize", stride, body, *sizes, **more)


def _shuffled(name: str, stride: Any, body: Steps, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "pixel_shuffle", stride, body, *sizes, expect="final", **more)


def _negative(name: str, body: Steps, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "negative", None, body, *sizes, **more)


TOKENS = ((2, 12, 3),)
CODE = ((2, 5),)
FIRST = {"inputs": ((2, 3, 3, 4),), "channels_last": False}

CASES = (
    _transposed(
        "transpose2d_k3_same", (2, 2), transpose2d(4, 3, 2, "same"), "static", "batch", "dynamic"
    ),
    _transposed("transpose2d_k4_same", (2, 2), then(transpose2d(4, 4, 2, "same"), relu)),
    _transposed("transpose2d_k4_valid", (2, 2), transpose2d(4, 4, 2, "valid")),
    _transposed("transpose2d_k5_2x3", (2, 3), transpose2d(4, 5, (2, 3), "same"), "batch"),
    _transposed(
        "transpose2d_output_padding",
        (2, 2),
        transpose2d(4, 3, 2, "same", output_padding=1),
        "batch",
    ),
    _transposed("transpose2d_dilated", (1, 1), transpose2d(4, 3, 1, "same", dilation_rate=2)),
    _transposed("transpose2d_stride1", (1, 1), transpose2d(4, 3, 1, "same"), "static"),
    _transposed(
        "transpose2d_batchnorm_relu",
        (2, 2),
        then(transpose2d(4, 4, 2, "same"), norm, relu, conv),
        "dynamic",
    ),
    _transposed(
        "transpose2d_channels_first",
        (2, 2),
        transpose2d(4, 4, 2, "same", data_format="channels_first"),
        "static",
        **FIRST,
    ),
    _transposed(
        "transpose1d_k3_same", (2,), layer("Conv1DTranspose", 4, 3, 2, "same"), inputs=(LINE,)
    ),
    _transposed(
        "transpose1d_k4_valid",
        (2,),
        layer("Conv1DTranspose", 4, 4, 2, "valid"),
        "batch",
        inputs=(LINE,),
    ),
    _transposed(
        "transpose3d_k3_same",
        (2, 2, 2),
        layer("Conv3DTranspose", 2, 3, 2, "same"),
        inputs=(VOLUME,),
    ),
    _transposed("dcgan", (2, 2), dcgan, "static", "batch", inputs=CODE, layers=2),
    _nearest("up2d", (2, 2), up2d(2, 2), "static", "batch", "dynamic"),
    _nearest("up2d_opset18", (2, 2), up2d(2, 2), "static", "dynamic", opset=18),
    _nearest("up2d_3", (3, 3), up2d(3, 3), "static"),
    _nearest("up2d_2x3", (2, 3), up2d(2, 3), "batch"),
    _nearest("up2d_relu", (2, 2), then(conv, up, relu, conv), "static", "dynamic"),
    _nearest("up2d_batchnorm_relu", (2, 2), then(conv, up, norm, relu, conv), "batch"),
    _nearest("conv_batchnorm_up2d", (2, 2), then(conv, norm, relu, up, conv), "dynamic"),
    _nearest(
        "up2d_twice",
        (2, 2),
        then(conv, relu, up, conv, relu, up, conv),
        "static",
        "batch",
        "dynamic",
        layers=2,
    ),
    _nearest(
        "up2d_zero_padding",
        (2, 2),
        then(up, layer("ZeroPadding2D", 1), layer("Conv2D", 4, 3)),
        "batch",
    ),
    _nearest(
        "up2d_depthwise", (2, 2), then(up, layer("DepthwiseConv2D", 3, padding="same")), "static"
    ),
    _nearest(
        "up2d_separable", (2, 2), then(up, layer("SeparableConv2D", 4, 3, padding="same")), "batch"
    ),
    _nearest("up2d_1x1", (2, 2), then(up, layer("Conv2D", 4, 1)), "static"),
    _nearest("up2d_residual_before", (2, 2), residual, "batch"),
    _nearest("up2d_residual_behind", (2, 2), residual_behind, "static", layers=2),
    _nearest(
        "up2d_behind_dense",
        (2, 2),
        then(layer("Dense", 24), reshape(2, 3, 4), up, conv, relu),
        "batch",
        inputs=CODE,
    ),
    _nearest(
        "up2d_channels_first",
        (2, 2),
        then(
            layer("UpSampling2D", 2, data_format="channels_first"),
            layer("Conv2D", 4, 3, padding="same", data_format="channels_first"),
        ),
        "static",
        **FIRST,
    ),
    _nearest(
        "up1d",
        (2,),
        then(layer("UpSampling1D", 2), layer("Conv1D", 4, 3, padding="same")),
        "static",
        "batch",
        "dynamic",
        inputs=(LINE,),
    ),
    _nearest(
        "up3d",
        (2, 2, 2),
        then(layer("UpSampling3D", 2), layer("Conv3D", 2, 3, padding="same")),
        inputs=(VOLUME,),
    ),
    _nearest("repeat", (2, 2), then(repeated, conv), "batch"),
    _nearest("image_resize", (2, 2), then(resized("nearest"), conv), "batch"),
    _nearest("resizing", (2, 2), then(layer("Resizing", 6, 8, "nearest"), conv), "static"),
    _transposed("unet", (2, 2), unet, "batch", inputs=((2, 4, 6, 3),)),
    _transposed(
        "transpose2d_cropped",
        (2, 2),
        then(transpose2d(4, 4, 2, "valid"), layer("Cropping2D", 1)),
    ),
    _transposed(
        "transpose2d_padded",
        (2, 2),
        then(layer("ZeroPadding2D", 1), transpose2d(4, 4, 2, "same"), norm),
        "static",
    ),
    _transposed("transpose2d_k7_stride4", (4, 4), transpose2d(4, 7, 4, "same"), "dynamic"),
    _transposed(
        "transpose2d_three",
        (2, 2),
        then(*[step for _ in range(3) for step in (transpose2d(2, 2, 2, "same"), relu)]),
        "batch",
        layers=3,
    ),
    _transposed(
        "transpose1d_causal",
        (3,),
        then(layer("Conv1DTranspose", 4, 6, 3, "valid"), layer("Cropping1D", (0, 3)), relu),
        inputs=(LINE,),
    ),
    _nearest("gated", (2, 2), gated, "batch"),
    _nearest(
        "up2d_cropped",
        (2, 2),
        then(up, layer("Cropping2D", 1), layer("Conv2D", 4, 3)),
        "batch",
    ),
    _nearest(
        "up2d_dropout_prelu",
        (2, 2),
        then(up, layer("Dropout", 0.5), layer("PReLU", shared_axes=[1, 2]), conv),
        "batch",
    ),
    _nearest("up2d_clip", (2, 2), then(up, layer("ReLU", 6.0), conv), "static"),
    _nearest("up2d_conv5", (2, 2), then(up, layer("Conv2D", 4, 5, padding="same")), "batch"),
    _nearest("up2d_even", (2, 2), then(up, layer("Conv2D", 4, 2, padding="same")), "dynamic"),
    _nearest("up2d_valid", (2, 2), then(up, layer("Conv2D", 4, 3)), "dynamic"),
    _nearest(
        "up2d_dilated",
        (2, 2),
        then(up, layer("Conv2D", 4, 3, padding="same", dilation_rate=2)),
        "dynamic",
    ),
    _nearest("up2d_by_4", (4, 4), then(up, up, conv), "dynamic"),
    _nearest(
        "up2d_rescaled",
        (2, 2),
        then(layer("Rescaling", 0.5, 1.0), up, conv),
        "batch",
    ),
    _nearest(
        "up1d_causal",
        (2,),
        then(layer("UpSampling1D", 2), layer("Conv1D", 4, 3, padding="causal")),
        inputs=(LINE,),
    ),
    _nearest(
        "up3d_1x2x2",
        (2, 2),
        then(layer("UpSampling3D", (1, 2, 2)), relu, layer("Conv3D", 2, 3, padding="same")),
        "batch",
        inputs=(VOLUME,),
    ),
    _shuffled("subpixel", (2, 2), subpixel, "dynamic"),
    _shuffled(
        "shuffle_dcr",
        (2, 2),
        then(layer("Conv2D", 16, 3, padding="same"), shuffle((0, 1, 3, 2, 4, 5))),
        "static",
        "batch",
        "dynamic",
    ),
    _shuffled(
        "shuffle_crd",
        (2, 2),
        then(layer("Conv2D", 16, 3, padding="same"), shuffle((0, 1, 4, 2, 5, 3))),
        "dynamic",
    ),
    _shuffled(
        "shuffle3",
        (3, 3),
        then(layer("Conv2D", 18, 3, padding="same"), shuffle((0, 1, 3, 2, 4, 5), 3)),
        "static",
    ),
    _shuffled("patch_expand", (2, 2), patch_expand, "batch", inputs=TOKENS, fixed=(1,)),
    _shuffled("unpatchify", (2, 2), unpatchify, "static", "batch", inputs=TOKENS, fixed=(1,)),
    _negative(
        "up2d_bilinear",
        up2d(2, 2, interpolation="bilinear"),
        "static",
        "batch",
        expect="interpolating-resize",
    ),
    _negative(
        "up2d_strided", then(up, layer("Conv2D", 4, 3, 2, "same")), "static", expect="strided-conv"
    ),
    _negative("up2d_pool", then(up, layer("MaxPooling2D", 2)), "static", expect=None),
    _negative(
        "image_resize_uneven",
        then(lambda k, x: k.ops.image.resize(x, (5, 6), interpolation="nearest"), conv),
        "static",
        expect="non-integer-scale",
    ),
    _negative("runtime_weight", runtime_weight, "static", expect="runtime-weight"),
    _negative(
        "space_to_depth",
        then(
            lambda k, x: k.ops.transpose(k.ops.reshape(x, (-1, 2, 2, 2, 2, 3)), (0, 1, 3, 2, 4, 5)),
            lambda k, x: k.ops.reshape(x, (-1, 2, 2, 12)),
            layer("Conv2D", 4, 3, padding="same"),
        ),
        "static",
        inputs=((2, 4, 4, 3),),
        expect=None,
    ),
    _negative(
        "attention_heads",
        lambda k, x: k.ops.transpose(
            k.ops.reshape(k.layers.Dense(8)(x), (-1, 12, 2, 4)), (0, 2, 1, 3)
        ),
        "static",
        "batch",
        inputs=TOKENS,
        fixed=(1,),
        expect=None,
    ),
)

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    run("keras", CASES, export)
