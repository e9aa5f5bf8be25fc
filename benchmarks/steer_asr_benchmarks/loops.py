"""Repeated loops: the same few words again and again, Whisper's other way of filling silence.

has_loop("thank you thank you thank you".split())      # True
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 10
"""Longest phrase, in words, whose repetition counts."""
REPEATS = {1: 5}
"""How often in a row a phrase of so many words makes a loop; people say "no, no, no" and spell "w w w"."""
REPEATS_OF_PHRASES = 3


def has_loop(words: Sequence[str]) -> bool:
    """Whether a phrase of 1 to 10 words stands in `words` several times in a row: three times, a single word five.

    Published loop rates do not say how they count (Baranski et al. 2025, section 3); this is ours. A text that
    compresses well, Whisper's own sign of a loop, may also be a long list, so compression has no say here.
    """
    return any(_longest_run(words, n) >= REPEATS.get(n, REPEATS_OF_PHRASES) for n in range(1, LONGEST + 1))


def _longest_run(words: Sequence[str], n: int) -> int:
    """How often, at most, a phrase of `n` words follows itself, the first time included; 0 without such a phrase."""
    if len(words) < n:
        return 0
    longest = equal = 0
    for a, b in zip(words, words[n:], strict=False):
        equal = equal + 1 if a == b else 0
        longest = max(longest, equal)
    return 1 + longest // n


def without_loops(text: str) -> str:
    """`text` with one turn left of every loop, as `has_loop` defines them; a text without any is returned as it is."""
    words = text.split()
    for n in range(1, LONGEST + 1):
        words = _one_turn(words, n)
    return text if len(words) == len(text.split()) else " " * text.startswith(" ") + " ".join(words)


def _one_turn(words: list[str], n: int) -> list[str]:
    keys = ["".join(filter(str.isalnum, word.casefold())) or word for word in words]
    kept: list[str] = []
    i = 0
    while i < len(words):
        turns = 1
        while len(keys) >= i + (turns + 1) * n and keys[i : i + n] == keys[i + turns * n : i + (turns + 1) * n]:
            turns += 1
        step = turns * n if turns >= REPEATS.get(n, REPEATS_OF_PHRASES) else 1
        kept += words[i : i + (n if step > 1 else 1)]
        i += step
    return kept
