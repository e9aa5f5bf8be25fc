from __future__ import annotations

import json
from pathlib import Path

import pytest

from steer_asr.errors import AudioError, ManifestError, SteerOptionError
from steer_asr_benchmarks.clips import Shard, load_clips


def manifest(folder: Path, name: str, count: int) -> Path:
    (folder / "audio").mkdir(exist_ok=True)
    lines = []
    for i in range(count):
        (folder / "audio" / f"{i}.wav").touch()
        lines.append(json.dumps({"audio_filepath": f"audio/{i}.wav", "duration": 1}))
    path = folder / name
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_names_do_not_depend_on_where_the_manifest_lies(tmp_path: Path) -> None:
    clips = load_clips([manifest(tmp_path, "a.jsonl", 1), manifest(tmp_path, "b.jsonl", 2)])
    assert [named.id for named in clips] == ["a.jsonl:audio/0.wav", "b.jsonl:audio/0.wav", "b.jsonl:audio/1.wav"]


@pytest.mark.parametrize(
    ("limit", "kept"), [(1, [0]), (2, [0, 5]), (3, [0, 3, 6]), (10, list(range(10))), (99, list(range(10)))]
)
def test_a_limit_is_spread_over_each_manifest(tmp_path: Path, limit: int, kept: list[int]) -> None:
    clips = load_clips([manifest(tmp_path, "a.jsonl", 10), manifest(tmp_path, "b.jsonl", 1)], limit)
    assert [named.id for named in clips] == [f"a.jsonl:audio/{i}.wav" for i in kept] + ["b.jsonl:audio/0.wav"]


def test_shards_are_disjoint_and_complete(tmp_path: Path) -> None:
    clips = load_clips([manifest(tmp_path, "a.jsonl", 7)])
    parts = [Shard(i, 3).of(clips) for i in (1, 2, 3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert sorted(named.id for part in parts for named in part) == sorted(named.id for named in clips)
    assert Shard.parse("2/3") == Shard(2, 3)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2", "1/0", "1/2/3", ""])
def test_a_shard_is_a_part_of_a_whole(text: str) -> None:
    with pytest.raises(SteerOptionError, match="I/N"):
        Shard.parse(text)


def test_missing_audio_is_named_before_anything_runs(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a.jsonl", 3)
    (tmp_path / "audio" / "1.wav").unlink()
    with pytest.raises(AudioError, match=r"a\.jsonl:audio/1\.wav: there is no such file \(1 of 3 clips lack theirs\)"):
        load_clips([path])


def test_a_clip_listed_twice(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a.jsonl", 1)
    with pytest.raises(ManifestError, match=r"a\.jsonl:audio/0\.wav is listed twice"):
        load_clips([path, path])


def test_limit_is_positive(tmp_path: Path) -> None:
    with pytest.raises(SteerOptionError, match="limit 0"):
        load_clips([manifest(tmp_path, "a.jsonl", 1)], 0)
