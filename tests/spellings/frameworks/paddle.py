"""Paddle layers, exported by paddle2onnx."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from tests.spellings.frameworks.case import Case, Exported, Network, Sizes, run, weights

IMAGE = (2, 3, 3, 4)
LINE = (2, 3, 5)
VOLUME = (1, 2, 2, 3, 3)
OPSET = 17
Body = Callable[[Any], Callable[..., Any]]
"""A network: Paddle in, the function of its tensors out, with its layers made."""


def network(body: Body, inputs: int) -> Callable[[], Network]:
    """A builder of the Paddle layer."""

    def build() -> Network:
        import paddle

        function = body(paddle)

        class Net(paddle.nn.Layer):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.parts = paddle.nn.LayerList(_layers(paddle, function))

            def forward(self, x: Any) -> Any:
                return function(x)

        class NetOfTwo(Net):
            def forward(self, x: Any, second: Any) -> Any:
                return function(x, second)

        net = (Net, NetOfTwo)[inputs - 1]()
        net.eval()
        for layer in net.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                c = layer.weight.shape[0]
                layer.weight.set_value(abs(weights(c)) + 1)
                layer.bias.set_value(weights(c, start=3))
                layer._mean.set_value(weights(c, start=1))
                layer._variance.set_value(weights(c) * 0 + 4)
            else:
                for index, parameter in enumerate(layer.parameters(include_sublayers=False)):
                    parameter.set_value(weights(*parameter.shape, start=index))
        return net

    return build


def _layers(paddle: Any, function: Any) -> list[Any]:
    """The layers that the function and those inside it close over."""
    if isinstance(function, paddle.nn.Layer):
        return [function]
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    found: list[Any] = []
    for value in cells:
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if callable(item):
                found += _layers(paddle, item)
    return found


def export(case: Case, sizes: Sizes) -> Exported:
    """The model as paddle2onnx writes it, and what Paddle computes."""
    import paddle

    net = case.build()
    spec = [
        paddle.static.InputSpec(
            [
                None if axis in case.dynamic_axes(shape, sizes) else size
                for axis, size in enumerate(shape)
            ],
            "float32",
            name,
        )
        for shape, name in zip(case.inputs, ("x", "second"), strict=False)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        paddle.onnx.export(net, str(path), input_spec=spec, opset_version=case.opset or OPSET)
        model = onnx.load(path.with_suffix(".onnx"))

    def compute(*inputs: Any) -> Any:
        return net(*map(paddle.to_tensor, inputs)).numpy()

    return Exported(model, compute)


def layer(name: str, *arguments: Any, **more: Any) -> Body:
    """One layer of ``paddle.nn``."""
    return lambda paddle: getattr(paddle.nn, name)(*arguments, **more)


def then(*bodies: Body) -> Body:
    """One after the other."""

    def body(paddle: Any) -> Callable[..., Any]:
        steps = [made(paddle) for made in bodies]

        def forward(x: Any) -> Any:
            for step in steps:
                x = step(x)
            return x

        return forward

    return body


def interpolate(**more: Any) -> Body:
    return lambda paddle: lambda x: paddle.nn.functional.interpolate(x, **more)


def interpolate_to_shape(paddle: Any) -> Callable[..., Any]:
    """PP-OCR's neck: to the computed sizes."""
    return lambda x: paddle.nn.functional.interpolate(
        x, size=[paddle.shape(x)[2] * 2, paddle.shape(x)[3] * 2], mode="nearest"
    )


def _sizes(paddle: Any, x: Any) -> list[Any]:
    """Each size: a number where it is known, else computed."""
    computed = paddle.shape(x)
    return [computed[axis] if size < 0 else size for axis, size in enumerate(x.shape)]


def repeat_interleave(paddle: Any) -> Callable[..., Any]:
    return lambda x: paddle.repeat_interleave(paddle.repeat_interleave(x, 2, axis=2), 2, axis=3)


def tile(paddle: Any) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        n, c, h, w = _sizes(paddle, x)
        y = paddle.tile(x.reshape([n, c, h, 1, w, 1]), [1, 1, 1, 2, 1, 2])
        return y.reshape([n, c, 2 * h, 2 * w])

    return forward


def expand(paddle: Any) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        n, c, h, w = _sizes(paddle, x)
        y = x.reshape([n, c, h, 1, w, 1]).expand([n, c, h, 2, w, 2])
        return y.reshape([n, c, 2 * h, 2 * w])

    return forward


