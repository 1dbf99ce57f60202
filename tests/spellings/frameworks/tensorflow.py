"""TensorFlow functions, exported by ``tf2onnx.convert.from_function``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.spellings.frameworks.case import Case, Exported, Network, Sizes, run, weights

IMAGE = (2, 3, 4, 3)
LINE = (2, 5, 3)
VOLUME = (1, 2, 3, 3, 2)
OPSET = 18
Body = Callable[..., Any]
"""A network: TensorFlow and the input tensors in, the output tensor out."""


def network(body: Body) -> Callable[[], Network]:
    """A builder of the TensorFlow function."""

    def build() -> Network:
        import tensorflow as tf

        return lambda *inputs: body(tf, *inputs)

    return build


def export(case: Case, sizes: Sizes) -> Exported:
    """The model as tf2onnx writes it, and what TensorFlow computes."""
    import tensorflow as tf
    import tf2onnx

    names = ["x", "second"]
    function = tf.function(
        case.build(),
        input_signature=[
            tf.TensorSpec(
                [
                    None if axis in case.dynamic_axes(shape, sizes) else size
                    for axis, size in enumerate(shape)
                ],
                tf.float32,
                name=name,
            )
            for shape, name in zip(case.inputs, names, strict=False)
        ],
    )
    model, _ = tf2onnx.convert.from_function(
        function, input_signature=function.input_signature, opset=case.opset or OPSET
    )
    return Exported(model, lambda *inputs: function(*inputs).numpy())


def size(tf: Any, x: Any, *factors: int) -> list[Any]:
    """Spatial sizes of a channels-last image, enlarged."""
    return [tf.shape(x)[axis + 1] * factor for axis, factor in enumerate(factors)]


def transpose2d(kernel: int, stride: int, padding: str, extra: int = 0, dilations: int = 1) -> Body:
    def body(tf: Any, x: Any) -> Any:
        w = tf.constant(weights(kernel, kernel, 4, 3))
        h, v = size(tf, x, stride, stride)
        shape = [tf.shape(x)[0], h + extra, v + extra, 4]
        return tf.nn.conv2d_transpose(x, w, shape, stride, padding=padding, dilations=dilations)

    return body


def transpose1d(tf: Any, x: Any) -> Any:
    w = tf.constant(weights(4, 4, 3))
    return tf.nn.conv1d_transpose(x, w, [tf.shape(x)[0], tf.shape(x)[1] * 2, 4], 2, "SAME")


def transpose3d(tf: Any, x: Any) -> Any:
    w = tf.constant(weights(3, 3, 3, 2, 2))
    shape = [tf.shape(x)[0], *size(tf, x, 2, 2, 2), 2]
    return tf.nn.conv3d_transpose(x, w, shape, 2, "SAME")


def bias(tf: Any, x: Any) -> Any:
    return tf.nn.bias_add(x, tf.constant(weights(x.shape[-1], start=2)))


def relu(tf: Any, x: Any) -> Any:
    return tf.nn.relu(x)


def batchnorm(tf: Any, x: Any) -> Any:
    c = x.shape[-1]
    scale, offset = abs(weights(c)) + 1, weights(c, start=3)
    mean, variance = weights(c, start=1), weights(c) * 0 + 4
    y, *_ = tf.compat.v1.nn.fused_batch_norm(
        x, scale, offset, mean, variance, epsilon=0.0, is_training=False
    )
    return y


def scale_channels(tf: Any, x: Any) -> Any:
    c = x.shape[-1]
    return x * tf.constant(weights(c, start=1)) + tf.constant(weights(c, start=4))


def conv(channels: int = 4, kernel: int = 3, padding: Any = "SAME", stride: int = 1) -> Body:
    def body(tf: Any, x: Any) -> Any:
        w = tf.constant(weights(kernel, kernel, x.shape[-1], channels))
        return bias(tf, tf.nn.conv2d(x, w, stride, padding))

    return body


def conv1d(tf: Any, x: Any) -> Any:
    return bias(tf, tf.nn.conv1d(x, tf.constant(weights(3, x.shape[-1], 4)), 1, "SAME"))


def conv3d(tf: Any, x: Any) -> Any:
    w = tf.constant(weights(3, 3, 3, x.shape[-1], 2))
    return bias(tf, tf.nn.conv3d(x, w, [1] * 5, "SAME"))


def then(*bodies: Body) -> Body:
    """One after the other."""

    def body(tf: Any, *inputs: Any) -> Any:
        (x,) = inputs
        for step in bodies:
            x = step(tf, x)
        return x

    return body


def resize(method: str, *factors: float) -> Body:
    """By sizes that are numbers where the image's are, else computed."""

    def body(tf: Any, x: Any) -> Any:
        sizes = [
            int(known * f) if known else tf.cast(tf.cast(at, tf.float32) * f, tf.int32)
            for known, at, f in zip(
                x.shape[1:3], tf.unstack(tf.shape(x)[1:3]), factors, strict=True
            )
        ]
        return tf.image.resize(x, sizes, method)

    return body


