"""What an import costs: `import steer_asr` nothing but the standard library, the CTranslate2 path no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "ray", "fastapi", "jiwer", "matplotlib", "sklearn")
FROM_EXTRAS = (*HEAVY, "whisper_normalizer", "pydantic", "pydantic_settings", "yaml")


def run(code: str) -> str:
    """What a fresh interpreter prints; it must not fail."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_steer_asr_loads_the_standard_library_alone() -> None:
    loaded = run(
        "import sys; before = set(sys.modules); import steer_asr; steer_asr.__version__, dir(steer_asr)\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    assert loaded == "['steer_asr']"


def test_loading_a_model_loads_nothing_heavy(tiny_whisper_dir: Path) -> None:
    loaded = run(
        "import sys, steer_asr\n"
        f"steer_asr.load_model({str(tiny_whisper_dir)!r}, device='cpu', cpu_threads=1)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert loaded == "[]"


def test_without_any_extra_audio_is_transcribed(tiny_whisper_dir: Path) -> None:
    """As on a machine that has the base dependencies only: everything that extras bring cannot be imported."""
    text = run(
        "import sys, numpy as np\n"
        f"sys.modules.update(dict.fromkeys({FROM_EXTRAS}))\n"
        "import steer_asr\n"
        f"model = steer_asr.load_model({str(tiny_whisper_dir)!r}, device='cpu', cpu_threads=1)\n"
        "sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)\n"
        "result = steer_asr.transcribe(sound, model=model, steer=None, beam_size=1, max_new_tokens=5, temperature=0)\n"
        "print(result.duration_s, steer_asr.list_packs() is not None)"
    )
    assert text == "1.0 True"


def test_every_public_name_is_there_and_no_other() -> None:
    import steer_asr

    for name in steer_asr.__all__:
        assert getattr(steer_asr, name) is not None
    assert dir(steer_asr) == sorted(steer_asr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'transcrib'; it offers .*transcribe"):
        _ = steer_asr.transcrib  # pyright: ignore[reportAttributeAccessIssue]
