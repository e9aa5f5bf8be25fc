from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steer_asr import list_packs, load_pack
from steer_asr.compiling.readout import Readout, save_readout
from steer_asr.edits import Edit
from steer_asr.errors import OutputError, PackError, PackMismatchError
from steer_asr.gate import Gate
from steer_asr.pack import MAX_PACK_BYTES, most_features, save_pack
from tests.steer_asr.packs import axis_features, build_pack, open_gate, random_pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_pack(build_pack(gate=open_gate(3), calibration=({"strength": 1.0},)), tmp_path / "mine", card="# card")


def edit_header(folder: Path, change: Callable[[dict], object]) -> None:
    header = json.loads((folder / "steer.json").read_text())
    change(header)
    (folder / "steer.json").write_text(json.dumps(header))


def test_round_trip(folder: Path) -> None:
    before, after = build_pack(gate=open_gate(3)), load_pack(folder)
    assert (after.feature_ids, after.edits, after.base_sha256) == (before.feature_ids, before.edits, before.base_sha256)
    for name in ("W_enc", "b_enc", "threshold", "W_dec", "b_dec"):
        np.testing.assert_array_equal(getattr(after.features, name), getattr(before.features, name))
    assert after.calibration == ({"strength": 1.0},)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format_version=99), "format version 99"),
        (lambda h: h.pop("hook_point"), "hook_point"),
        (lambda h: h.pop("base_model"), "base_model"),
        (lambda h: h["edits"].append({"feature": 4711, "op": "scale", "value": 0.0}), "no feature 4711"),
        (lambda h: h["edits"].clear(), "steer nothing"),
        (lambda h: h["edits"][0].update(op="mute"), "unknown edit 'mute'"),
        (lambda h: h["edits"][0].pop("value"), "broken"),
        (lambda h: h["feature_ids"].pop(), "2 feature ids for 3 features"),
        (lambda h: h["gate"].update(coefficients=[1.0]), "1 coefficients"),
    ],
)
def test_broken_headers_are_refused(folder: Path, change: Callable[[dict], object], message: str) -> None:
    edit_header(folder, change)
    with pytest.raises(PackError, match=message):
        load_pack(folder)