def resize_by_shape(tf: Any, x: Any) -> Any:
    return tf.image.resize(x, tf.shape(x)[1:3] * 2, "nearest")


def resize_v1(tf: Any, x: Any) -> Any:
    """As TensorFlow 1 did: no half-pixel centres."""
    return tf.compat.v1.image.resize_nearest_neighbor(x, size(tf, x, 2, 2))


def resize_corners(factor: int) -> Body:
    """Every pixel twice by a factor of 2; by 3, the middle ones more often than the outer ones."""
    return lambda tf, x: tf.compat.v1.image.resize_nearest_neighbor(
        x, size(tf, x, factor, factor), align_corners=True
    )


def repeat(tf: Any, x: Any) -> Any:
    return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)


def repeat1d(tf: Any, x: Any) -> Any:
    return tf.repeat(x, 2, axis=1)


def tile(tf: Any, x: Any) -> Any:
    n, h, w, c = *tf.unstack(tf.shape(x)[:3]), x.shape[3]
    y = tf.tile(tf.reshape(x, [n, h, 1, w, 1, c]), [1, 1, 2, 1, 2, 1])
    return tf.reshape(y, [n, 2 * h, 2 * w, c])


def broadcast(tf: Any, x: Any) -> Any:
    n, h, w, c = *tf.unstack(tf.shape(x)[:3]), x.shape[3]
    y = tf.broadcast_to(tf.reshape(x, [n, h, 1, w, 1, c]), [n, h, 2, w, 2, c])
    return tf.reshape(y, [n, 2 * h, 2 * w, c])


def times_ones(tf: Any, x: Any) -> Any:
    n, h, w, c = *tf.unstack(tf.shape(x)[:3]), x.shape[3]
    y = tf.reshape(x, [n, h, 1, w, 1, c]) * tf.ones([1, 1, 2, 1, 2, 1])
    return tf.reshape(y, [n, 2 * h, 2 * w, c])


def stack(tf: Any, x: Any) -> Any:
    n, h, w, c = *tf.unstack(tf.shape(x)[:3]), x.shape[3]
    x = tf.reshape(tf.stack([x, x], axis=3), [n, h, 2 * w, c])
    return tf.reshape(tf.stack([x, x], axis=2), [n, 2 * h, 2 * w, c])


def concat(tf: Any, x: Any) -> Any:
    """The channels twice, then their blocks to space: progressive GAN's."""
    return tf.nn.depth_to_space(tf.concat([x] * 4, axis=3), 2)


