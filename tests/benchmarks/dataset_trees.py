"""Every dataset layout as a tiny tree: the paths and tables of the real one, a tenth of a second of noise per clip."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.helpers import RATE_HZ, noise


def add(path: Path, seconds: float = 0.1) -> Path:
    """A file of noise, WAV or FLAC by its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flac = path.suffix == ".flac"
    with av.open(str(path), "w", format="flac" if flac else "wav") as container:
        stream = container.add_stream("flac" if flac else "pcm_s16le", rate=RATE_HZ)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        samples = np.round(noise(seconds) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def librispeech(folder: Path) -> Path:
    """Two utterances of speaker 61 in test-clean, one of speaker 7 in dev-other."""
    root = folder / "LibriSpeech"
    write(root / "README.TXT", "...")
    write(root / "test-clean" / "61" / "9" / "61-9.trans.txt", "61-9-0000 HE SAID", "61-9-0001 IT WAS")
    write(root / "dev-other" / "7" / "8" / "7-8.trans.txt", "7-8-0000 OTHER")
    for name in ("test-clean/61/9/61-9-0000", "test-clean/61/9/61-9-0001", "dev-other/7/8/7-8-0000"):
        add(root / f"{name}.flac")
    return root


def esc50(folder: Path) -> Path:
    root = folder / "ESC-50-master"
    rows = (
        *("1-100-A-0.wav,1,0,dog,True,100,A", "4-200-A-26.wav,4,26,laughing,False,200,A"),
        "5-200-B-43.wav,5,43,car_horn,False,200,B",
    )
    write(root / "meta" / "esc50.csv", "filename,fold,target,category,esc10,src_file,take", *rows)
    for row in rows:
        add(root / "audio" / row.partition(",")[0])
    return root


def urbansound8k(folder: Path) -> Path:
    root = folder / "UrbanSound8K"
    rows = (
        *("11-3-0-0.wav,11,0,4,1,5,3,dog_bark", "12-2-0-1.wav,12,0,4,1,5,2,children_playing"),
        *("12-9-0-2.wav,12,0,4,2,10,9,street_music", "13-4-0-0.wav,13,0,4,1,10,4,drilling"),
    )
    write(root / "metadata" / "UrbanSound8K.csv", "slice_file_name,fsID,start,end,salience,fold,classID,class", *rows)
    for row in rows:
        fields = row.split(",")
        add(root / "audio" / f"fold{fields[5]}" / fields[0])
    return root


def musan(folder: Path) -> Path:
    """Music without vocals, with vocals, and without a line; noise; German speech."""
    root = folder / "musan"
    for name in ("music/fma/music-fma-0000", "music/fma/music-fma-0001", "music/fma/music-fma-0002"):
        add(root / f"{name}.wav")
    add(root / "noise" / "free-sound" / "noise-free-sound-0000.wav")
    add(root / "speech" / "librivox" / "speech-librivox-0000.wav")
    write(
        *(
            root / "music" / "fma" / "ANNOTATIONS",
            "music-fma-0000 jazz,blues N Some_Band",
            "music-fma-0001 pop Y Singer",
        ),
    )
    write(root / "speech" / "librivox" / "ANNOTATIONS", "speech-librivox-0000 f german")
    return root


def fsd50k(folder: Path) -> Path:
    """Piano, a dog and chatter in dev; laughter, and a voice of an unknown sort, in eval."""
    root = folder / "FSD50K"
    write(
        root / "FSD50K.ground_truth" / "dev.csv",
        "fname,labels,mids,split",
        '1,"Piano,Music","/m/05r5c,/m/04rlf",train',
        '2,"Bark,Dog,Animal","/m/05tny_,/m/0bt9lr,/m/0jbk",val',
        '3,"Chatter,Human_group_actions","/m/07rkbfh,/t/dd00012",train',
    )
    write(
        root / "FSD50K.ground_truth" / "eval.csv",
        "fname,labels,mids",
        '4,"Laughter,Human_voice","/m/01j3sz,/m/09l8g"',
        "5,Human_voice,/m/09l8g",
    )
    write(
        root / "FSD50K.metadata" / "dev_clips_info_FSD50K.json",
        '{"1": {"license": "http://creativecommons.org/licenses/by-nc/3.0/", "uploader": "ann"}}',
    )
    for name in ("dev_audio/1", "dev_audio/2", "dev_audio/3", "eval_audio/4", "eval_audio/5"):
        add(root / f"FSD50K.{name}.wav")
    return root


def wham(folder: Path) -> Path:
    root = folder / "wham_noise"
    header = "utterance_id,Noise Band,File ID,L to R Width (cm),Reverberation Level,Location ID,Location Day ID"
    write(root / "metadata" / "noise_meta_tt.csv", header, "a.wav,1,f1,17 cm,h,7,1")
    write(root / "metadata" / "noise_meta_cv.csv", header, "b.wav,2,f2,17 cm,l,8,1")
    write(root / "metadata" / "noise_meta_tr.csv", header)
    add(root / "tt" / "a.wav")
    add(root / "cv" / "b.wav")
    return root


def demand(folder: Path) -> Path:
    root = folder / "DEMAND"
    for name in ("DKITCHEN/ch01", "DKITCHEN/ch02", "SCAFE/ch01", "SCAFE/ch16", "OMEETING/ch01"):
        add(root / f"{name}.wav")
    return root


def audioset(folder: Path) -> Path:
    """Clips under the three ways to call them, one of speech, and a line without a file."""
    root = folder / "audioset"
    write(
        root / "eval_segments.csv",
        "# Segments csv created Sun Mar  5 10:54:31 2017",
        "# num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804",
        "# YTID, start_seconds, end_seconds, positive_labels",
        '--aaa, 30.000, 40.000, "/m/0bt9lr,/m/0jbk"',
        'bbb, 30.000, 40.000, "/m/03v3yw"',
        'spoken, 0.000, 10.000, "/m/0bt9lr,/m/09x0r"',
        'gone, 0.000, 10.000, "/m/0jbk"',
    )
    write(
        root / "balanced_train_segments.csv",
        "# YTID, start_seconds, end_seconds, positive_labels",
        'ccc, 30.000, 40.000, "/m/01j3sz"',
    )
    write(root / "class_labels_indices.csv", "index,mid,display_name", '0,/m/0bt9lr,"Dog"')
    for name in ("Y--aaa", "bbb_30", "Yspoken", "ccc_30000_40000"):
        add(root / "clips" / f"{name}.wav")
    return root


def common_voice(folder: Path) -> Path:
    """Swedish; a sentence that opens a quote and does not close it, as they have them."""
    root = folder / "cv-corpus-1.0"
    header = "client_id\tpath\tsentence_id\tsentence\tup_votes"
    write(root / "sv-SE" / "dev.tsv", header, 'c1\t1.wav\ts1\t"Hej du\t2')
    write(root / "sv-SE" / "test.tsv", header, "c2\t2.wav\ts2\tJa.\t2")
    write(root / "sv-SE" / "validated.tsv", header, 'c1\t1.wav\ts1\t"Hej du\t2', "c2\t2.wav\ts2\tJa.\t2")
    write(root / "sv-SE" / "clip_durations.tsv", "clip\tduration[ms]", "1.wav\t1250")
    for name in "12":
        add(root / "sv-SE" / "clips" / f"{name}.wav")
    return root


def fleurs(folder: Path) -> Path:
    """Two who read one English sentence, unpacked in audio/; a Chinese one, unpacked beside its table."""
    root = folder / "fleurs"
    english = ("A Dog.", "a dog", "a | d o g |", "1600", "MALE")
    write(root / "en_us" / "dev.tsv", *("\t".join(("17", f"{name}.wav", *english)) for name in "12"))
    write(root / "en_us" / "test.tsv", "\t".join(("18", "3.wav", *english)))
    write(root / "cmn_hans_cn" / "test.tsv", "\t".join(("5", "9.wav", "你好。", "你好", "你 好", "1600", "FEMALE")))
    for name in ("en_us/audio/dev/1", "en_us/audio/dev/2", "cmn_hans_cn/test/9"):
        add(root / f"{name}.wav")
    return root


def folder(folder: Path) -> Path:
    """Rain without a text; a transcript of two lines; an empty one; a hidden file."""
    root = folder / "mine"
    add(root / "rain" / "a.wav")
    add(root / "rain" / ".hidden.wav")
    add(root / "test" / "b.wav")
    write(root / "test" / "b.txt", "two", "lines")
    add(root / "test" / "quiet.WAV")
    (root / "test" / "quiet.txt").touch()
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    **{"librispeech": librispeech, "common_voice": common_voice, "fleurs": fleurs},
    **{"esc50": esc50, "urbansound8k": urbansound8k, "fsd50k": fsd50k, "musan": musan, "wham_noise": wham},
    **{"demand": demand, "audioset": audioset, "folder": folder},
}