@pytest.mark.parametrize("name", ["steer.json", "cfg.json", "sae_weights.safetensors"])
def test_every_file_missing_or_truncated(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(PackError):
        load_pack(folder)
    (folder / name).unlink()
    with pytest.raises(PackError):
        load_pack(folder)


def test_an_oversized_pack_is_neither_read_nor_written(folder: Path, tmp_path: Path) -> None:
    (folder / "extra").write_bytes(b"0" * MAX_PACK_BYTES)
    with pytest.raises(PackError, match="at most"):
        load_pack(folder)
    with pytest.raises(PackError, match="keep fewer features"):
        save_pack(build_pack(), tmp_path / "big", card="x" * MAX_PACK_BYTES)
    assert not (tmp_path / "big").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["mine"], "nothing half-written stays behind"


@pytest.mark.parametrize("d_in", [384, 512, 768, 1024, 1280])
def test_a_pack_has_room_for_as_many_features_as_is_said(d_in: int, tmp_path: Path) -> None:
    n, rng = most_features(d_in), np.random.default_rng(0)
    assert n >= 64
    gate = Gate(rng.standard_normal(n).astype(np.float32), 0.1, 25, 300, (1.0, -1.0), (1.0, -1.0))
    ids = tuple(range(60_000, 60_000 + n))
    edits = tuple(Edit(i, "scale", float(rng.standard_normal())) for i in ids[:128])
    pack = replace(random_pack(d_in, "0" * 64, n), feature_ids=ids, gate=gate, edits=edits)
    folder = save_pack(pack, tmp_path / "wide", card="x" * 4000, picture=bytes(35_000))
    rows = rng.standard_normal((d_in // 64, d_in)).astype(np.float32)
    save_readout(folder, Readout(rows, rows, 0.0, "0" * 64, 1000, 0.0, 0.0))
    assert load_pack(folder).features.n_features == n
    assert sum(file.stat().st_size for file in folder.iterdir()) > 0.9 * MAX_PACK_BYTES, "and not many fewer"


def test_an_unwritable_target_is_one_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        save_pack(build_pack(), tmp_path / "file" / "pack", card="")


def test_unknown_names_get_the_nearest_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEER_ASR_PACKS", str(folder.parent))
    assert "mine" in {info.name for info in list_packs()}
    assert load_pack("mine").path == folder
    with pytest.raises(PackError, match="did you mean 'mine'"):
        load_pack("mien")
    with pytest.raises(PackError, match="is not a steer pack"):
        load_pack(folder.parent)


def test_a_broken_neighbour_does_not_get_in_the_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = folder.parent / "broken"
    broken.mkdir()
    (broken / "steer.json").write_text("{")
    monkeypatch.setenv("STEER_ASR_PACKS", str(folder.parent))
    assert load_pack("default", model_sha256="0" * 64).path == folder
    assert "broken" in caplog.text
    with pytest.raises(PackError, match="cannot be read"):
        load_pack(broken)


def test_default_is_the_pack_made_for_the_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEER_ASR_PACKS", str(folder.parent))
    assert load_pack("default", model_sha256="0" * 64).path == folder
    with pytest.raises(PackError, match="no default pack for 'huge'.*ffff"):
        load_pack("default", model_sha256="f" * 64, model_name="huge")


def test_a_pack_for_another_model_is_refused_naming_both(folder: Path) -> None:
    pack = load_pack(folder)
    pack.check_fits(sha256="0" * 64, model_name="tiny-random", d_model=4)
    with pytest.raises(PackMismatchError, match="tiny-random.*000000000000.*'base'.*d01c3014881c"):
        pack.check_fits(sha256="d01c3014881c9c6f", model_name="base", d_model=4)
    with pytest.raises(PackMismatchError, match="front-end"):
        pack.check_fits(sha256="0" * 64, model_name="tiny-random", d_model=4, front_end="transformers")
    with pytest.raises(PackMismatchError, match="4 wide"):
        pack.check_fits(sha256="0" * 64, model_name="tiny-random", d_model=512)
    with pytest.raises(PackMismatchError, match=r"encoder\.layers\.3"):
        build_pack(hook_point="encoder.layers.3").check_output_hook()


def test_features_that_would_fire_everywhere_are_refused() -> None:
    with pytest.raises(PackError, match="threshold is negative"):
        axis_features(threshold=-1.0)


def test_edits_are_checked_when_a_pack_is_built() -> None:
    with pytest.raises(PackError, match="no feature 1"):
        build_pack(edits=(Edit(1, "scale", 0.0),))


def test_the_hash_is_that_of_the_effect(tmp_path: Path) -> None:
    """Card, name, curve and provenance may change; a weight, an edit or the gate may not."""
    pack = random_pack(16, "a" * 64, gate=open_gate(16))
    told = replace(open_gate(16), moment_calibration=(1.0, 2.0))
    assert replace(pack, gate=told).sha256 == pack.sha256, "what is told of moments decides nothing"
    same = replace(pack, name="other", calibration=({"strength": 1.0},), provenance={"licence": "MIT"}, path=tmp_path)
    assert same.sha256 == pack.sha256
    assert load_pack(save_pack(pack, tmp_path / "saved", card="# Card")).sha256 == pack.sha256
    W_dec = pack.features.W_dec.copy()
    W_dec[0, 0] += 1e-3
    others = [
        replace(pack, features=replace(pack.features, W_dec=W_dec)),
        replace(pack, edits=pack.edits[1:]),
        replace(pack, gate=None),
        replace(pack, base_sha256="b" * 64),
        replace(pack, hook_point="encoder.layers.0"),
    ]
    assert len({pack.sha256, *(other.sha256 for other in others)}) == 6