def gather(tf: Any, x: Any) -> Any:
    x = tf.gather(x, tf.range(tf.shape(x)[1] * 2) // 2, axis=1)
    return tf.gather(x, tf.range(tf.shape(x)[2] * 2) // 2, axis=2)


def zeros_by_pad(tf: Any, x: Any) -> Any:
    """StyleGAN2's upfirdn in TensorFlow."""
    n, h, w, c = *tf.unstack(tf.shape(x)[:3]), x.shape[3]
    y = tf.pad(tf.reshape(x, [n, h, 1, w, 1, c]), [[0, 0], [0, 0], [0, 1], [0, 0], [0, 1], [0, 0]])
    return tf.reshape(y, [n, 2 * h, 2 * w, c])


def zeros_by_stack(tf: Any, x: Any) -> Any:
    n, h, w, c = *tf.unstack(tf.shape(x)[:3]), x.shape[3]
    x = tf.reshape(tf.stack([x, tf.zeros_like(x)], axis=3), [n, h, 2 * w, c])
    return tf.reshape(tf.stack([x, tf.zeros_like(x)], axis=2), [n, 2 * h, 2 * w, c])


def zeros_by_mask(tf: Any, x: Any) -> Any:
    mask = tf.constant([1.0, 0, 0, 0], shape=[1, 1, 2, 1, 2, 1])
    n, h, w, c = *tf.unstack(tf.shape(x)[:3]), x.shape[3]
    return tf.reshape(tf.reshape(x, [n, h, 1, w, 1, c]) * mask, [n, 2 * h, 2 * w, c])


def depth_to_space(factor: int) -> Body:
    return lambda tf, x: tf.nn.depth_to_space(x, factor)


def shuffle(*order: int) -> Body:
    """Pixel shuffle by 2 of a channels-last image; ``order`` is that of the transpose."""

    def body(tf: Any, x: Any) -> Any:
        n, h, w = tf.unstack(tf.shape(x)[:3])
        c = x.shape[3] // 4
        parts = [2, 2, c] if order[-1] == 5 else [c, 2, 2]
        y = tf.transpose(tf.reshape(x, [n, h, w, *parts]), order)
        return tf.reshape(y, [n, 2 * h, 2 * w, c])

    return body


def shuffle_split(tf: Any, x: Any) -> Any:
    """ESPCN's phase shift: split, reshape and concatenate, one axis after the other."""
    n, h, w = tf.unstack(tf.shape(x)[:3])
    c = x.shape[3] // 4
    y = tf.transpose(tf.reshape(x, [n, h, w * 2, 2 * c]), [0, 2, 1, 3])
    y = tf.reshape(y, [n, w * 2, h * 2, c])
    return tf.transpose(y, [0, 2, 1, 3])


def batch_to_space(tf: Any, x: Any) -> Any:
    """The four phases as a batch, interleaved."""
    phases = tf.concat([conv(3)(tf, x), x, x * 2.0, x - 1.0], axis=0)
    return tf.batch_to_space(phases, [2, 2], [[0, 0], [0, 0]])


def patch_expand(tf: Any, x: Any) -> Any:
    """Swin-UNet's in TensorFlow: tokens, a MatMul, depth_to_space."""
    y = tf.matmul(x, tf.constant(weights(3, 8)))
    y = tf.nn.depth_to_space(tf.reshape(y, [-1, 3, 4, 8]), 2)
    return tf.reshape(y, [-1, 48, 2])


def unpatchify(tf: Any, x: Any) -> Any:
    y = bias(tf, tf.matmul(x, tf.constant(weights(3, 12))))
    y = tf.einsum("nhwpqc->nhpwqc", tf.reshape(y, [-1, 3, 4, 2, 2, 3]))
    return tf.reshape(y, [-1, 6, 8, 3])


def dcgan(tf: Any, x: Any) -> Any:
    y = tf.nn.leaky_relu(tf.matmul(x, tf.constant(weights(5, 12))), 0.25)
    y = tf.reshape(y, [-1, 2, 2, 3])
    return tf.nn.leaky_relu(batchnorm(tf, transpose2d(4, 2, "SAME")(tf, y)), 0.25)


def residual(tf: Any, x: Any) -> Any:
    return conv()(tf, resize_by_shape(tf, x + conv(3)(tf, relu(tf, x))))


def reflect(tf: Any, x: Any) -> Any:
    """By as much as the factor: a copy of other pixels than the nearest."""
    return tf.pad(x, [[0, 0], [2, 2], [2, 2], [0, 0]], "REFLECT")


def depthwise(tf: Any, x: Any) -> Any:
    w = tf.constant(weights(3, 3, 3, 1))
    return tf.nn.depthwise_conv2d(x, w, [1, 1, 1, 1], "SAME")


def skip(tf: Any, x: Any, second: Any) -> Any:
    """A ConvTranspose and a skip connection: U-Net's."""
    y = transpose2d(2, 2, "VALID")(tf, x)
    return conv()(tf, tf.concat([y, second], axis=3))


def runtime_weight(tf: Any, x: Any, second: Any) -> Any:
    shape = [tf.shape(x)[0], *size(tf, x, 2, 2), 4]
    return tf.nn.conv2d_transpose(x, second, shape, 2, "SAME")


def runtime_weight_resized(tf: Any, x: Any, second: Any) -> Any:
    return tf.nn.conv2d(resize_by_shape(tf, x), second, 1, "SAME")


def cropped(tf: Any, x: Any) -> Any:
    """FCN's: a large ConvTranspose, cut to twice the size."""
    h, w = size(tf, x, 2, 2)
    return transpose2d(4, 2, "VALID", extra=2)(tf, x)[:, 1 : h + 1, 1 : w + 1, :]


def unet(tf: Any, x: Any) -> Any:
    """Upsampled to the size of the finer image, and added to it."""
    fine = conv()(tf, x)
    coarse = conv()(tf, tf.nn.max_pool2d(fine, 2, 2, "VALID"))
    return conv()(tf, tf.image.resize(coarse, tf.shape(fine)[1:3], "nearest")) + fine


def zeros_by_scatter(tf: Any, x: Any) -> Any:
    """Max unpooling with fixed positions: rows, then columns, of an image of zeros."""
    n, h, w, c = x.shape
    x = tf.transpose(x, [1, 0, 2, 3])
    x = tf.scatter_nd(tf.range(h)[:, None] * 2, x, [2 * h, n, w, c])
    x = tf.scatter_nd(tf.range(w)[:, None] * 2, tf.transpose(x, [2, 1, 0, 3]), [2 * w, n, 2 * h, c])
    return tf.transpose(x, [1, 2, 0, 3])


def einsum_shuffle(tf: Any, x: Any) -> Any:
    n, h, w = tf.unstack(tf.shape(x)[:3])
    c = x.shape[3] // 4
    y = tf.einsum("nhwpqc->nhpwqc", tf.reshape(x, [n, h, w, 2, 2, c]))
    return tf.reshape(y, [n, 2 * h, 2 * w, c])


def image_from_rows(tf: Any, x: Any) -> Any:
    """Rows by concatenation: [h, 2w] of two half images, as older ports of pixel shuffle do."""
    halves = tf.split(x, 2, axis=3)
    n, h, w = tf.unstack(tf.shape(x)[:3])
    c = x.shape[3] // 4
    rows = [tf.reshape(half, [n, h, w * 2, c]) for half in halves]
    return tf.reshape(tf.stack(rows, axis=2), [n, 2 * h, 2 * w, c])


def space_to_depth(tf: Any, x: Any) -> Any:
    return conv()(tf, tf.nn.space_to_depth(x, 2))


def window_partition(tf: Any, x: Any) -> Any:
    y = tf.transpose(tf.reshape(conv()(tf, x), [-1, 2, 2, 2, 2, 4]), [0, 1, 3, 2, 4, 5])
    return tf.reshape(y, [-1, 4, 4])


def swapped(tf: Any, x: Any) -> Any:
    """Not a shuffle: the blocks' columns and rows change places."""
    n, h, w = tf.unstack(tf.shape(x)[:3])
    y = tf.transpose(tf.reshape(conv(16)(tf, x), [n, h, w, 2, 2, 4]), [0, 3, 1, 4, 2, 5])
    return tf.reshape(y, [n, 2 * h, 2 * w, 4])


def reversed_copies(tf: Any, x: Any) -> Any:
    """Copies of which every second row is mirrored."""
    n, h, w, c = *tf.unstack(tf.shape(x)[:3]), x.shape[3]
    y = tf.stack([x, tf.reverse(x, [2])], axis=2)
    return conv()(tf, tf.reshape(y, [n, 2 * h, w, c]))


def tiled_image(tf: Any, x: Any) -> Any:
    """The whole image twice beside itself, not each pixel."""
    return conv()(tf, tf.tile(x, [1, 2, 2, 1]))


def ones_between(tf: Any, x: Any) -> Any:
    n, h, w, c = *tf.unstack(tf.shape(x)[:3]), x.shape[3]
    y = tf.reshape(x, [n, h, 1, w, c])
    y = tf.pad(y, [[0, 0], [0, 0], [0, 1], [0, 0], [0, 0]], constant_values=1.0)
    return tf.reshape(y, [n, 2 * h, w, c])


def two_images(tf: Any, x: Any, second: Any) -> Any:
    """The rows of two images in turn."""
    n, h, w, c = x.shape
    return conv()(tf, tf.reshape(tf.stack([x, second], axis=2), [n, 2 * h, w, c]))


def _case(name: str, family: Any, stride: Any, body: Body, *sizes: Sizes, **more: Any) -> Case:
    inputs = more.pop("inputs", (IMAGE,))
    return Case(name, family, stride, inputs, network(body), sizes or ("dynamic",), **more)


def _transposed(name: str, stride: Any, body: Body, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "conv_transpose", stride, body, *sizes, **more)


def _nearest(name: str, body: Body, *sizes: Sizes, **more: Any) -> Case:
    stride = more.pop("stride", (2, 2))
    return _case(name, "nearest_resize", stride, then(body, conv()), *sizes, **more)


def _zeros(name: str, body: Body, *sizes: Sizes) -> Case:
    return _case(name, "zero_insertion", (2, 2), then(body, conv()), *sizes)


def _shuffled(name: str, stride: Any, body: Body, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "pixel_shuffle", stride, body, *sizes, expect="final", **more)


def _negative(name: str, body: Body, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "negative", None, body, *sizes, **more)


TOKENS = ((2, 12, 3),)
TWICE = (2, 6, 8, 2)
KERNEL = (3, 3, 4, 3)

CASES = (
    _transposed(
        "transpose2d_k3_same", (2, 2), transpose2d(3, 2, "SAME"), "static", "batch", "dynamic"
    ),
    _transposed("transpose2d_k4_same", (2, 2), then(transpose2d(4, 2, "SAME"), bias, relu)),
    _transposed("transpose2d_k2_valid", (2, 2), transpose2d(2, 2, "VALID")),
    _transposed("transpose2d_k4_valid", (2, 2), transpose2d(4, 2, "VALID", extra=2)),
    _transposed("transpose2d_smaller", (2, 2), transpose2d(3, 2, "SAME", extra=-1)),
    _transposed("transpose2d_stride3", (3, 3), transpose2d(5, 3, "SAME"), "static"),
    _transposed("transpose2d_opset13", (2, 2), transpose2d(3, 2, "SAME"), "dynamic", opset=13),
    _transposed(
        "transpose2d_batchnorm",
        (2, 2),
        then(transpose2d(4, 2, "SAME"), batchnorm, relu),
        "dynamic",
    ),
    _transposed("transpose1d", (2,), transpose1d, inputs=(LINE,)),
    _transposed("transpose3d", (2, 2, 2), transpose3d, inputs=(VOLUME,)),
    _transposed("dcgan", (2, 2), dcgan, "batch", inputs=((2, 5),)),
    _transposed("skip_connection", (2, 2), skip, "batch", inputs=(IMAGE, TWICE)),
    _nearest("image_resize", resize("nearest", 2, 2), "static", "batch"),
    _nearest("image_resize_shape", resize_by_shape, "batch", "dynamic"),
    _nearest("image_resize_opset13", resize_by_shape, "dynamic", opset=13),
    _nearest("resize_v1", resize_v1),
    _nearest("resize_corners", resize_corners(2), "static"),
    _nearest("resize_batchnorm_relu", then(resize_by_shape, batchnorm, relu)),
    _nearest("resize_scale_channels", then(conv(), resize_by_shape, scale_channels)),
    _nearest(
        "resize_zero_padding",
        then(resize_by_shape, lambda tf, x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])),
        "static",
    ),
    _case("resize_depthwise", "nearest_resize", (2, 2), then(resize_by_shape, depthwise), "static"),
    _nearest("repeat", repeat, "static", "batch", "dynamic"),
    _case(
        "repeat1d",
        "nearest_resize",
        (2,),
        then(repeat1d, conv1d),
        "static",
        "dynamic",
        inputs=(LINE,),
    ),
    _nearest("tile", tile),
    _nearest("broadcast", broadcast),
    _nearest("times_ones", times_ones),
    _nearest("stack", stack),
    _shuffled("concat_depth_to_space", (2, 2), then(concat, conv())),
    _nearest("gather", gather),
    _nearest("conv_resize", then(conv(), relu, resize_by_shape)),
    _nearest("scale_channels_resize", then(scale_channels, resize_by_shape), "static"),
    _case("residual", "nearest_resize", (2, 2), residual, "batch"),
    _case(
        "resize_twice",
        "nearest_resize",
        (2, 2),
        then(resize_by_shape, conv(), relu, resize_by_shape, conv()),
        "dynamic",
        layers=2,
    ),
    _transposed("cropped", (2, 2), cropped),
    _nearest("resize_opset11", resize_by_shape, "dynamic", opset=11),
    _nearest("resize_3x2", resize("nearest", 3, 2), "static", stride=(3, 2)),
    _nearest("resize_by_4", then(repeat, repeat), "dynamic", stride=(4, 4)),
    _nearest("resize_leaky", then(resize_by_shape, lambda tf, x: tf.nn.leaky_relu(x, 0.25))),
    _nearest("resize_relu6", then(relu, resize_by_shape, lambda tf, x: tf.nn.relu6(x)), "dynamic"),
    _nearest(
        "resize_identity",
        then(lambda tf, x: tf.identity(x), resize_by_shape, lambda tf, x: tf.identity(x)),
    ),
    _case("resize_to_skip", "nearest_resize", (2, 2), unet, "static", inputs=((2, 4, 6, 3),)),
    _zeros("zeros_by_scatter", zeros_by_scatter, "static"),
    _shuffled("einsum_shuffle", (2, 2), then(conv(16), einsum_shuffle), "dynamic"),
    _shuffled("image_from_rows", (2, 2), then(conv(16), image_from_rows), "dynamic"),
    _zeros("zeros_by_pad", zeros_by_pad, "static", "dynamic"),
    _zeros("zeros_by_stack", zeros_by_stack, "dynamic"),
    _zeros("zeros_by_mask", zeros_by_mask, "static"),
    _shuffled("depth_to_space", (2, 2), then(conv(16), depth_to_space(2))),
    _shuffled(
        "depth_to_space_3", (3, 3), then(conv(18), relu, depth_to_space(3), conv()), "static"
    ),
    _shuffled(
        "shuffle_dcr",
        (2, 2),
        then(conv(16), shuffle(0, 1, 3, 2, 4, 5)),
        "static",
        "batch",
        "dynamic",
    ),
    _shuffled("shuffle_crd", (2, 2), then(conv(16), shuffle(0, 1, 4, 2, 5, 3))),
    _shuffled("shuffle_alone", (2, 2), shuffle(0, 1, 3, 2, 4, 5), "static", inputs=((2, 3, 4, 8),)),
    _shuffled("shuffle_by_axis", (2, 2), then(conv(16), shuffle_split), "static"),
    _shuffled("batch_to_space", (2, 2), batch_to_space, "static"),
    _shuffled("patch_expand", (2, 2), patch_expand, "batch", inputs=TOKENS, fixed=(1,)),
    _shuffled("unpatchify", (2, 2), unpatchify, "static", "batch", inputs=TOKENS, fixed=(1,)),
    _negative(
        "bilinear",
        then(resize("bilinear", 2, 2), conv()),
        expect="interpolating-resize",
    ),
    _negative(
        "uneven",
        then(resize("nearest", 1.5, 1.5), conv()),
        "static",
        expect="non-integer-scale",
        inputs=((1, 4, 6, 3),),
    ),
    _negative("corners3", then(resize_corners(3), conv()), "static", expect="unsupported-rounding"),
    _negative("strided", then(resize_by_shape, conv(stride=2)), "static", expect="strided-conv"),
    _negative(
        "reflect_padding",
        then(resize_by_shape, reflect, conv(padding="VALID")),
        "static",
        expect="non-zero-padding",
    ),
    _negative("no_conv", then(resize_by_shape, relu), "static", expect="no-conv"),
    _negative(
        "runtime_weight", runtime_weight, "static", inputs=(IMAGE, KERNEL), expect="runtime-weight"
    ),
    _negative(
        "runtime_weight_resized",
        runtime_weight_resized,
        "static",
        inputs=(IMAGE, (3, 3, 3, 4)),
        expect="runtime-weight",
    ),
    _negative("space_to_depth", space_to_depth, "static", inputs=((2, 4, 4, 3),), expect=None),
    _negative("window_partition", window_partition, "static", inputs=((2, 4, 4, 3),), expect=None),
    _negative("swapped", swapped, "static", "dynamic", expect=None),
    _negative("ones_between", then(ones_between, conv()), "static", "dynamic", expect=None),
    _negative("two_images", two_images, "static", inputs=(IMAGE, IMAGE), expect=None),
    _negative("reversed_copies", reversed_copies, "static", expect=None),
    _negative("tiled_image", tiled_image, "static", "batch", expect=None),
)

if __name__ == "__main__":
    run("tensorflow", CASES, export)
