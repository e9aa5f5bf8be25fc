"""Systems on the other executors, with random weights: they agree, and say what ran."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_asr.errors import ModelError, PackMismatchError, SteerOptionError
from steer_asr.pack import save_pack
from steer_asr_benchmarks.systems import ModelOptions, Models, executors, make_systems
from steer_asr_benchmarks.systems.base import Decoding, System
from tests.benchmarks.builders import windows_of
from tests.steer_asr.packs import open_gate, random_pack
from tests.tiny_whisper import WIDTH

NOISE = np.random.default_rng(0).standard_normal(16_000 * 31).astype(np.float32) * 0.1
PLAIN = Decoding("no_timestamps", "en")


@pytest.fixture(scope="module")
def models(tiny_whisper_dir: Path) -> Models:
    return Models(ModelOptions(str(tiny_whisper_dir), "cpu", "float32", 1))


@pytest.fixture(scope="module")
def pack(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "p"
    return save_pack(random_pack(WIDTH, models.files.sha256, gate=open_gate(16)), folder, card="")


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model never ends by itself."""
    monkeypatch.setattr(executors, "MAX_TOKENS", 12)


def system(models: Models, name: str) -> System:
    return make_systems([name], models)[0]


def test_hybrid_says_what_ct2_says(models: Models, pack: Path) -> None:
    ct2, hybrid = (system(models, f"steered:{pack}{tail}") for tail in ("", "+hybrid"))
    assert (ct2.options["executor"], hybrid.options["executor"]) == ("ct2", "hybrid")
    one, other = (s.transcribe(NOISE, PLAIN) for s in (ct2, hybrid))
    assert one.text == other.text
    assert one.edited_share == pytest.approx(other.edited_share)
    assert len(windows_of(other)) == 2
    gate = system(models, f"gate:0.5@{pack}+hybrid").transcribe(NOISE, PLAIN)
    assert gate.text == system(models, f"gate:0.5@{pack}").transcribe(NOISE, PLAIN).text


def test_transformers_is_stock_and_steered(models: Models, pack: Path) -> None:
    stock, off, full = (
        system(models, name).transcribe(NOISE[:16_000], PLAIN)
        for name in ("stock+hf", f"steered:{pack}@0+hf", f"steered:{pack}+hf")
    )
    assert stock.windows is None
    assert (stock.edited_share, off.edited_share) == (None, 0.0)
    assert full.edited_share == pytest.approx(1.0, abs=1e-3)
    assert full.text != off.text
    assert full.nobody_speaks is not None
    assert all(segment.no_speech_prob is None for segment in full.segments)


def test_transformers_takes_long_clips_in_both_modes(models: Models, pack: Path) -> None:
    for mode in ("timestamps", "no_timestamps"):
        found = system(models, f"steered:{pack}+hf").transcribe(NOISE, Decoding(mode, "en"))
        assert found.edited_share == pytest.approx(1.0, abs=1e-3)
        assert all(segment.start in (0.0, 30.0) and segment.end in (30.0, 31.0) for segment in found.segments)


def test_a_compiled_model_is_plain_faster_whisper(models: Models) -> None:
    compiled = system(models, f"compiled:{models.files.path}")
    assert compiled.options["kind"] == "compiled"
    assert compiled.transcribe(NOISE, PLAIN).text == system(models, "stock").transcribe(NOISE, PLAIN).text


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("stock+hybrid", SteerOptionError, r"\+hybrid goes with steered and gate"),
        ("gate+hf", SteerOptionError, r"\+hf goes with stock and steered"),
        ("stock+hf+vad", SteerOptionError, r"\+hf does not go with \+vad"),
        ("compiled", SteerOptionError, "stands the directory"),
        ("compiled:/no/such/folder", ModelError, "no such directory"),
        ("steered:{other}+hf", PackMismatchError, "was made for"),
        ("steered:{other}+hybrid", PackMismatchError, "was made for"),
    ],
)
def test_what_does_not_go(models: Models, tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    other = save_pack(random_pack(WIDTH, "d" * 64), tmp_path / "other", card="")
    with pytest.raises(error, match=message):
        system(models, name.format(other=other))
