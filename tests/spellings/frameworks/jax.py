"""JAX functions, with and without Flax, exported by jax2onnx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.spellings.frameworks.case import Case, Exported, Network, Sizes, run, weights

IMAGE = (2, 3, 4, 3)
LINE = (2, 5, 3)
VOLUME = (1, 2, 3, 3, 2)
AXES = {3: ("B", "L"), 4: ("B", "H", "W"), 5: ("B", "D", "H", "W"), 2: ("B",)}
Body = Callable[..., Any]
"""A network: the input arrays in, the output array out. JAX is imported inside."""


def export(case: Case, sizes: Sizes) -> Exported:
    """The model as jax2onnx writes it, and what JAX computes."""
    import jax2onnx

    function = case.build()
    shapes = [
        tuple(
            name if axis in case.dynamic_axes(shape, sizes) else size
            for axis, (size, name) in enumerate(zip(shape, _axes(case, shape), strict=True))
        )
        for shape in case.inputs
    ]
    more = {"opset": case.opset} if case.opset else {}
    return Exported(jax2onnx.to_onnx(function, shapes, **more), function)


def _axes(case: Case, shape: tuple[int, ...]) -> tuple[str, ...]:
    names = AXES[len(shape)]
    return (*names, "C") if case.channels_last else (names[0], "C", *names[1:])


def lax_transpose(
    rank: int, kernel: int, stride: int, padding: Any, flipped: bool = False, **more: Any
) -> Body:
    """``jax.lax.conv_transpose`` in channels-last order; ``flipped`` is transpose_kernel."""
    space = {1: "H", 2: "HW", 3: "DHW"}[rank]
    layout = (f"N{space}C", f"{space}IO", f"N{space}C")

    def body(x: Any) -> Any:
        from jax import lax

        channels = (4, x.shape[-1]) if flipped else (x.shape[-1], 4)
        return lax.conv_transpose(
            x,
            weights(*[kernel] * rank, *channels),
            (stride,) * rank,
            padding,
            dimension_numbers=layout,
            transpose_kernel=flipped,
            **more,
        )

    return body


def lhs_dilated(groups: int = 1, first: bool = False, dilation: int = 1) -> Body:
    """The convolution of an image with zeros between its pixels."""

    def body(x: Any) -> Any:
        from jax import lax

        channels = x.shape[1 if first else -1]
        w = weights(3, 3, channels // groups, 4 if groups == 1 else channels)
        return lax.conv_general_dilated(
            x,
            w.transpose(3, 2, 0, 1) if first else w,
            (1, 1),
            [(dilation, dilation + 1)] * 2,
            lhs_dilation=(2, 2),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NCHW", "OIHW", "NCHW") if first else ("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return body


def lhs_dilated_1d(x: Any) -> Any:
    from jax import lax

    return lax.conv_general_dilated(
        x,
        weights(3, 3, 4),
        (1,),
        [(1, 2)],
        lhs_dilation=(2,),
        dimension_numbers=("NHC", "HIO", "NHC"),
    )


def zero_pad(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])


def nnx_layer(name: str, *arguments: Any, **more: Any) -> Body:
    """One layer of Flax with whole weights."""

    def body(x: Any) -> Any:
        from flax import nnx

        made = getattr(nnx, name)(*arguments, **more, rngs=nnx.Rngs(0))
        kernel = made.kernel.get_value()
        made.kernel.set_value(weights(*kernel.shape))
        if made.bias is not None:
            made.bias.set_value(weights(*made.bias.get_value().shape, start=2))
        return made(x)

    return body


def batchnorm(x: Any) -> Any:
    """Flax's BatchNorm as it is applied, with a standard deviation of 2."""
    c = x.shape[-1]
    scale, offset, mean = abs(weights(c)) + 1, weights(c, start=3), weights(c, start=1)
    return (x - mean) * (scale / np.float32(2)) + offset


def relu(x: Any) -> Any:
    import jax

    return jax.nn.relu(x)


def leaky(x: Any) -> Any:
    import jax

    return jax.nn.leaky_relu(x, 0.25)


