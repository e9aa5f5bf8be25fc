"""What a pack does to stored windows: silence on non-speech, change on speech. Decoded by CTranslate2, as served.

    rows = evaluate(pack, store, GreedyDecoder(path, suppress_blank=False), strengths=(0.0, 0.5, 1.0))

This steers and checks learning runs without transcripts; published numbers come from the benchmark on audio files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from steer_asr._progress import Progress
from steer_asr.pack import SteerPack
from steer_asr.steering import steer_frames
from steer_asr_training.answers import BATCH, MODES, GreedyDecoder
from steer_asr_training.store import ActivationStore


@dataclass(frozen=True)
class Outcome:
    """One window in one mode at one strength."""

    window: int
    mode: str
    strength: float
    text: str
    nobody_speaks: float
    edited_share: float


def evaluate(
    pack: SteerPack,
    store: ActivationStore,
    decoder: GreedyDecoder,
    *,
    strengths: Sequence[float] = (1.0,),
    indices: Sequence[int] | None = None,
    lang: str | None = None,
) -> list[Outcome]:
    """Greedy text of every window at every strength, in both modes. `lang` overrides the clips' own languages."""
    indices = range(len(store)) if indices is None else indices
    outcomes: list[Outcome] = []
    with Progress(total=len(indices) * len(strengths), unit="window", label="evaluate") as progress:
        for start in range(0, len(indices), BATCH):
            chunk = list(indices[start : start + BATCH])
            plain = [store.window(i, pack.hook_point).astype(np.float32) for i in chunk]
            langs = [lang or store.windows[i]["lang"] or "en" for i in chunk]
            for strength in strengths:
                steered = [x.copy() for x in plain]
                heard = [store.n_real_frames(i) for i in chunk]
                reports = [steer_frames(x, pack, strength, n) for x, n in zip(steered, heard, strict=True)]
                for mode, timestamps in MODES.items():
                    answers = decoder(np.stack(steered), langs, timestamps=timestamps)
                    outcomes += [
                        Outcome(i, mode, strength, decoder.text(tokens), r.nobody_speaks, float(r.weights.mean()))
                        for i, tokens, r in zip(chunk, answers, reports, strict=True)
                    ]
                progress.advance(len(chunk))
    return outcomes


def summarize(outcomes: Sequence[Outcome], stock: Sequence[Outcome], store: ActivationStore) -> dict[str, float]:
    """Text rate on non-speech; on speech, the share newly empty and the word distance from stock's text.

    `changed_words` is that distance per word of stock's text, so it bounds the rise of WER from above (see
    `steer_asr.calibration`); `speech_words` is how many such words there are.
    """
    before = {(o.window, o.mode): o.text for o in stock}
    quiet = [o for o in outcomes if store.windows[o.window]["kind"] == "nonspeech"]
    spoken = [o for o in outcomes if store.windows[o.window]["kind"] == "speech" and before[o.window, o.mode]]
    distance = jiwer.process_words([before[o.window, o.mode].lower() for o in spoken], [o.text.lower() for o in spoken])
    stock_words = distance.hits + distance.substitutions + distance.deletions
    return {
        "text_rate": float(np.mean([bool(o.text) for o in quiet])),
        "newly_empty_rate": float(np.mean([not o.text for o in spoken])),
        "changed_words": distance.wer,
        "deleted_words": distance.deletions / max(1, stock_words),
        "speech_words": stock_words,
    }
