"""The inputs of both models: random arrays, arrays of a file, and whether both models take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from deployconv.errors import UsageError
from deployconv.options import FeedOptions
from deployconv.proof.inputs import choose_shapes, common_inputs, input_shapes, make_feeds
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Session, TensorSpec
from tests.runtimes.tiny import DOUBLE, FLOAT, unary


def spec(name: str, shape: tuple[int | str | None, ...], dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


IMAGE = spec("x", (1, 3, 4, 5))


class TestRandom:
    def test_the_same_seed_gives_the_same_arrays(self) -> None:
        specs = [IMAGE, spec("k", (6,), np.int64), spec("m", (8,), np.bool_)]
        one, two, other = (make_feeds(specs, FeedOptions(seed=seed)).arrays for seed in (3, 3, 4))
        assert all(np.array_equal(one[name], two[name]) for name in one)
        assert not np.array_equal(one["x"], other["x"])

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
    def test_floats_have_both_signs_and_unit_scale(self, dtype: Any) -> None:
        x = make_feeds([spec("x", (1000,), dtype)], FeedOptions()).arrays["x"]
        assert x.dtype == dtype
        values = x.astype(np.float64)
        assert abs(values.mean()) < 0.2
        assert 0.8 < values.std() < 1.2

    @pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.int8])
    def test_integers_are_small_and_not_negative(self, dtype: Any) -> None:
        x = make_feeds([spec("x", (1000,), dtype)], FeedOptions()).arrays["x"]
        assert x.dtype == dtype
        assert set(x.tolist()) == set(range(10))

    def test_booleans_are_both(self) -> None:
        x = make_feeds([spec("x", (100,), np.bool_)], FeedOptions()).arrays["x"]
        assert x.dtype == np.bool_
        assert 0 < x.sum() < 100

    def test_a_scalar(self) -> None:
        assert make_feeds([spec("x", ())], FeedOptions()).arrays["x"].shape == ()

    @pytest.mark.parametrize("dtype", [np.str_, object])
    def test_what_is_not_numeric_asks_for_a_file(self, dtype: Any) -> None:
        with pytest.raises(UsageError, match=r"'x' is not numeric.*--inputs"):
            make_feeds([spec("x", (1,), dtype)], FeedOptions())

    def test_a_shape_beyond_the_address_space(self) -> None:
        options = FeedOptions(shapes={"x": (1 << 40, 1 << 40)})
        with pytest.raises(UsageError, match="smaller --shape"):
            make_feeds([spec("x", (None, None))], options)


class TestShapes:
    @pytest.mark.parametrize(
        ("declared", "given_shapes", "expected"),
        [
            ({"x": (1, 3, 4, 5)}, {}, {"x": (1, 3, 4, 5)}),
            ({"x": ("N", 3, "H", "W")}, {}, {"x": (1, 3, 64, 64)}),
            ({"x": (None, 3, None, None)}, {}, {"x": (1, 3, 64, 64)}),
            ({"x": ("N", 1, "D", "H", "W")}, {}, {"x": (1, 1, 32, 32, 32)}),
            ({"x": ("N", 80, "T"), "len": ("N",)}, {}, {"x": (1, 80, 64), "len": (1,)}),
            ({"x": (3, "batch_size")}, {}, {"x": (3, 1)}),
            (
                {"x": ("N", 3, "H", "W"), "mask": ("N", 1, "H", "W")},
                {"mask": (2, 1, 8, 9)},
                {"x": (2, 3, 8, 9), "mask": (2, 1, 8, 9)},
            ),
            # onnxruntime does not demand that sizes of one name are equal.
            (
                {"x": ("N", 3, "H", "W"), "mask": ("N", 1, "H", "W")},
                {"x": (1, 3, 8, 8), "mask": (1, 1, 9, 8)},
                {"x": (1, 3, 8, 8), "mask": (1, 1, 9, 8)},
            ),
            ({"x": ("N", 3, "N#2", "N#3")}, {}, {"x": (1, 3, 64, 64)}),
            (
                {"tokens": ("N", "T"), "mask": ("N", "T", "T#2")},
                {"tokens": (2, 7)},
                {"tokens": (2, 7), "mask": (2, 7, 7)},
            ),
            ({"x": ()}, {"x": (1, 2)}, {"x": (1, 2)}),
        ],
    )
    def test_chosen(
        self,
        declared: Mapping[str, tuple[int | str | None, ...]],
        given_shapes: Mapping[str, tuple[int, ...]],
        expected: Mapping[str, tuple[int, ...]],
    ) -> None:
        shapes, _ = choose_shapes([spec(*item) for item in declared.items()], given_shapes)
        assert shapes == expected

    def test_a_guess_is_reported_and_a_given_shape_is_not(self) -> None:
        dynamic = spec("x", ("N", 3, None, None))
        guessed = make_feeds([dynamic], FeedOptions())
        assert guessed.note == "shapes chosen by deployconv: x:1,3,64,64 (set with --shape)"
        assert make_feeds([dynamic], FeedOptions(shapes={"x": (1, 3, 8, 8)})).note is None
        assert make_feeds([IMAGE], FeedOptions()).note is None

    @pytest.mark.parametrize(
        ("given_shapes", "message"),
        [
            ({"z": (1,)}, "--shape z: the model has no such input; it has 'x', 'mask'"),
            ({"x": (1, 3, 8)}, "rank 3, but the model declares x:N,3,H,W, rank 4"),
            ({"x": (1, 4, 8, 8)}, "axis 1 has size 4, but the model declares x:N,3,H,W"),
            ({"x": (1, 3, 0, 8)}, "every size must be at least 1"),
            ({"x": (1, 3, -1, 8)}, "every size must be at least 1"),
        ],
    )
    def test_refused(self, given_shapes: Mapping[str, tuple[int, ...]], message: str) -> None:
        specs = [spec("x", ("N", 3, "H", "W")), spec("mask", ("N", 1, "H", "W"))]
        with pytest.raises(UsageError) as caught:
            choose_shapes(specs, given_shapes)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_an_input_without_elements(self) -> None:
        with pytest.raises(UsageError, match="x:0,2 has a size of 0"):
            choose_shapes([spec("x", (0, 2))], {})

    @given(
        st.lists(
            st.lists(
                st.one_of(st.integers(1, 4), st.sampled_from(["N", "H", "W"]), st.none()),
                min_size=1,
                max_size=5,
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_a_choice_satisfies_the_declaration_and_is_accepted_back(
        self, declared: list[list[int | str | None]]
    ) -> None:
        specs = [spec(f"x{index}", tuple(shape)) for index, shape in enumerate(declared)]
        shapes, _ = choose_shapes(specs, {})
        assert choose_shapes(specs, shapes) == (shapes, None)


class TestFile:
    def write(self, folder: Path, **arrays: Any) -> FeedOptions:
        path = folder / "inputs.npz"
        np.savez(path, **arrays)
        return FeedOptions(inputs=path)

    def test_arrays_are_taken_as_they_are(self, tmp_path: Path) -> None:
        x = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
        feeds = make_feeds([IMAGE], self.write(tmp_path, x=x))
        assert np.array_equal(feeds.arrays["x"], x)
        assert feeds.note is None

    def test_bfloat16_survives_the_file(self, tmp_path: Path) -> None:
        x = np.array([1.5, -2], ml_dtypes.bfloat16)
        options = self.write(tmp_path, x=x)
        found = make_feeds([spec("x", ("n",), ml_dtypes.bfloat16)], options).arrays["x"]
        assert found.dtype == x.dtype
        assert np.array_equal(found, x)

    def test_strings(self, tmp_path: Path) -> None:
        options = self.write(tmp_path, x=np.array(["upsampling"]))
        found = make_feeds([spec("x", (1,), np.str_)], options).arrays["x"]
        assert found.tolist() == ["upsampling"]

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({}, "lacks 'x'"),
            ({"y": np.ones(3)}, "lacks 'x'"),
            ({"x": np.ones((1, 3, 4, 5), "f"), "y": np.ones(3)}, "no input of the model: 'y'"),
            ({"x": np.ones((1, 3, 4, 5))}, "is float64, but the model takes float32"),
            ({"x": np.ones((3, 4, 5), "f")}, "rank 3"),
            ({"x": np.ones((1, 3, 4, 6), "f")}, "axis 3 has size 6"),
            ({"x": np.ones((0, 3, 4, 5), "f")}, "has no element"),
            ({"x": np.array([None])}, "cannot be read as an .npz of plain arrays"),
        ],
        ids=["empty", "other", "extra", "dtype", "rank", "size", "no element", "pickled"],
    )
    def test_refused(self, arrays: Mapping[str, Any], message: str, tmp_path: Path) -> None:
        options = self.write(tmp_path, **arrays)
        with pytest.raises(UsageError) as caught:
            make_feeds([IMAGE], options)
        assert message in str(caught.value)
        assert "inputs.npz" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_equal_names_may_have_other_sizes(self, tmp_path: Path) -> None:
        options = self.write(tmp_path, a=np.ones(2, "f"), b=np.ones(3, "f"))
        feeds = make_feeds([spec("a", ("n",)), spec("b", ("n",))], options).arrays
        assert {name: array.shape for name, array in feeds.items()} == {"a": (2,), "b": (3,)}

    @pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken"])
    def test_a_file_that_is_no_archive(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "inputs.npz"
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"cannot be read as an \.npz"):
            make_feeds([IMAGE], FeedOptions(inputs=path))

    def test_a_single_array_is_no_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npy"
        np.save(path, np.ones(3))
        with pytest.raises(UsageError, match="a single array"):
            make_feeds([IMAGE], FeedOptions(inputs=path))

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"gone\.npz"):
            make_feeds([IMAGE], FeedOptions(inputs=tmp_path / "gone.npz"))

    def test_a_file_and_shapes_exclude_each_other(self, tmp_path: Path) -> None:
        options = FeedOptions(shapes={"x": (1, 3, 4, 5)}, inputs=tmp_path / "inputs.npz")
        with pytest.raises(UsageError, match="exclude each other"):
            make_feeds([IMAGE], options)


class TestInputShapes:
    """The shapes of the arrays that would be made."""

    def test_they_are_those_of_the_arrays(self) -> None:
        options = FeedOptions(shapes={"x": (1, 3, 4, 5)})
        specs = [IMAGE, spec("n", ("k", 2))]
        arrays = make_feeds(specs, options).arrays
        assert input_shapes(specs, options) == {name: a.shape for name, a in arrays.items()}

    def test_they_are_those_of_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "inputs.npz"
        np.savez(path, a=np.ones((4, 2), "f"))
        assert input_shapes([spec("a", ("n", 2))], FeedOptions(inputs=path)) == {"a": (4, 2)}


def load(proto: ModelProto) -> Session:
    return get_backend("ort").prepare(proto.SerializeToString())


def test_static_sizes_win() -> None:
    merged = common_inputs(
        load(unary("Neg", FLOAT, (4, "h", None))), load(unary("Neg", FLOAT, ("n", 5, "w")))
    )
    assert [spec.shape for spec in merged] == [(4, 5, None)]


def test_an_unknown_rank_takes_the_others() -> None:
    known, unknown = load(unary("Neg", FLOAT, (4, "h"))), load(unary("Neg", FLOAT, None))
    assert common_inputs(known, unknown) == common_inputs(unknown, known)
    assert common_inputs(unknown, known)[0].shape == (4, "h")


def renamed(which: str) -> ModelProto:
    proto = unary("Neg")
    if which == "input":
        proto.graph.input[0].name = proto.graph.node[0].input[0] = "z"
    else:
        proto.graph.output[0].name = proto.graph.node[0].output[0] = "z"
    return proto


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (renamed("input"), "the same inputs: only the reference has 'x', only the candidate 'z'"),
        (renamed("output"), "the same outputs: only the reference has 'y', only the candidate 'z'"),
        (unary("Neg", DOUBLE), "float32[n,2] in the reference, float64[n,2] in the candidate"),
        (unary("Neg", FLOAT, ("n", 2, 1)), "float32[n,2,1] in the candidate"),
        (unary("Neg", FLOAT, ("n", 3)), "float32[n,3] in the candidate"),
    ],
    ids=["input name", "output name", "dtype", "rank", "size"],
)
def test_interfaces_that_differ(other: ModelProto, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        common_inputs(load(unary("Neg")), load(other))
    assert message in str(caught.value)


def test_models_without_an_output() -> None:
    class Mute:
        provider = "none"
        threads = 1
        inputs = outputs = ()

    with pytest.raises(UsageError, match="no output"):
        common_inputs(Mute(), Mute())