def conv(channels: int = 4, kernel: int = 3, padding: Any = "SAME", stride: int = 1) -> Body:
    def body(x: Any) -> Any:
        from jax import lax

        w = weights(kernel, kernel, x.shape[-1], channels)
        y = lax.conv_general_dilated(
            x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + weights(channels, start=2)

    return body


def conv_first(x: Any) -> Any:
    from jax import lax

    return lax.conv(x, weights(4, x.shape[1], 3, 3), (1, 1), "SAME")


def conv1d(x: Any) -> Any:
    return nnx_layer("Conv", x.shape[-1], 4, (3,))(x)


def conv3d(x: Any) -> Any:
    return nnx_layer("Conv", x.shape[-1], 2, (3, 3, 3))(x)


def flax_conv(x: Any) -> Any:
    return nnx_layer("Conv", x.shape[-1], 4, (3, 3))(x)


def then(*bodies: Body) -> Body:
    """One after the other."""

    def body(x: Any) -> Any:
        for step in bodies:
            x = step(x)
        return x

    return body


def resize(method: str, *factors: float, first: bool = False) -> Body:
    def body(x: Any) -> Any:
        import jax

        begin = 2 if first else 1
        shape = list(x.shape)
        for axis, factor in enumerate(factors, begin):
            shape[axis] = (
                shape[axis] * factor if factor == int(factor) else int(shape[axis] * factor)
            )
        return jax.image.resize(x, tuple(shape), method, antialias=False)

    return body


def repeat(*axes: int) -> Body:
    def body(x: Any) -> Any:
        import jax.numpy as jnp

        for axis in axes:
            x = jnp.repeat(x, 2, axis=axis)
        return x

    return body


def broadcast(x: Any) -> Any:
    import jax.numpy as jnp

    n, h, w, c = x.shape
    y = jnp.broadcast_to(x[:, :, None, :, None, :], (n, h, 2, w, 2, c))
    return y.reshape(n, 2 * h, 2 * w, c)


def tile(x: Any) -> Any:
    import jax.numpy as jnp

    n, h, w, c = x.shape
    y = jnp.tile(x.reshape(n, h, 1, w, 1, c), (1, 1, 2, 1, 2, 1))
    return y.reshape(n, 2 * h, 2 * w, c)


def kron(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.kron(x, jnp.ones((1, 2, 2, 1)))


def einops_repeat(x: Any) -> Any:
    from einops import repeat as einops_repeat

    return einops_repeat(x, "n h w c -> n (h 2) (w 2) c")


def stack(x: Any) -> Any:
    import jax.numpy as jnp

    n, h, w, c = x.shape
    x = jnp.stack((x, x), axis=3).reshape(n, h, 2 * w, c)
    return jnp.stack((x, x), axis=2).reshape(n, 2 * h, 2 * w, c)


def gather(x: Any) -> Any:
    import jax.numpy as jnp

    _, h, w, _ = x.shape
    return x[:, jnp.arange(2 * h) // 2][:, :, jnp.arange(2 * w) // 2]


def assign(x: Any) -> Any:
    import jax.numpy as jnp

    n, h, w, c = x.shape
    return jnp.zeros((n, 2 * h, 2 * w, c), x.dtype).at[:, ::2, ::2].set(x)


def pad_reshape(x: Any) -> Any:
    import jax.numpy as jnp

    n, h, w, c = x.shape
    y = jnp.pad(x.reshape(n, h, 1, w, 1, c), [(0, 0), (0, 0), (0, 1), (0, 0), (0, 1), (0, 0)])
    return y.reshape(n, 2 * h, 2 * w, c)


def stack_zeros(x: Any) -> Any:
    import jax.numpy as jnp

    n, h, w, c = x.shape
    x = jnp.stack((x, jnp.zeros_like(x)), axis=3).reshape(n, h, 2 * w, c)
    return jnp.stack((x, jnp.zeros_like(x)), axis=2).reshape(n, 2 * h, 2 * w, c)


def rearranged(equation: str, **sizes: int) -> Body:
    def body(x: Any) -> Any:
        from einops import rearrange

        return rearrange(x, equation, **sizes)

    return body


def pix(x: Any) -> Any:
    import dm_pix

    return dm_pix.depth_to_space(x, 2)


def shuffle(x: Any) -> Any:
    n, h, w, c = x.shape
    y = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, 2 * h, 2 * w, c // 4)


def shuffle_first(x: Any) -> Any:
    n, c, h, w = x.shape
    y = x.reshape(n, c // 4, 2, 2, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // 4, 2 * h, 2 * w)


def shuffle1d(x: Any) -> Any:
    n, h, c = x.shape
    return x.reshape(n, h * 2, c // 2)


def dense(channels: int) -> Body:
    return lambda x: x @ weights(x.shape[-1], channels)


def as_image(h: int, w: int) -> Body:
    return lambda x: x.reshape(x.shape[0], h, w, -1)


def dcgan(x: Any) -> Any:
    y = as_image(2, 2)(leaky(dense(12)(x)))
    y = leaky(batchnorm(lax_transpose(2, 4, 2, "SAME")(y)))
    return lax_transpose(2, 4, 2, "SAME", True)(y)


def residual(x: Any) -> Any:
    return conv()(resize("nearest", 2, 2)(x + conv(3)(relu(x))))


def residual_behind(x: Any) -> Any:
    main = conv()(relu(conv()(repeat(1, 2)(x))))
    return main + conv(4, 1)(repeat(1, 2)(x))


def mapped(body: Body) -> Body:
    """Image by image, as Equinox's layers are used."""

    def forward(x: Any) -> Any:
        import jax

        return jax.vmap(body)(x)

    return forward


def equinox(name: str, *arguments: Any, **more: Any) -> Body:
    """One layer of Equinox with whole weights, for a batch of images."""

    def body(x: Any) -> Any:
        import equinox as eqx
        import jax

        with jax.ensure_compile_time_eval():
            made = getattr(eqx.nn, name)(*arguments, **more, key=jax.random.PRNGKey(0))
        made = eqx.tree_at(
            lambda one: (one.weight, one.bias),
            made,
            (weights(*made.weight.shape), weights(*made.bias.shape, start=2)),
        )
        return jax.vmap(made)(x)

    return body


def repeat_by_index(x: Any) -> Any:
    """``jnp.take`` with indices that are constants."""
    import jax.numpy as jnp

    _, h, w, _ = x.shape
    x = jnp.take(x, np.arange(2 * h) // 2, axis=1)
    return jnp.take(x, np.arange(2 * w) // 2, axis=2)


def concat_shuffle(x: Any) -> Any:
    """Four groups of channels as the four phases, column by column and row by row."""
    import jax.numpy as jnp

    n, h, w, c = x.shape
    a, b, d, e = jnp.split(x, 4, axis=-1)
    rows = [jnp.stack(two, axis=3).reshape(n, h, 2 * w, c // 4) for two in ((a, b), (d, e))]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, c // 4)


def runtime_weight(x: Any, second: Any) -> Any:
    from jax import lax

    return lax.conv_transpose(x, second, (2, 2), "SAME")


def symmetric_difference(x: Any) -> Any:
    """Two different images interleaved, not one repeated."""
    import jax.numpy as jnp

    n, h, w, c = x.shape
    return jnp.stack((x, -x), axis=2).reshape(n, 2 * h, w, c)


def ones_between(x: Any) -> Any:
    import jax.numpy as jnp

    n, h, w, c = x.shape
    return jnp.stack((x, jnp.ones_like(x)), axis=2).reshape(n, 2 * h, w, c)


def repeated_unevenly(x: Any) -> Any:
    """Once, three times and twice: each row three times, with a crop at both ends."""
    import jax.numpy as jnp

    return jnp.repeat(x, np.array([1, 3, 2]), axis=1, total_repeat_length=6)


def tiled_image(x: Any) -> Any:
    """The whole image twice beside itself, not each pixel."""
    import jax.numpy as jnp

    return jnp.tile(x, (1, 2, 2, 1))


def rolled(x: Any) -> Any:
    """Each pixel beside its neighbour of the row above."""
    import jax.numpy as jnp

    n, h, w, c = x.shape
    return jnp.stack((x, jnp.roll(x, 1, axis=1)), axis=3).reshape(n, h, 2 * w, c)


def _case(name: str, family: Any, stride: Any, body: Body, *sizes: Sizes, **more: Any) -> Case:
    inputs = more.pop("inputs", (IMAGE,))

    def build() -> Network:
        return body

    return Case(name, family, stride, inputs, build, sizes or ("dynamic",), **more)


def _transposed(name: str, stride: Any, body: Body, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "conv_transpose", stride, body, *sizes, **more)


def _nearest(name: str, body: Body, *sizes: Sizes, **more: Any) -> Case:
    stride = more.pop("stride", (2, 2))
    return _case(name, "nearest_resize", stride, body, *sizes, **more)


def _zeros(name: str, body: Body, *sizes: Sizes) -> Case:
    return _case(name, "zero_insertion", (2, 2), then(body, conv()), *sizes)


def _shuffled(name: str, stride: Any, body: Body, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "pixel_shuffle", stride, body, *sizes, expect="final", **more)


def _negative(name: str, body: Body, *sizes: Sizes, **more: Any) -> Case:
    return _case(name, "negative", None, body, *sizes, **more)


TOKENS = ((2, 12, 3),)
FIRST = {"inputs": ((2, 3, 3, 4),), "channels_last": False}
DCR = "n h w (p q c) -> n (h p) (w q) c"
CRD = "n h w (c p q) -> n (h p) (w q) c"
nearest = resize("nearest", 2, 2)

CASES = (
    _transposed("transpose2d_same", (2, 2), lax_transpose(2, 3, 2, "SAME"), "dynamic"),
    _transposed("transpose2d_valid", (2, 2), lax_transpose(2, 4, 2, "VALID")),
    _transposed(
        "transpose2d_flipped",
        (2, 2),
        lax_transpose(2, 4, 2, "SAME", True),
        "static",
        "batch",
        "dynamic",
    ),
    _transposed(
        "transpose2d_flipped_valid", (2, 2), lax_transpose(2, 2, 2, "VALID", True), "static"
    ),
    _transposed("transpose2d_k2_stride3", (3, 3), lax_transpose(2, 2, 3, "VALID"), "static"),
    _transposed(
        "transpose2d_dilated",
        (2, 2),
        lax_transpose(2, 3, 2, "SAME", rhs_dilation=(2, 2)),
        "batch",
    ),
    _transposed("transpose1d", (2,), lax_transpose(1, 4, 2, "SAME"), inputs=(LINE,)),
    _transposed(
        "transpose1d_flipped", (2,), lax_transpose(1, 3, 2, "SAME", True), "static", inputs=(LINE,)
    ),
    _transposed("lhs_dilated", (2, 2), lhs_dilated(), "static", "batch", "dynamic"),
    _transposed("lhs_dilated_groups", (2, 2), lhs_dilated(groups=3), "batch"),
    _transposed("lhs_dilated_both", (2, 2), lhs_dilated(dilation=2), "static"),
    _transposed("lhs_dilated_first", (2, 2), lhs_dilated(first=True), "batch", **FIRST),
    _transposed(
        "flax_transpose", (2, 2), then(nnx_layer("ConvTranspose", 3, 4, (3, 3), (2, 2)), relu)
    ),
    _transposed(
        "flax_transpose_flipped",
        (2, 2),
        nnx_layer("ConvTranspose", 3, 4, (4, 4), (2, 2), transpose_kernel=True),
        "batch",
    ),
    _transposed(
        "flax_transpose_valid",
        (2, 2),
        nnx_layer("ConvTranspose", 3, 4, (2, 2), (2, 2), padding="VALID"),
        "static",
    ),
    _transposed(
        "transpose2d_batchnorm",
        (2, 2),
        then(lax_transpose(2, 4, 2, "SAME"), batchnorm, relu, conv()),
        "batch",
    ),
    _transposed("dcgan", (2, 2), dcgan, "batch", inputs=((2, 5),), layers=2),
    _nearest("resize", then(nearest, conv()), "static"),
    _nearest("resize_flax_conv", then(nearest, flax_conv), "static"),
    _nearest("resize_opset17", then(nearest, conv()), "static", opset=17),
    _nearest("resize3", then(resize("nearest", 3, 3), conv()), "static", stride=(3, 3)),
    _nearest("resize_2x3", then(resize("nearest", 2, 3), conv()), "static", stride=(2, 3)),
    _nearest(
        "resize_first", then(resize("nearest", 2, 2, first=True), conv_first), "static", **FIRST
    ),
    _nearest("resize1d", then(resize("nearest", 2), conv1d), "static", inputs=(LINE,), stride=(2,)),
    _nearest(
        "resize3d",
        then(resize("nearest", 2, 2, 2), conv3d),
        "static",
        inputs=(VOLUME,),
        stride=(2, 2, 2),
    ),
    _nearest("resize_relu", then(conv(), nearest, relu, conv()), "static"),
    _nearest("resize_batchnorm_relu", then(conv(), nearest, batchnorm, relu, conv()), "static"),
    _nearest("resize_twice", then(nearest, conv(), relu, nearest, conv()), "static", layers=2),
    _nearest("repeat", then(repeat(1, 2), conv()), "static", "batch", "dynamic"),
    _nearest("repeat_flax_conv", then(repeat(1, 2), flax_conv), "batch"),
    _nearest("repeat1d", then(repeat(1), conv1d), "static", "batch", inputs=(LINE,), stride=(2,)),
    _nearest("broadcast", then(broadcast, conv()), "static", "batch", "dynamic"),
    _nearest("tile", then(tile, conv()), "static", "batch"),
    _nearest("kron", then(kron, conv()), "static"),
    _nearest("einops_repeat", then(einops_repeat, conv()), "batch"),
    _nearest("stack", then(stack, conv()), "batch"),
    _nearest("gather", then(gather, conv()), "batch"),
    _transposed(
        "equinox_transpose",
        (2, 2),
        equinox("ConvTranspose2d", 3, 4, 3, 2, padding=1),
        "batch",
        **FIRST,
    ),
    _transposed(
        "equinox_transpose_groups",
        (2, 2),
        equinox("ConvTranspose2d", 4, 4, 4, 2, padding=1, groups=2),
        "static",
        inputs=((2, 4, 3, 4),),
        channels_last=False,
    ),
    _transposed("lhs_dilated_1d", (2,), lhs_dilated_1d, "dynamic", inputs=(LINE,)),
    _transposed("transpose2d_explicit", (2, 2), lax_transpose(2, 3, 2, [(1, 2), (1, 2)])),
    _transposed(
        "transpose2d_opset17",
        (2, 2),
        lax_transpose(2, 4, 2, "SAME", True),
        "batch",
        opset=17,
    ),
    _transposed(
        "transpose2d_cropped",
        (2, 2),
        then(lax_transpose(2, 4, 2, "VALID"), lambda x: x[:, 1:-1, 1:-1]),
        "batch",
    ),
    _transposed(
        "transpose2d_mapped",
        (2, 2),
        mapped(lambda x: lax_transpose(2, 4, 2, "SAME")(x[None])[0]),
        "batch",
    ),
    _nearest("repeat_mapped", mapped(lambda x: conv()(repeat(0, 1)(x)[None])[0]), "batch"),
    _nearest(
        "equinox_conv",
        then(repeat(2, 3), equinox("Conv2d", 3, 4, 3, padding=1)),
        "batch",
        **FIRST,
    ),
    _nearest("take", then(repeat_by_index, conv()), "batch"),
    _nearest("repeat_leaky", then(repeat(1, 2), leaky, conv()), "batch"),
    _nearest("repeat_valid", then(repeat(1, 2), conv(padding="VALID")), "dynamic"),
    _nearest("repeat_by_4", then(repeat(1, 2, 1, 2), conv()), "dynamic", stride=(4, 4)),
    _nearest(
        "repeat_twice",
        then(repeat(1, 2), conv(), relu, repeat(1, 2), conv()),
        "batch",
        layers=2,
    ),
    _nearest("repeat_padded", then(repeat(1, 2), zero_pad, conv(padding="VALID")), "batch"),
    _shuffled("concat_shuffle", (2, 2), then(conv(16), concat_shuffle), "batch"),
    _nearest("residual", residual, "static"),
    _nearest("residual_behind", residual_behind, "static", layers=2),
    _nearest(
        "behind_dense", then(dense(12), as_image(2, 2), nearest, conv()), "static", inputs=((2, 5),)
    ),
    _zeros("assign", assign, "static", "batch"),
    _zeros("pad_reshape", pad_reshape, "batch"),
    _zeros("stack_zeros", stack_zeros, "static"),
    _shuffled("shuffle", (2, 2), then(conv(16), shuffle), "static", "batch", "dynamic"),
    _shuffled("einops_dcr", (2, 2), then(conv(16), rearranged(DCR, p=2, q=2)), "static", "dynamic"),
    _shuffled("einops_crd", (2, 2), then(conv(16), rearranged(CRD, p=2, q=2)), "dynamic"),
    _shuffled(
        "einops_dcr3", (3, 3), then(conv(18), relu, rearranged(DCR, p=3, q=3), conv()), "static"
    ),
    _shuffled("pix", (2, 2), then(conv(16), pix), "batch"),
    _shuffled(
        "shuffle_first",
        (2, 2),
        then(lambda x: conv_first(x), shuffle_first),
        "batch",
        **FIRST,
    ),
    _shuffled("shuffle1d", (2,), then(conv1d, shuffle1d), "static", inputs=(LINE,)),
    _shuffled(
        "patch_expand",
        (2, 2),
        then(dense(8), rearranged("n (h w) (p q c) -> n (h p w q) c", h=3, w=4, p=2, q=2)),
        "batch",
        inputs=TOKENS,
        fixed=(1,),
    ),
    _shuffled(
        "unpatchify",
        (2, 2),
        then(dense(12), rearranged("n (h w) (p q c) -> n (h p) (w q) c", h=3, w=4, p=2, q=2)),
        "static",
        "batch",
        inputs=TOKENS,
        fixed=(1,),
    ),
    _shuffled(
        "unpatchify_first",
        (2, 2),
        then(dense(12), rearranged("n (h w) (p q c) -> n c (h p) (w q)", h=3, w=4, p=2, q=2)),
        "batch",
        inputs=TOKENS,
        fixed=(1,),
    ),
    _negative(
        "bilinear", then(resize("bilinear", 2, 2), conv()), "static", expect="interpolating-resize"
    ),
    _negative("strided", then(nearest, conv(stride=2)), "static", expect="strided-conv"),
    _negative("no_conv", then(nearest, relu), "static", expect="no-conv"),
    _negative(
        "runtime_weight",
        runtime_weight,
        "static",
        inputs=(IMAGE, (3, 3, 3, 4)),
        expect="runtime-weight",
    ),
    _negative(
        "space_to_depth",
        then(rearranged("n (h p) (w q) c -> n h w (p q c)", p=2, q=2), conv()),
        "static",
        inputs=((2, 4, 4, 3),),
        expect=None,
    ),
    _negative(
        "swapped",
        then(conv(16), rearranged("n h w (p q c) -> n (p h) (q w) c", p=2, q=2)),
        "static",
        expect=None,
    ),
    _negative(
        "attention_heads",
        then(dense(8), rearranged("n t (a d) -> n a t d", a=2)),
        "static",
        "batch",
        inputs=TOKENS,
        fixed=(1,),
        expect=None,
    ),
    _negative("ones_between", then(ones_between, conv()), "static", expect=None),
    _negative(
        "repeated_unevenly", then(repeated_unevenly, conv()), "static", expect="cropped-upsampling"
    ),
    _negative("tiled_image", then(tiled_image, conv()), "batch", expect=None),
    _negative("rolled", then(rolled, conv()), "static", expect=None),
    _negative("interleaved", then(symmetric_difference, conv()), "static", expect=None),
)

if __name__ == "__main__":
    run("jax", CASES, export)
