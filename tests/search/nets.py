"""Small networks for the tests of the search."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto

from tests.build import FLOAT, graph, integers, model, node, tensor, value


def net(*nodes: NodeProto, opset: int = 18, channels: int = 2) -> ModelProto:
    """``x [1, channels, 4, 6]`` -> nodes -> ``y``; the kernels are k4, k2, k3 and k1."""
    sizes = {"k4": 4, "k2": 2, "k3": 3, "k1": 1}
    weights = [tensor(name, integers(2, 2, size, size)) for name, size in sizes.items()]
    return model(
        graph(
            nodes,
            [value("x", FLOAT, [1, channels, 4, 6])],
            [value("y", FLOAT, [None] * 4)],
            weights,
        ),
        opset,
    )


def up(source: str, result: str, name: str, kernel: str = "k2") -> NodeProto:
    """A ConvTranspose with stride 2 that doubles the size; its kernel is k2 or k4."""
    pads = [1] * 4 if kernel == "k4" else [0] * 4
    inputs = [source, kernel]
    return node("ConvTranspose", inputs, [result], name=name, strides=[2, 2], pads=pads)


def pair(opset: int = 18) -> ModelProto:
    """Two sites, the second with more work, and a pooling between them that ends any chain."""
    pool = node("MaxPool", ["a"], ["b"], name="mix", kernel_shape=[3, 3], pads=[1] * 4)
    return net(up("x", "a", "small"), pool, up("b", "y", "large", "k4"), opset=opset)


def head(opset: int = 18) -> ModelProto:
    """The head of a text detector: two layers k2 s2, each with a pointwise layer after it."""
    return net(
        up("x", "a", "first"),
        node("Relu", ["a"], ["b"], name="relu"),
        up("b", "c", "second"),
        node("Sigmoid", ["c"], ["y"], name="sigmoid"),
        opset=opset,
    )


def shuffled(opset: int = 18) -> ModelProto:
    """A 1x1 Conv to 8 channels and a pixel shuffle, as DepthToSpace."""
    body = graph(
        [
            node("Conv", ["x", "w"], ["a"], name="conv"),
            node("DepthToSpace", ["a"], ["y"], name="shuffle", blocksize=2, mode="CRD"),
        ],
        [value("x", FLOAT, [1, 2, 4, 6])],
        [value("y", FLOAT, [None] * 4)],
        [tensor("w", integers(8, 2, 1, 1))],
    )
    return model(body, opset)


def two_shuffles(first: NodeProto, *more: TensorProto) -> ModelProto:
    """``first`` makes ``a`` of ``x``; two pixel shuffles and a Relu between them make ``y``."""
    body = graph(
        [
            first,
            node("DepthToSpace", ["a"], ["b"], name="near", blocksize=2, mode="CRD"),
            node("Relu", ["b"], ["c"], name="relu"),
            node("DepthToSpace", ["c"], ["y"], name="far", blocksize=2),
        ],
        [value("x", FLOAT, [1, 2, 4, 6])],
        [value("y", FLOAT, [None] * 4)],
        more,
    )
    return model(body, 18)


def upsampled_and_shuffled() -> ModelProto:
    """`two_shuffles` after a ConvTranspose k2 s2 to 16 channels."""
    first = node("ConvTranspose", ["x", "w"], ["a"], name="up", strides=[2, 2])
    return two_shuffles(first, tensor("w", integers(2, 16, 2, 2)))


def shuffled_twice() -> ModelProto:
    """`two_shuffles` after a Conv k3 to 16 channels."""
    first = node("Conv", ["x", "w"], ["a"], name="conv", pads=[1] * 4)
    return two_shuffles(first, tensor("w", integers(16, 2, 3, 3)))
