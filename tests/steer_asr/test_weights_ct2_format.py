"""model.bin: what goes in comes out, byte for byte, and nothing broken is ever accepted or raises anything else."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steer_asr.errors import OutputError, WeightsError
from steer_asr.models import ModelFiles
from steer_asr.weights.ct2_format import ModelBin, float32_of, read_model_bin, stored_as, write_model_bin

SMALL = ModelBin(
    variables={
        "encoder/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "encoder/weight_scale": np.array([0.5, 2.0], np.float16),
        "encoder/quantised": np.array([-128, 127], np.int8),
        "encoder/num_heads": np.array(2, np.int16),
        "encoder/ids": np.array([50257], np.int32),
        "encoder/bits": stored_as(np.array([1.0, -3.5], np.float32), "bfloat16"),
    },
    aliases={"decoder/weight": "encoder/weight"},
)
HEADER = struct.pack("<I", 6) + struct.pack("<H", 12) + b"WhisperSpec\0" + struct.pack("<I", 3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "model.bin"
    write_model_bin(path, SMALL)
    return path.read_bytes()


def read(tmp_path: Path, content: bytes) -> ModelBin:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    return read_model_bin(path)


def variable(
    name: str, dims: tuple[int, ...], type_id: int, payload: bytes, *, rank: int | None = None, size: int | None = None
) -> bytes:
    """One variable as the file holds it, with any part of it wrong on request."""
    raw = name.encode() + b"\0"
    head = struct.pack("<H", len(raw)) + raw
    head += struct.pack(f"<B{len(dims)}I", len(dims) if rank is None else rank, *dims)
    return head + struct.pack("<BI", type_id, len(payload) if size is None else size) + payload


def file_of(*variables: bytes, count: int | None = None, aliases: bytes = struct.pack("<I", 0)) -> bytes:
    return HEADER + struct.pack("<I", len(variables) if count is None else count) + b"".join(variables) + aliases


def alias(*pairs: tuple[str, str]) -> bytes:
    text = b"".join(struct.pack("<H", len(name) + 1) + name.encode() + b"\0" for pair in pairs for name in pair)
    return struct.pack("<I", len(pairs)) + text


def test_what_was_written_is_read(tmp_path: Path, small: bytes) -> None:
    model = read(tmp_path, small)
    assert list(model.variables) == list(SMALL.variables)
    for name, array in SMALL.variables.items():
        assert (model[name].dtype, model[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(model[name], array)
    assert model.aliases == SMALL.aliases
    assert (model.spec_name, model.spec_revision) == ("WhisperSpec", 3)
    np.testing.assert_array_equal(model["decoder/weight"], SMALL["encoder/weight"])
    assert not model["encoder/weight"].flags.writeable
    with pytest.raises(WeightsError, match="no variable 'encoder/other'"):
        model["encoder/other"]


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_model_bin(path, ModelBin({"a": np.array([1, 2], np.int16)}, {"b": "a"}))
    assert path.read_bytes() == file_of(variable("a", (2,), 2, b"\1\0\2\0"), aliases=alias(("b", "a")))


@pytest.mark.parametrize("name", ["tiny_en", "base"])
def test_real_weights_round_trip_byte_for_byte(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    files: ModelFiles = request.getfixturevalue(name)
    original, copy = files.path / "model.bin", tmp_path / "model.bin"
    write_model_bin(copy, read_model_bin(original))
    assert copy.read_bytes() == original.read_bytes()


def test_arrays_are_written_in_order_whatever_their_memory_layout(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    odd = {
        "big": values.astype(">f4"),
        "columns": np.asfortranarray(values),
        "strided": np.repeat(values, 2, 1)[:, ::2],
    }
    write_model_bin(tmp_path / "model.bin", ModelBin(odd))
    for name, array in read_model_bin(tmp_path / "model.bin").variables.items():
        np.testing.assert_array_equal(array, values, err_msg=name)


def test_every_truncation_is_refused(tmp_path: Path, small: bytes) -> None:
    for length in range(len(small)):
        with pytest.raises(WeightsError, match=r"model\.bin"):
            read(tmp_path, small[:length])


def assert_refused_or_understood(tmp_path: Path, content: bytes) -> None:
    """Either a `WeightsError`, or a model that holds every byte: written again, it is the same file."""
    try:
        model = read(tmp_path, content)
    except WeightsError:
        return
    write_model_bin(tmp_path / "again.bin", model)
    assert (tmp_path / "again.bin").read_bytes() == content


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_never_raise_anything_else(tmp_path: Path, small: bytes, data: st.DataObject) -> None:
    content = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert_refused_or_understood(tmp_path, bytes(content))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=64))
def test_arbitrary_bytes_never_raise_anything_else(tmp_path: Path, tail: bytes) -> None:
    for content in (tail, HEADER + tail, file_of(tail, count=1)):
        assert_refused_or_understood(tmp_path, content)


FLOATS = b"\0\0\x80?" * 2
BROKEN: dict[str, tuple[bytes, str]] = {
    "another version": (struct.pack("<I", 5) + HEADER[4:], "binary version 5, this reader knows 6"),
    "a name without its NUL": (
        struct.pack("<IH", 6, 4) + b"Whis" + bytes(8),
        "spec name at byte 6 lacks its final NUL",
    ),
    "a name of no bytes": (struct.pack("<IH", 6, 0) + bytes(8), "lacks its final NUL"),
    "a name that is not text": (struct.pack("<IH", 6, 2) + b"\xff\0" + bytes(8), "spec name is not UTF-8"),
    "an unknown dtype": (file_of(variable("w", (2,), 6, FLOATS)), "w has dtype id 6"),
    "a huge rank": (file_of(variable("w", (2,), 0, FLOATS, rank=255)), "w claims rank 255"),
    "huge dimensions": (file_of(variable("w", (2**32 - 1,) * 8, 0, FLOATS)), "cannot hold 8 bytes"),
    "an empty array": (file_of(variable("w", (0, 2**32 - 1, 2**32 - 1), 0, b"")), "w is empty"),
    "a shape that does not fit": (
        file_of(variable("w", (3,), 0, FLOATS)),
        r"shape \(3,\), float32, cannot hold 8",
    ),
    "a payload beyond the end": (file_of(variable("w", (2,), 0, b"", size=8)), "values of w at byte .* needs 8 bytes"),
    "too few variables": (
        file_of(variable("w", (2,), 0, FLOATS), count=2**32 - 1),
        "variable name at byte .* lacks its final NUL",
    ),
    "too many variables": (file_of(variable("w", (2,), 0, FLOATS), count=0), "truncated or corrupt|left over"),
    "a name twice": (file_of(*[variable("w", (2,), 0, FLOATS)] * 2), "variable 'w' appears twice"),
    "an alias of nothing": (file_of(variable("w", (2,), 0, FLOATS), aliases=alias(("a", "b"))), "stands for 'b'"),
    "an alias twice": (
        file_of(variable("w", (2,), 0, FLOATS), aliases=alias(("a", "w"), ("a", "w"))),
        "'a' appears twice",
    ),
    "an alias over a variable": (
        file_of(variable("w", (2,), 0, FLOATS), aliases=alias(("w", "w"))),
        "'w' appears twice",
    ),
    "trailing bytes": (file_of(variable("w", (2,), 0, FLOATS)) + b"\0\0\0", "3 bytes left over"),
    "an empty file": (b"", "cannot be read"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_wrong_is_said(fault: str, tmp_path: Path) -> None:
    content, message = BROKEN[fault]
    with pytest.raises(WeightsError, match=message):
        read(tmp_path, content)


def test_a_missing_file_and_a_folder_are_weights_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(WeightsError, match="cannot be read"):
            read_model_bin(path)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"w": np.zeros(2)}, "w: float64"),
        ({"w": np.zeros((0, 3), np.float32)}, r"shape \(0, 3\)"),
        ({"w": np.zeros((1,) * 9, np.float32)}, "does not fit"),
        ({"w" * 70_000: np.zeros(2, np.float32)}, "a name of 70000 bytes"),
        ({"w": np.broadcast_to(np.float32(0), (2**15, 2**15, 2))}, "does not fit"),
    ],
    ids=["dtype", "empty", "rank", "name", "over 4 GiB"],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    variables: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        write_model_bin(tmp_path / "model.bin", ModelBin(variables))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_model_bin(tmp_path / "file" / "model.bin", SMALL)


def test_bfloat16_is_the_upper_half_of_a_float32_rounded_to_even() -> None:
    values = np.array([1.0, -2.5, 3.140625, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 1e38, 1e-40], np.float32)
    stored = stored_as(values, "bfloat16")
    assert stored.dtype == np.uint16
    expected = [1.0, -2.5, 3.140625, 1.0, 1 + 2**-6, 1 + 2**-7]
    np.testing.assert_array_equal(float32_of(stored)[:6], np.array(expected, np.float32))
    np.testing.assert_array_equal(stored_as(float32_of(stored), "bfloat16"), stored)


def test_bfloat16_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(float32_of(stored_as(values, "bfloat16")), expected)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1e5], "float16"), ([3.4e38], "bfloat16"), ([np.nan], "float32"), ([np.inf], "bfloat16"), ([1.0], "float64")],
)
def test_values_that_a_dtype_cannot_hold_are_refused(values: list[float], dtype: str) -> None:
    with pytest.raises(WeightsError, match=dtype):
        stored_as(np.array(values, np.float32), dtype)
