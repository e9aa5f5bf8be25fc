"""`steer-asr-train readout`: what is written beside a pack, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from steer_asr.compiling import distil
from steer_asr.compiling.readout import load_readout
from steer_asr.errors import PackError, PackMismatchError
from steer_asr.gate import Gate
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import load_pack, save_pack
from steer_asr_training.cli import app
from steer_asr_training.encoders import Window
from steer_asr_training.readout import add_readout
from steer_asr_training.store import ActivationStore, open_store, write_shard
from tests.steer_asr.packs import random_pack
from tests.tiny_whisper import HEADS, WIDTH

GATE = Gate(np.eye(16)[0] * 3, -4.0, 11, 1500, (1.0, 0.0), (1.0, 0.0))


@pytest.fixture
def tiny(tiny_whisper_dir: Path) -> ModelFiles:
    return find_model(tiny_whisper_dir)


def collected(tiny: ModelFiles, folder: Path, sha256: str, n: int) -> ActivationStore:
    """Every other window has some of the direction that the gate takes for speech."""
    rng = np.random.default_rng(0)
    direction = random_pack(WIDTH, sha256).features.W_dec[0]
    windows = []
    for i in range(n):
        x = 0.2 * rng.standard_normal((200, WIDTH)).astype(np.float32)
        x[50:90] += 4.0 * (i % 2) * direction
        windows.append(Window({"encoder.output": x}, n_real_frames=200))
    open_store(folder, {"model": str(tiny.path), "model_sha256": sha256, "n_shards": 1, "n_windows": n})
    write_shard(folder, 0, windows, [{"kind": ("nonspeech", "speech")[i % 2]} for i in range(n)])
    return ActivationStore(folder)


def test_it_lies_beside_the_pack_and_fits_it(tiny: ModelFiles, tmp_path: Path) -> None:
    save_pack(random_pack(WIDTH, tiny.sha256, gate=GATE), tmp_path / "pack", card="")
    store = collected(tiny, tmp_path / "store", tiny.sha256, 60)
    result = CliRunner().invoke(app, ["readout", str(tmp_path / "pack"), str(store.folder)])
    assert result.exit_code == 0, result.output
    readout = load_readout(load_pack(tmp_path / "pack"))
    assert readout is not None
    assert (readout.heads, readout.windows) == (HEADS, 60)
    said = [readout.log_odds(store.window(i, "encoder.output").astype(np.float32)) > 0 for i in range(60)]
    assert np.mean(np.equal(said, np.arange(60) % 2 == 1)) > 0.9


def test_what_does_not_belong_together_is_refused(tiny: ModelFiles, tmp_path: Path) -> None:
    pack = random_pack(WIDTH, tiny.sha256, gate=GATE)
    with pytest.raises(PackError, match="no folder"):
        add_readout(pack, collected(tiny, tmp_path / "a", tiny.sha256, 2))
    save_pack(pack, tmp_path / "pack", card="")
    with pytest.raises(PackMismatchError, match="was made for"):
        add_readout(load_pack(tmp_path / "pack"), collected(tiny, tmp_path / "b", "1" * 64, 2))
    with pytest.raises(PackMismatchError, match=f"needs {distil.FEWEST} windows"):
        add_readout(load_pack(tmp_path / "pack"), collected(tiny, tmp_path / "c", tiny.sha256, 6))
