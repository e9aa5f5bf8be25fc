"""One prediction to counts: count once, derive many.

    score = score_record(record)
    score.text.r, score.words, score.wer_counts

Definitions of "text came out", for a clip in which nobody speaks. The letters are those the papers' numbers go by:

| | a clip counts when | who counts so |
| --- | --- | --- |
| R | any word is left after normalisation | Calm-Whisper, AAE |
| W | at least one word in letters is | Zolkepli |
| P | some window has `no_speech_prob` < 0.5, whatever the text | AudioSAE; a proxy, no text is looked at |
| D | a word is left in segments with `no_speech_prob` < 0.6 or `avg_logprob` > -1: Whisper's own rule | 2606.07473 |
| F | a word is left in segments with `no_speech_prob` <= 0.6 | HSP |

P, D and F are None for a clip on which they depend on a score that the system did not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jiwer

from steer_asr.errors import ManifestError
from steer_asr_benchmarks.loops import has_loop
from steer_asr_benchmarks.mixed import OutsideCounts, outside_counts
from steer_asr_benchmarks.moments import FrameScores, frame_scores
from steer_asr_benchmarks.text import has_spaces, is_lexical, normalize, words_of

NOT_VERBATIM = "likely-verbatim"
"""Label of speech whose transcript is not exact: its emptiness counts, its words do not."""


@dataclass(frozen=True)
class TextCame:
    """Whether a clip counts as one with text, by each definition; None where nobody can tell."""

    r: bool
    w: bool
    p: bool | None
    d: bool | None
    f: bool | None


@dataclass(frozen=True)
class WordCounts:
    """Words of a reference (hits, substitutions, deletions) and those that were added (insertions)."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def words(self) -> int:
        """Words of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    def __add__(self, other: WordCounts) -> WordCounts:
        return WordCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True)
class ClipScore:
    """What one system did with one clip in one mode."""

    clip: str
    system: str
    mode: str
    kind: str
    source: str
    group: str
    lang: str
    duration_s: float
    seconds: float
    text: str
    """As the system wrote it."""
    words: int
    """Words written, after normalisation. 0 is what "empty" means everywhere here."""
    came: TextCame
    wer_counts: WordCounts | None
    """None for clips that have no say in WER: non-speech, no transcript or no verbatim one, words without spaces."""
    in_headline: bool
    """Its language is the one that was asked for, so that its WER belongs in the headline."""
    nobody_speaks: float | None
    edited_share: float | None
    label: str = ""
    category: str = ""
    snr_db: float | None = None
    reference: str = ""
    normalized: str = ""
    """The text after normalisation."""
    loops: bool = False
    """Whether a phrase stands in the text several times in a row; see `loops`."""
    cer_counts: WordCounts | None = None
    """The same as `wer_counts` in characters, for languages written without spaces; None for the others."""
    outside: OutsideCounts | None = None
    """Words where nobody speaks; for mixed recordings whose manifest says where somebody does."""
    frames: FrameScores | None = None
    """What a gate said of single frames, for clips of which it is known when somebody speaks."""


def score_record(where: str, record: Mapping[str, Any]) -> ClipScore:
    """Counts one line of predictions.jsonl. Raises `ManifestError` naming `where` when the line lacks something."""
    try:
        return _score(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ManifestError(f"{where}: not a prediction ({type(error).__name__}: {error})") from error


def _score(record: Mapping[str, Any]) -> ClipScore:
    forced = record["language"] if record["language_forced"] else ""
    language = record["lang"] or forced  # the reference's language first, so that all systems are normalised alike
    normalized = normalize(record["text"], language)
    words = words_of(normalized)
    return ClipScore(
        clip=record["clip"],
        system=record["system"],
        mode=record["mode"],
        kind=record["kind"],
        source=record["source"],
        group=record["group"],
        lang=record["lang"],
        duration_s=float(record["duration_s"]),
        seconds=float(record["seconds"]),
        text=record["text"],
        words=len(words),
        came=_text_came(record, words, language),
        wer_counts=_error_counts(record, language) if has_spaces(language) else None,
        in_headline=not forced or not record["lang"] or record["lang"] == forced,
        nobody_speaks=record["nobody_speaks"],
        edited_share=record["edited_share"],
        label=record["label"],
        category=record["category"],
        snr_db=record.get("snr_db"),  # absent from predictions of older versions, as are spans
        reference=record["reference"],
        normalized=" ".join(words),
        loops=has_loop(words),
        cer_counts=None if has_spaces(language) else _error_counts(record, language),
        outside=_outside(record, language),
        frames=frame_scores(record),
    )


def _outside(record: Mapping[str, Any], language: str) -> OutsideCounts | None:
    spans = [(float(start), float(end)) for start, end in record.get("spans") or ()]
    if record["kind"] != "mixed" or not spans:
        return None

    def words_in(text: str) -> int:
        return len(words_of(normalize(text, language)))

    return outside_counts(record["segments"], spans, float(record["duration_s"]), words_in)


def _text_came(record: Mapping[str, Any], words: list[str], language: str) -> TextCame:
    def remains(rule: Callable[[Mapping[str, Any]], bool | None]) -> bool | None:
        """Whether a word is in segments that the rule keeps; None when it may be in one that the rule cannot judge."""

        def word_where(*answers: bool | None) -> bool:
            text = "".join(segment["text"] for segment in record["segments"] if rule(segment) in answers)
            return bool(words_of(normalize(text, language)))

        return True if word_where(True) else None if word_where(True, None) else False

    return TextCame(
        r=bool(words),
        w=any(is_lexical(word) for word in words),
        p=_speech_heard(record),
        d=remains(lambda s: _either(_below(s["no_speech_prob"], 0.6), _below(-1.0, s["avg_logprob"]))),
        f=remains(lambda s: None if s["no_speech_prob"] is None else s["no_speech_prob"] <= 0.6),
    )


def _speech_heard(record: Mapping[str, Any]) -> bool | None:
    """P. Where windows are not told, a segment's score tells of the one it came from, and none of the silent ones."""
    if record["windows"] is not None:
        return any(window["no_speech_prob"] < 0.5 for window in record["windows"])
    return True if any(_below(segment["no_speech_prob"], 0.5) for segment in record["segments"]) else None


def _below(a: float | None, b: float | None) -> bool | None:
    return None if a is None or b is None else a < b


def _either(a: bool | None, b: bool | None) -> bool | None:
    """`a or b`, None when that depends on what is not known."""
    return True if a or b else None if a is None or b is None else False


def _error_counts(record: Mapping[str, Any], language: str) -> WordCounts | None:
    """Errors as everybody counts them: all tokens of the normalised text, lone "." included; characters where words
    have no spaces between them."""
    reference = normalize(record["reference"], language)
    if record["kind"] == "nonspeech" or record["label"] == NOT_VERBATIM or not reference:
        return None
    text = normalize(record["text"], language)
    if has_spaces(language):
        found = jiwer.process_words(reference, text)
    else:
        found = jiwer.process_characters(reference.replace(" ", ""), text.replace(" ", ""))
    return WordCounts(found.hits, found.substitutions, found.deletions, found.insertions)
