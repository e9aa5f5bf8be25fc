"""Every layout as a tiny tree: exactly which clips come out of it, and what is said about half of one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from steer_asr.errors import AudioError, ManifestError, SteerOptionError
from steer_asr.manifest import Clip
from steer_asr_benchmarks.clips import describe_source, load_clips
from steer_asr_benchmarks.datasets.base import DatasetError, whisper_language
from steer_asr_benchmarks.datasets.durations import measured, read_duration_s
from steer_asr_benchmarks.datasets.layouts import LAYOUTS, recognise
from steer_asr_benchmarks.datasets.source import Contents, Source, read_source
from steer_asr_benchmarks.datasets.voices import WORDLESS, WORDS, category_of, leaves_out
from tests.benchmarks.dataset_trees import (
    TREES,
    add,
    audioset,
    common_voice,
    demand,
    esc50,
    fleurs,
    folder,
    fsd50k,
    librispeech,
    musan,
    urbansound8k,
    wham,
)


def read(root: Path | str) -> Contents:
    return read_source(Source.parse(root))


def about(contents: Contents) -> dict[str, tuple[str, ...]]:
    """By name: kind, text, label, source, group, lang, split, category."""
    keys = ("kind", "text", "label", "source", "group", "lang", "split", "category")
    return {contents.id_of(clip): tuple(getattr(clip, key) for key in keys) for clip in contents.clips}


def test_librispeech(tmp_path: Path) -> None:
    contents = read(librispeech(tmp_path))
    source, common = "librispeech/test-clean", ("en", "test-clean", "utterance")
    assert about(contents) == {
        "librispeech:dev-other/7/8/7-8-0000.flac": (
            *("speech", "OTHER", "verbatim", "librispeech/dev-other", "librispeech/7", "en", "dev-other", "utterance"),
        ),
        "librispeech:test-clean/61/9/61-9-0000.flac": (
            *("speech", "HE SAID", "verbatim", source, "librispeech/61", *common),
        ),
        "librispeech:test-clean/61/9/61-9-0001.flac": (
            *("speech", "IT WAS", "verbatim", source, "librispeech/61", *common),
        ),
    }
    assert {clip.licence for clip in contents.clips} == {"CC BY 4.0"}


def test_a_split_of_librispeech_alone_has_the_same_names(tmp_path: Path) -> None:
    root = librispeech(tmp_path)
    part = read(root / "test-clean")
    assert [part.id_of(clip) for clip in part.clips] == [
        "librispeech:test-clean/61/9/61-9-0000.flac",
        "librispeech:test-clean/61/9/61-9-0001.flac",
    ]
    assert about(part) == about(read(f"{root}::test-clean"))


def test_esc50(tmp_path: Path) -> None:
    contents = read(esc50(tmp_path))
    assert about(contents) == {
        "esc50:audio/1-100-A-0.wav": ("nonspeech", "", "dog", "esc50", "esc50/100", "", "fold1", "animal"),
        "esc50:audio/4-200-A-26.wav": ("nonspeech", "", "laughing", "esc50", "esc50/200", "", "fold4", "human"),
        "esc50:audio/5-200-B-43.wav": ("nonspeech", "", "car_horn", "esc50", "esc50/200", "", "fold5", "urban"),
    }
    assert [clip.licence for clip in contents.clips] == ["CC BY 3.0", "CC BY-NC 3.0", "CC BY-NC 3.0"]


def test_urbansound8k(tmp_path: Path) -> None:
    contents, name = read(urbansound8k(tmp_path)), "urbansound8k"
    assert about(contents) == {
        f"{name}:audio/fold5/11-3-0-0.wav": ("nonspeech", "", "dog_bark", name, f"{name}/11", "", "fold5", "animal"),
        f"{name}:audio/fold5/12-2-0-1.wav": (
            *("nonspeech", "", "children_playing", name, f"{name}/12", "", "fold5", "voices"),
        ),
        f"{name}:audio/fold10/12-9-0-2.wav": (
            *("nonspeech", "", "street_music", name, f"{name}/12", "", "fold10", "voices"),
        ),
        f"{name}:audio/fold10/13-4-0-0.wav": ("nonspeech", "", "drilling", name, f"{name}/13", "", "fold10", "urban"),
    }


def test_musan_counts_no_voice_as_non_speech(tmp_path: Path) -> None:
    contents = read(musan(tmp_path))
    noise = "noise-free-sound-0000"
    speech = "speech-librivox-0000"
    assert about(contents) == {
        "musan:music/fma/music-fma-0000.wav": (
            *("nonspeech", "", "jazz,blues", "musan/music", "musan/Some_Band", "", "music", "music"),
        ),
        f"musan:noise/free-sound/{noise}.wav": (
            *("nonspeech", "", "free-sound", "musan/noise", f"musan/{noise}", "", "noise", "noise"),
        ),
        f"musan:speech/librivox/{speech}.wav": (
            *("speech", "", "no transcript", "musan/speech", f"musan/{speech}", "de", "speech", "speech"),
        ),
    }
    assert {row.audio_path.name: row.reason for row in contents.left_out} == {
        "music-fma-0001.wav": "music with vocals",
        "music-fma-0002.wav": "music without an annotation on vocals",
    }


def test_a_part_of_musan_alone(tmp_path: Path) -> None:
    root = musan(tmp_path)
    part = read(root / "noise")
    assert about(part) == about(read(f"{root}::noise"))
    assert len(part.clips) == 1
    assert part.left_out == []


def test_fsd50k_leaves_out_what_may_hold_words(tmp_path: Path) -> None:
    contents = read(fsd50k(tmp_path))
    assert about(contents) == {
        "fsd50k:FSD50K.dev_audio/1.wav": ("nonspeech", "", "Piano", "fsd50k", "fsd50k/ann", "", "train", "music"),
        "fsd50k:FSD50K.dev_audio/2.wav": ("nonspeech", "", "Bark", "fsd50k", "fsd50k/2", "", "val", "animal"),
        "fsd50k:FSD50K.eval_audio/4.wav": ("nonspeech", "", "Laughter", "fsd50k", "fsd50k/4", "", "eval", "human"),
    }
    assert contents.clips[0].licence == "CC BY-NC"
    assert {row.audio_path.stem: (row.reason, row.split) for row in contents.left_out} == {
        "3": ("words may be heard: Chatter", "train"),
        "5": ("words may be heard: Human voice", "eval"),
    }


def test_fsd50k_with_one_part_unpacked(tmp_path: Path) -> None:
    root = fsd50k(tmp_path)
    for path in (root / "FSD50K.dev_audio").iterdir():
        path.unlink()
    (root / "FSD50K.dev_audio").rmdir()
    assert {clip.split for clip in read(root).clips} == {"eval"}


def test_wham(tmp_path: Path) -> None:
    contents, name = read(wham(tmp_path)), "wham_noise"
    assert about(contents) == {
        f"{name}:cv/b.wav": ("nonspeech", "", "location 8", name, f"{name}/f2", "", "cv", "voices"),
        f"{name}:tt/a.wav": ("nonspeech", "", "location 7", name, f"{name}/f1", "", "tt", "voices"),
    }


def test_demand_takes_one_channel_and_no_meeting(tmp_path: Path) -> None:
    contents = read(demand(tmp_path))
    assert about(contents) == {
        "demand:DKITCHEN/ch01.wav": ("nonspeech", "", "DKITCHEN", "demand", "demand/DKITCHEN", "", "", "domestic"),
        "demand:SCAFE/ch01.wav": ("nonspeech", "", "SCAFE", "demand", "demand/SCAFE", "", "", "voices"),
    }
    assert contents.reasons() == {"words may be heard: a meeting": 1}


def test_audioset(tmp_path: Path) -> None:
    contents = read(audioset(tmp_path))
    assert about(contents) == {
        "audioset:clips/Y--aaa.wav": (*("nonspeech", "", "Dog", "audioset", "audioset/--aaa", "", "eval", "animal"),),
        "audioset:clips/bbb_30.wav": ("nonspeech", "", "/m/03v3yw", "audioset", "audioset/bbb", "", "eval", "sound"),
        "audioset:clips/ccc_30000_40000.wav": (
            *("nonspeech", "", "/m/01j3sz", "audioset", "audioset/ccc", "", "balanced_train", "human"),
        ),
    }
    assert contents.reasons() == {"words may be heard: Speech": 1, "no file for this line": 1}


def test_common_voice(tmp_path: Path) -> None:
    contents = read(common_voice(tmp_path))
    assert about(contents) == {
        "common_voice:sv-SE/clips/1.wav": (
            *("speech", '"Hej du', "verbatim", "common_voice/sv-SE/dev", "common_voice/c1", "sv", "dev", "utterance"),
        ),
        "common_voice:sv-SE/clips/2.wav": (
            *("speech", "Ja.", "verbatim", "common_voice/sv-SE/test", "common_voice/c2", "sv", "test", "utterance"),
        ),
    }
    assert [clip.duration_s for clip in contents.clips][0] == 1.25, "as clip_durations.tsv says"
    assert math.isnan(contents.clips[1].duration_s)


def test_fleurs(tmp_path: Path) -> None:
    contents = read(fleurs(tmp_path))
    assert about(contents) == {
        "fleurs:cmn_hans_cn/test/9.wav": (
            *("speech", "你好。", "verbatim", "fleurs/zh/test", "fleurs/cmn_hans_cn/5", "zh", "test", "utterance"),
        ),
        "fleurs:en_us/audio/dev/1.wav": (
            *("speech", "A Dog.", "verbatim", "fleurs/en/dev", "fleurs/en_us/17", "en", "dev", "utterance"),
        ),
        "fleurs:en_us/audio/dev/2.wav": (
            *("speech", "A Dog.", "verbatim", "fleurs/en/dev", "fleurs/en_us/17", "en", "dev", "utterance"),
        ),
    }
    assert [clip.duration_s for clip in contents.clips] == [0.1, 0.1, 0.1], "num_samples at 16 kHz"


@pytest.mark.parametrize(("tree", "language"), [(common_voice, "sv-SE"), (fleurs, "en_us")])
def test_one_language_has_the_same_names(tmp_path: Path, tree: Callable[[Path], Path], language: str) -> None:
    root = tree(tmp_path)
    whole, part = about(read(root)), about(read(root / language))
    assert part == {name: row for name, row in whole.items() if f":{language}/" in name}
    assert part


def test_a_folder_of_audio(tmp_path: Path) -> None:
    assert about(read(folder(tmp_path))) == {
        "mine:rain/a.wav": ("nonspeech", "", "rain", "mine", "mine/rain/a.wav", "", "", "sound"),
        "mine:test/b.wav": ("speech", "two lines", "verbatim", "mine", "mine/test/b.wav", "", "test", "utterance"),
        "mine:test/quiet.WAV": ("nonspeech", "", "test", "mine", "mine/test/quiet.WAV", "", "test", "sound"),
    }


def test_a_folder_where_only_some_have_transcripts(tmp_path: Path) -> None:
    root = folder(tmp_path)
    add(root / "test" / "c.wav")
    with pytest.raises(DatasetError, match=r"1 of 3 files have no transcript \(c\.wav lacks c\.txt\)"):
        read(root)


def test_every_layout_is_told_from_all_others(tmp_path: Path) -> None:
    found = {name: recognise(tree(tmp_path))[0].name for name, tree in TREES.items()}
    assert found == {name: name for name in TREES}
    assert set(TREES) == {layout.name for layout in LAYOUTS}


@pytest.mark.parametrize(
    ("tree", "removed", "missing"),
    [
        (librispeech, "test-clean/61/9/61-9.trans.txt", r"LibriSpeech, but SPEAKER/CHAPTER/\*\.trans\.txt is missing"),
        (librispeech, "dev-other/7/8/7-8-0000.flac", r"LibriSpeech, but SPEAKER/CHAPTER/\*\.flac is missing"),
        (esc50, "meta/esc50.csv", r"ESC-50, but meta/esc50\.csv is missing"),
        (esc50, "audio/*", r"ESC-50, but audio/ is missing"),
        (urbansound8k, "metadata/UrbanSound8K.csv", r"UrbanSound8K, but metadata/UrbanSound8K\.csv is missing"),
        (urbansound8k, "audio/*/*", r"UrbanSound8K, but audio/foldN/ is missing"),
        (musan, "music/fma/ANNOTATIONS", r"MUSAN, but music/SOURCE/ANNOTATIONS \(who sings\) is missing"),
        (fsd50k, "FSD50K.ground_truth/eval.csv", r"FSD50K, but FSD50K\.ground_truth/eval\.csv is missing"),
        (wham, "metadata/noise_meta_tt.csv", r"WHAM! noise, but metadata/noise_meta_tt\.csv is missing"),
        (wham, "[tc]*/*.wav", r"WHAM! noise, but tr/, cv/ or tt/ is missing"),
        (demand, "SCAFE/ch01.wav", r"DEMAND, but SCAFE/ch01\.wav is missing"),
        (audioset, "clips/*", r"AudioSet-style CSV, but a folder of clips is missing"),
        (common_voice, "sv-SE/clips", r"Common Voice, but clips/ is missing"),
        (fleurs, "en_us/dev.tsv", r"FLEURS, but dev\.tsv is missing"),
        (fleurs, "en_us/audio/dev/*", r"FLEURS, but audio/test/ \(or train, dev\) with \.wav files is missing"),
    ],
)
def test_half_a_layout_says_what_is_missing_and_what_is_known(
    tmp_path: Path, tree: Callable[[Path], Path], removed: str, missing: str
) -> None:
    root = tree(tmp_path)
    doomed = list(root.glob(removed))
    assert doomed
    for path in doomed:
        path.rename(tmp_path / f"gone-{path.name}")
    with pytest.raises(
        DatasetError, match=rf"looks like {missing}\. Known layouts: LibriSpeech, Common Voice, .*folder"
    ):
        read(root)


def test_neither_a_dataset_nor_audio(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()
    with pytest.raises(DatasetError, match="no audio in it. Known layouts: LibriSpeech.*steer-asr-bench datasets"):
        read(tmp_path)


def test_a_folder_of_datasets_is_not_a_heap_of_audio(tmp_path: Path) -> None:
    for tree in TREES.values():
        tree(tmp_path)
    with pytest.raises(DatasetError, match=r"holds some: DEMAND \(DEMAND\), ESC-50-master \(ESC-50\), .*; give one"):
        read(tmp_path)


def test_a_folder_with_half_a_dataset_in_it_is_not_a_heap_of_audio_either(tmp_path: Path) -> None:
    (esc50(tmp_path) / "meta" / "esc50.csv").unlink()
    with pytest.raises(DatasetError, match=r"holds some: ESC-50-master \(incomplete\)"):
        read(tmp_path)


def test_tables_of_audioset_may_lie_in_a_folder(tmp_path: Path) -> None:
    root = audioset(tmp_path)
    before = about(read(root))
    (root / "metadata").mkdir()
    for path in list(root.glob("*.csv")):
        path.rename(root / "metadata" / path.name)
    assert about(read(root)) == before


@pytest.mark.parametrize(
    ("tree", "table", "text", "message"),
    [
        (esc50, "meta/esc50.csv", "filename,fold\n", r"esc50\.csv: has no column target, category, esc10, src_file"),
        (esc50, "meta/esc50.csv", "filename,fold,target,category,esc10,src_file\na,1,x,y,z,1\n", "does not belong"),
        (esc50, "meta/esc50.csv", "filename,fold,target,category,esc10,src_file\n", "no clip of it can be used"),
        (fleurs, "en_us/dev.tsv", "17\t1.wav\tA Dog.\n", r"dev\.tsv:1: not the seven columns of FLEURS"),
        (audioset, "eval_segments.csv", "# YTID, start, end, positive_labels\na, 1\n", "clip 1 has 2 columns"),
        (audioset, "eval_segments.csv", '# YTID, positive_labels\na, x, 2, "/m/0jbk"\n', "'x' or '2' is not a number"),
        (fsd50k, "FSD50K.metadata/dev_clips_info_FSD50K.json", "[]", "does not say of each clip"),
    ],
)
def test_broken_tables(tmp_path: Path, tree: Callable[[Path], Path], table: str, text: str, message: str) -> None:
    root = tree(tmp_path)
    (root / table).write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read(root)


def test_a_table_that_is_not_text(tmp_path: Path) -> None:
    root = esc50(tmp_path)
    (root / "meta" / "esc50.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"esc50\.csv: cannot be read as a table"):
        read(root)


def test_splits(tmp_path: Path) -> None:
    root = esc50(tmp_path)
    assert [clip.split for clip in read(f"{root}::fold4,fold5").clips] == ["fold4", "fold5"]
    assert Source.parse(f"{root}::fold4, fold5,fold4") == Source(root, ("fold4", "fold5"))
    assert Source.parse(Path(f"{root}::fold4")) == Source(root, ("fold4",))
    with pytest.raises(ManifestError, match="unknown split 'fold6'; did you mean 'fold"):
        read(f"{root}::fold6")
    with pytest.raises(ManifestError, match="its clips have no splits"):
        read(f"{demand(tmp_path)}::test")


@pytest.mark.parametrize("text", ["::test", "root::", "root:: , "])
def test_a_source_has_a_path_and_a_split(text: str) -> None:
    with pytest.raises(SteerOptionError, match="is not PATH or PATH::SPLIT"):
        Source.parse(text)


def test_left_out_clips_go_by_split_too(tmp_path: Path) -> None:
    assert read(f"{fsd50k(tmp_path)}::eval").reasons() == {"words may be heard: Human voice": 1}


def test_a_path_with_the_mark_in_it_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "odd::name.jsonl"
    path.write_text('{"audio_filepath": "a.wav", "duration": 1}')
    assert Source.parse(path) == Source(path)


def test_splits_of_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    rows = [
        {"audio_filepath": f"{i}.wav", "duration": 1, "split": split} for i, split in enumerate(("dev", "test", ""))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    for i in range(3):
        add(tmp_path / f"{i}.wav")
    assert [named.id for named in load_clips([f"{path}::test"])] == ["m.jsonl:1.wav"]
    assert len(load_clips([path])) == 3
    with pytest.raises(ManifestError, match="unknown split 'tset'; did you mean 'test'"):
        load_clips([f"{path}::tset"])


def test_clips_of_roots_have_lengths_and_names_that_do_not_depend_on_the_place(tmp_path: Path) -> None:
    first, second = (esc50(tmp_path / place) for place in ("a", "b"))
    second = second.rename(tmp_path / "b" / "renamed")
    loaded = [load_clips([root]) for root in (first, second)]
    assert [named.id for named in loaded[0]] == [named.id for named in loaded[1]]
    assert [named.clip.duration_s for named in loaded[0]] == [0.1, 0.1, 0.1]


def test_roots_and_manifests_together_with_a_limit(tmp_path: Path) -> None:
    clips = load_clips([esc50(tmp_path), f"{librispeech(tmp_path)}::test-clean"], limit=1)
    assert [named.id for named in clips] == ["esc50:audio/1-100-A-0.wav", "librispeech:test-clean/61/9/61-9-0000.flac"]


def test_overlapping_splits_are_refused(tmp_path: Path) -> None:
    root = esc50(tmp_path)
    with pytest.raises(ManifestError, match=r"esc50:audio/4-200-A-26\.wav is listed twice"):
        load_clips([f"{root}::fold4", f"{root}::fold4,fold5"])


def test_audio_that_a_table_names_and_the_disk_lacks(tmp_path: Path) -> None:
    root = esc50(tmp_path)
    (root / "audio" / "4-200-A-26.wav").unlink()
    with pytest.raises(AudioError, match=r"esc50:audio/4-200-A-26\.wav: there is no such file \(1 of 3"):
        load_clips([root])
    assert len(load_clips([f"{root}::fold1,fold5"])) == 2


def test_a_root_in_a_description(tmp_path: Path) -> None:
    root = fsd50k(tmp_path)
    description = describe_source(root)
    digest = description.pop("sha256")
    assert description == {
        "name": "FSD50K",
        "layout": "fsd50k",
        "clips": 3,
        "left_out": {"words may be heard: Chatter": 1, "words may be heard: Human voice": 1},
    }
    assert describe_source(f"{root}::eval")["name"] == "FSD50K::eval"
    (root / "unrelated.txt").touch()
    assert describe_source(root)["sha256"] == digest
    assert describe_source(fsd50k(tmp_path / "elsewhere"))["sha256"] == digest
    add(root / "FSD50K.dev_audio" / "1.wav", seconds=0.2)
    assert describe_source(root)["sha256"] != digest


def test_another_transcript_is_another_dataset(tmp_path: Path) -> None:
    root = librispeech(tmp_path)
    before = describe_source(f"{root}::test-clean")
    transcript = root / "test-clean" / "61" / "9" / "61-9.trans.txt"
    transcript.write_text(transcript.read_text().replace("SAID", "SAYS"))
    assert describe_source(f"{root}::test-clean")["sha256"] != before["sha256"]
    assert describe_source(f"{root}::dev-other") == describe_source(f"{librispeech(tmp_path / 'b')}::dev-other")


def test_lengths_come_from_headers(tmp_path: Path) -> None:
    add(tmp_path / "a.wav", seconds=1.5)
    add(tmp_path / "b.flac", seconds=0.25)
    assert [round(read_duration_s(tmp_path / name), 3) for name in ("a.wav", "b.flac")] == [1.5, 0.25]
    known = Clip(tmp_path / "nowhere.wav", 2.0, "", "nonspeech")
    assert measured([known]) == [known], "a stated length is not looked up"
    (tmp_path / "c.wav").write_bytes(b"no audio at all")
    with pytest.raises(AudioError, match=r"c\.wav: its length cannot be read"):
        read_duration_s(tmp_path / "c.wav")


def test_a_file_whose_header_states_no_length_is_decoded(tmp_path: Path) -> None:
    path = add(tmp_path / "a.flac", seconds=0.25)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples: the last 36 bits of bytes 18 to 25
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert read_duration_s(path) == 0.25


@pytest.mark.parametrize(
    ("ids", "reason", "category"),
    [
        (["/m/09x0r"], "Speech", "sound"),
        (["/m/0jbk", "/m/015lz1"], "Singing", "animal"),
        (["/m/09l8g"], "Human voice", "sound"),
        (["/m/01j3sz", "/m/09l8g"], "", "human"),
        (["/m/01j3sz", "/m/09l8g", "/m/07rkbfh"], "Chatter", "human"),
        (["/m/04rlf"], "", "music"),
        ([], "", "sound"),
    ],
)
def test_where_words_may_be_heard(ids: list[str], reason: str, category: str) -> None:
    assert (leaves_out(ids), category_of(ids)) == (reason, category)


def test_no_class_is_both_words_and_wordless() -> None:
    assert not WORDS.keys() & WORDLESS.keys()


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en_us", "en"),
        ("cmn_hans_cn", "zh"),
        ("zh-CN", "zh"),
        ("zh-HK", "yue"),
        ("yue_hant_hk", "yue"),
        ("nb_no", "no"),
    ],
)
def test_languages_are_whispers(tag: str, code: str) -> None:
    assert whisper_language(tag) == code