def stack(paddle: Any) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        n, c, h, w = _sizes(paddle, x)
        x = paddle.stack([x, x], axis=4).reshape([n, c, h, 2 * w])
        return paddle.stack([x, x], axis=3).reshape([n, c, 2 * h, 2 * w])

    return forward


def concat_columns(paddle: Any) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        columns = paddle.split(x, 4, axis=3)
        x = paddle.concat([column for column in columns for _ in range(2)], axis=3)
        rows = paddle.split(x, 3, axis=2)
        return paddle.concat([row for row in rows for _ in range(2)], axis=2)

    return forward


def shuffle(*order: int) -> Body:
    def body(paddle: Any) -> Callable[..., Any]:
        def forward(x: Any) -> Any:
            n, c, h, w = _sizes(paddle, x)
            parts = [n, c // 4, 2, 2, h, w] if order[1] == 1 else [n, 2, 2, c // 4, h, w]
            y = x.reshape(parts).transpose(list(order))
            return y.reshape([n, c // 4, 2 * h, 2 * w])

        return forward

    return body


def shuffle_last(paddle: Any) -> Callable[..., Any]:
    """In channels-last order, as Swin's blocks hold their images."""

    def forward(x: Any) -> Any:
        y = x.transpose([0, 2, 3, 1]).reshape([-1, 3, 4, 2, 2, 4])
        y = y.transpose([0, 1, 3, 2, 4, 5]).reshape([-1, 6, 8, 4])
        return y.transpose([0, 3, 1, 2])

    return forward


def patch_expand(paddle: Any) -> Callable[..., Any]:
    linear = paddle.nn.Linear(3, 8, bias_attr=False)

    def forward(x: Any) -> Any:
        y = linear(x).reshape([-1, 3, 4, 2, 2, 2]).transpose([0, 1, 3, 2, 4, 5])
        return y.reshape([-1, 48, 2])

    return forward


def unpatchify(paddle: Any) -> Callable[..., Any]:
    linear = paddle.nn.Linear(3, 12)

    def forward(x: Any) -> Any:
        y = linear(x).reshape([-1, 3, 4, 2, 2, 3]).transpose([0, 5, 1, 3, 2, 4])
        return y.reshape([-1, 3, 6, 8])

    return forward


def reshape(*shape: int) -> Body:
    return lambda paddle: lambda x: x.reshape(list(shape))


def residual(paddle: Any) -> Callable[..., Any]:
    conv1, conv2 = (paddle.nn.Conv2D(3, channels, 3, padding=1) for channels in (3, 4))

    def forward(x: Any) -> Any:
        x = x + conv1(paddle.nn.functional.relu(x))
        return conv2(paddle.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))

    return forward


def top_down(paddle: Any) -> Callable[..., Any]:
    """FPN's: the upsampled map plus the finer one, then a Conv; nothing to merge."""
    conv = paddle.nn.Conv2D(3, 4, 3, padding=1)

    def forward(x: Any, second: Any) -> Any:
        up = paddle.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return conv(up + second)

    return forward


def segmentation_head(paddle: Any) -> Callable[..., Any]:
    """PP-OCR's head for text detection, smaller."""
    nn = paddle.nn
    steps = [
        nn.Conv2D(3, 4, 3, padding=1, bias_attr=False),
        nn.BatchNorm2D(4, epsilon=0.0),
        nn.ReLU(),
        nn.Conv2DTranspose(4, 4, 2, stride=2),
        nn.BatchNorm2D(4, epsilon=0.0),
        nn.ReLU(),
        nn.Conv2DTranspose(4, 1, 2, stride=2),
    ]

    def forward(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return forward


def pyramid(paddle: Any) -> Callable[..., Any]:
    """A feature pyramid's path: upsampled by 2 and by 4, one Conv each, summed."""
    first, second = (paddle.nn.Conv2D(3, 4, 3, padding=1) for _ in range(2))

    def forward(x: Any) -> Any:
        up = paddle.nn.functional.interpolate
        pooled = paddle.nn.functional.max_pool2d(x, 2)
        return first(up(x, scale_factor=2.0, mode="nearest")) + second(
            up(pooled, scale_factor=4.0, mode="nearest")
        )

    return forward


def gather_nd(paddle: Any) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        rows = paddle.to_tensor([0, 0, 1, 1, 2, 2])
        columns = paddle.to_tensor([0, 0, 1, 1, 2, 2, 3, 3])
        return paddle.index_select(paddle.index_select(x, rows, axis=2), columns, axis=3)

    return forward


def zeros_by_pad(paddle: Any) -> Callable[..., Any]:
    """StyleGAN2's upfirdn."""

    def forward(x: Any) -> Any:
        n, c, h, w = x.shape
        y = paddle.nn.functional.pad(x.reshape([n * c, h, w, 1, 1]), [0, 1, 0, 1, 0, 0])
        return y.transpose([0, 1, 3, 2, 4]).reshape([n, c, 2 * h, 2 * w])

    return forward


def zeros_by_stack(paddle: Any) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        n, c, h, w = _sizes(paddle, x)
        x = paddle.stack([x, paddle.zeros_like(x)], axis=4).reshape([n, c, h, 2 * w])
        return paddle.stack([x, paddle.zeros_like(x)], axis=3).reshape([n, c, 2 * h, 2 * w])

    return forward


def channels_last(body: Body) -> Body:
    """The same between two transposes of the image."""

    def made(paddle: Any) -> Callable[..., Any]:
        inner = body(paddle)
        return lambda x: inner(x.transpose([0, 3, 1, 2])).transpose([0, 2, 3, 1])

    return made


def runtime_weight(paddle: Any) -> Callable[..., Any]:
    return lambda x, second: paddle.nn.functional.conv2d_transpose(x, second, stride=2)


def channel_shuffle(paddle: Any) -> Callable[..., Any]:
    conv = paddle.nn.Conv2D(3, 8, 3, padding=1)
    return lambda x: (
        conv(x).reshape([2, 2, 4, 3, 4]).transpose([0, 2, 1, 3, 4]).reshape([2, 8, 3, 4])
    )


def swapped(paddle: Any) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        n, c, h, w = _sizes(paddle, x)
        y = x.reshape([n, c // 4, 2, 2, h, w]).transpose([0, 1, 2, 4, 3, 5])
        return y.reshape([n, c // 4, 2 * h, 2 * w])

    return forward


def interleaved(paddle: Any) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        n, c, h, w = _sizes(paddle, x)
        return paddle.stack([x, -x], axis=3).reshape([n, c, 2 * h, w])

    return forward


def ones_between(paddle: Any) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        n, c, h, w = _sizes(paddle, x)
        return paddle.stack([x, paddle.ones_like(x)], axis=3).reshape([n, c, 2 * h, w])

    return forward


def tiled_image(paddle: Any) -> Callable[..., Any]:
    """The whole image twice beside itself, not each pixel."""
    return lambda x: paddle.tile(x, [1, 1, 2, 2])


def _case(name: str, family: Any, stride: Any, body: Body, *sizes: Sizes, **more: Any) -> Case:
    inputs = more.pop("inputs", (IMAGE,))
    last = more.pop("channels_last", False)
    made = sizes or ("dynamic",)
    return Case(
        name, family, stride, inputs, network(body, len(inputs)), made, channels_last=last, **more
    )


def _transposed(name: str, stride: Any, body: Body, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "conv_transpose", stride, body, *sizes, **more)


def _nearest(name: str, body: Body, *sizes: Sizes, **more: Any) -> Case:
    stride = more.pop("stride", (2, 2))
    return _case(name, "nearest_resize", stride, body, *sizes, **more)


def _shuffled(name: str, stride: Any, body: Body, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "pixel_shuffle", stride, body, *sizes, expect="final", **more)


def _negative(name: str, body: Body, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "negative", None, body, *sizes, **more)


TOKENS: dict[str, Any] = {"inputs": ((2, 12, 3),), "channels_last": True, "fixed": (1,)}
FINE = (2, 3, 6, 8)
conv = layer("Conv2D", 3, 4, 3, padding=1)
conv4 = layer("Conv2D", 4, 4, 3, padding=1)
conv16 = layer("Conv2D", 3, 16, 3, padding=1)
norm = layer("BatchNorm2D", 4, epsilon=0.0)
relu = layer("ReLU")
nearest = interpolate(scale_factor=2.0, mode="nearest")


def transpose2d(*arguments: Any, **more: Any) -> Body:
    return layer("Conv2DTranspose", 3, *arguments, **more)


CASES = (
    _transposed("transpose2d_k3", (2, 2), transpose2d(4, 3, 2, 1, 1), "static", "batch", "dynamic"),
    _transposed("transpose2d_k4", (2, 2), transpose2d(4, 4, 2, 1), "dynamic"),
    _transposed(
        "transpose2d_k2",
        (2, 2),
        then(transpose2d(4, 2, 2), norm, relu, layer("Conv2DTranspose", 4, 1, 2, 2)),
        "dynamic",
        layers=2,
    ),
    _transposed("transpose2d_groups", (2, 2), transpose2d(6, 3, 2, 1, 1, groups=3), "dynamic"),
    _transposed("transpose2d_dilated", (2, 2), transpose2d(4, 3, 2, 1, dilation=2), "static"),
    _transposed("transpose2d_no_bias", (2, 2), transpose2d(4, 4, 2, 1, bias_attr=False), "static"),
    _transposed("transpose2d_2x3", (2, 3), transpose2d(4, (4, 3), (2, 3)), "static"),
    _transposed("transpose2d_opset11", (2, 2), transpose2d(4, 3, 2, 1, 1), "dynamic", opset=11),
    _transposed(
        "transpose1d",
        (2,),
        layer("Conv1DTranspose", 3, 4, 4, 2, 1),
        "dynamic",
        inputs=(LINE,),
    ),
    _transposed(
        "transpose3d",
        (2, 2, 2),
        layer("Conv3DTranspose", 2, 2, 3, 2, 1, 1),
        "dynamic",
        inputs=(VOLUME,),
    ),
    _transposed(
        "dcgan",
        (2, 2),
        then(
            layer("Linear", 5, 12),
            reshape(-1, 3, 2, 2),
            transpose2d(4, 4, 2, 1),
            norm,
            layer("LeakyReLU", 0.25),
        ),
        "batch",
        inputs=((2, 5),),
        channels_last=True,
    ),
    _nearest("interpolate", then(nearest, conv), "static", "batch", "dynamic"),
    _nearest("interpolate_opset11", then(nearest, conv), "dynamic", opset=11),
    _nearest("interpolate_size", then(interpolate(size=[6, 8], mode="nearest"), conv), "static"),
    _nearest("interpolate_shape", then(interpolate_to_shape, conv), "static", "dynamic"),
    _nearest(
        "interpolate_corners",
        then(
            interpolate(scale_factor=2.0, mode="nearest", align_corners=False, align_mode=1), conv
        ),
        "dynamic",
    ),
    _nearest(
        "interpolate_3d",
        then(
            interpolate(scale_factor=2.0, mode="nearest", data_format="NCDHW"),
            layer("Conv3D", 2, 2, 3, padding=1),
        ),
        "dynamic",
        inputs=(VOLUME,),
        stride=(2, 2, 2),
    ),
    _nearest(
        "interpolate_2x3",
        then(interpolate(scale_factor=[2.0, 3.0], mode="nearest"), conv),
        "dynamic",
        stride=(2, 3),
    ),
    _nearest(
        "upsample",
        then(layer("Upsample", scale_factor=2.0, mode="nearest"), conv),
        "dynamic",
    ),
    _nearest(
        "upsampling_nearest2d",
        then(layer("UpsamplingNearest2D", scale_factor=2.0), conv),
        "dynamic",
    ),
    _nearest("upsample_relu", then(conv, nearest, relu, conv4), "dynamic"),
    _nearest("upsample_batchnorm_relu", then(conv, nearest, norm, relu, conv4), "dynamic"),
    _nearest(
        "upsample_twice",
        then(interpolate_to_shape, conv, relu, interpolate_to_shape, conv4),
        "static",
        "dynamic",
        layers=2,
    ),
    _nearest(
        "upsample_zero_padding",
        then(nearest, layer("ZeroPad2D", 1), layer("Conv2D", 3, 4, 3)),
        "static",
    ),
    _nearest(
        "upsample_depthwise", then(nearest, layer("Conv2D", 3, 3, 3, padding=1, groups=3)), "static"
    ),
    _nearest(
        "behind_linear",
        then(layer("Linear", 5, 12), reshape(-1, 3, 2, 2), nearest, conv),
        "batch",
        inputs=((2, 5),),
        channels_last=True,
    ),
    _nearest("repeat_interleave", then(repeat_interleave, conv), "static"),
    _nearest("tile", then(tile, conv), "static", "dynamic"),
    _nearest("expand", then(expand, conv), "dynamic"),
    _nearest("stack", then(stack, conv), "dynamic"),
    _nearest("concat_columns", then(concat_columns, conv), "static", "batch"),
    _transposed("segmentation_head", (2, 2), segmentation_head, "dynamic", layers=2),
    _transposed(
        "transpose2d_channels_last",
        (2, 2),
        channels_last(transpose2d(4, 4, 2, 1)),
        "dynamic",
        inputs=((2, 3, 4, 3),),
        channels_last=True,
    ),
    _transposed("transpose2d_opset13", (2, 2), transpose2d(4, 3, 2, 1, 1), "dynamic", opset=13),
    _transposed("transpose2d_depthwise", (2, 2), transpose2d(3, 4, 2, 1, groups=3), "dynamic"),
    _nearest("pyramid", pyramid, "dynamic", inputs=((2, 3, 4, 6),), layers=2),
    _nearest(
        "interpolate_channels_last",
        channels_last(then(nearest, conv)),
        "dynamic",
        inputs=((2, 3, 4, 3),),
        channels_last=True,
    ),
    _nearest("interpolate_leaky", then(nearest, layer("LeakyReLU", 0.25), conv), "dynamic"),
    _nearest("interpolate_prelu", then(nearest, layer("PReLU", 3), conv), "static"),
    _nearest("interpolate_hardswish", then(nearest, layer("ReLU6"), conv), "dynamic"),
    _nearest("interpolate_1x1", then(nearest, layer("Conv2D", 3, 4, 1)), "dynamic"),
    _nearest(
        "interpolate_dilated",
        then(nearest, layer("Conv2D", 3, 4, 3, padding=2, dilation=2)),
        "static",
    ),
    _nearest("interpolate_by_4", then(nearest, nearest, conv), "dynamic", stride=(4, 4)),
    _nearest("index_select", then(gather_nd, conv), "batch", fixed=(2, 3)),
    _case("zeros_by_pad", "zero_insertion", (2, 2), then(zeros_by_pad, conv), "static"),
    _case("zeros_by_stack", "zero_insertion", (2, 2), then(zeros_by_stack, conv), "dynamic"),
    _nearest("residual", residual, "dynamic"),
    _shuffled("pixel_shuffle", (2, 2), then(conv16, layer("PixelShuffle", 2)), "dynamic"),
    _shuffled(
        "pixel_shuffle_3",
        (3, 3),
        then(layer("Conv2D", 3, 18, 3, padding=1), relu, layer("PixelShuffle", 3)),
        "static",
    ),
    _shuffled("shuffle_crd", (2, 2), then(conv16, shuffle(0, 1, 4, 2, 5, 3)), "static", "dynamic"),
    _shuffled("shuffle_dcr", (2, 2), then(conv16, shuffle(0, 3, 4, 1, 5, 2)), "dynamic"),
    _shuffled("shuffle_last", (2, 2), then(conv16, shuffle_last), "static", "batch", fixed=(2, 3)),
    _shuffled("patch_expand", (2, 2), patch_expand, "batch", **TOKENS),
    _shuffled("unpatchify", (2, 2), unpatchify, "static", "batch", **TOKENS),
    _negative(
        "bilinear",
        then(interpolate(scale_factor=2.0, mode="bilinear"), conv),
        "static",
        "dynamic",
        expect="interpolating-resize",
    ),
    _negative(
        "bicubic",
        then(interpolate(scale_factor=2.0, mode="bicubic"), conv),
        "static",
        expect="interpolating-resize",
    ),
    _negative(
        "uneven",
        then(interpolate(scale_factor=1.5, mode="nearest"), conv),
        "static",
        expect="non-integer-scale",
        inputs=((1, 3, 4, 6),),
    ),
    _negative(
        "strided", then(nearest, layer("Conv2D", 3, 4, 3, 2, 1)), "static", expect="strided-conv"
    ),
    _negative(
        "reflect_padding",
        then(nearest, layer("Pad2D", 2, "reflect"), layer("Conv2D", 3, 4, 3)),
        "static",
        expect="non-zero-padding",
    ),
    _negative("top_down", top_down, "static", inputs=(IMAGE, FINE), expect="no-conv"),
    _negative(
        "runtime_weight",
        runtime_weight,
        "static",
        inputs=(IMAGE, (3, 4, 2, 2)),
        expect="runtime-weight",
    ),
    _negative("channel_shuffle", channel_shuffle, "static", expect=None),
    _negative("swapped", then(conv16, swapped), "static", expect=None),
    _negative("ones_between", then(ones_between, conv), "static", expect=None),
    _negative("tiled_image", then(tiled_image, conv), "static", expect=None),
    _negative("interleaved", then(interleaved, conv), "static", expect=None),
)

if __name__ == "__main__":
    run("paddle", CASES, export)
