from __future__ import annotations

import os
from pathlib import Path

import pytest

from steer_asr._files import atomic_path, write_text
from steer_asr.errors import OutputError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    write_text(target, "one")
    with pytest.raises(RuntimeError, match="midway"), atomic_path(target) as temporary:
        temporary.write_text("tw")
        raise RuntimeError("midway")
    assert target.read_text() == "one"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with atomic_path(tmp_path / "pack") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [path.name for path in (tmp_path / "pack").iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_the_old_folder_survives_a_failed_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "old").write_text("old")
    real, calls = os.replace, 0

    def replace(source: object, target: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device")
        real(source, target)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OutputError, match="No space left on device; nothing was changed"):
        make(tmp_path / "pack")
    assert [path.name for path in (tmp_path / "pack").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def make(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.mkdir()


def test_a_full_disk_is_one_typed_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OutputError, match="No space left"), atomic_path(tmp_path / "a") as temporary:
        os.symlink("/dev/full", temporary)
        temporary.write_text("x" * 100_000)
    assert list(tmp_path.iterdir()) == []
