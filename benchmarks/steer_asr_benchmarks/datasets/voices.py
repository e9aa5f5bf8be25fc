"""Which AudioSet classes mean that words may be heard, by the ids that AudioSet and FSD50K share.

    leaves_out({"/m/09x0r"})        # "Speech"
    category_of({"/m/01j3sz"})      # "human": laughter

The line is drawn at words. Laughing, crying, coughing or humming is non-speech: text for it is invented. Where somebody
speaks, sings or shouts, or a crowd chatters, text may be right, and no transcript says so; such clips are left out.
Ids and names: AudioSet ontology (Gemmeke et al. 2017), branches "Human voice", "Human group actions", "Music".
"""

from __future__ import annotations

from collections.abc import Iterable

from steer_asr_benchmarks.datasets.base import HUMAN

WORDS = {
    "/m/09x0r": "Speech",
    "/m/05zppz": "Male speech",
    "/m/02zsn": "Female speech",
    "/m/0ytgt": "Child speech",
    "/m/01h8n0": "Conversation",
    "/m/02qldy": "Narration",
    "/m/0brhx": "Speech synthesizer",
    "/m/07p6fty": "Shout",
    "/m/07q4ntr": "Bellow",
    "/m/07rwj3x": "Whoop",
    "/m/07sr1lc": "Yell",
    "/m/04gy_2": "Battle cry",
    "/t/dd00135": "Children shouting",
    "/m/02rtxlg": "Whispering",
    "/m/015lz1": "Singing",
    "/m/0l14jd": "Choir",
    "/m/01swy6": "Yodeling",
    "/m/02bk07": "Chant",
    "/m/01c194": "Mantra",
    "/t/dd00003": "Male singing",
    "/t/dd00004": "Female singing",
    "/t/dd00005": "Child singing",
    "/t/dd00006": "Synthetic singing",
    "/m/06bxc": "Rapping",
    "/m/0y4f8": "Vocal music",
    "/m/0z9c": "A capella",
    "/m/05lls": "Opera",
    "/m/074ft": "Song",
    "/m/053hz1": "Cheering",
    "/m/07rkbfh": "Chatter",
    "/m/03qtwd": "Crowd",
    "/m/07qfr4h": "Hubbub",
    "/m/04v5dt": "Booing",
    "/t/dd00013": "Children playing",
    "/m/07c52": "Television",
    "/m/06bz3": "Radio",
}
"""Words may be heard."""

WORDLESS = {
    "/m/0261r1": "Babbling",
    "/m/03qc9zr": "Screaming",
    "/m/01j3sz": "Laughter",
    "/t/dd00001": "Baby laughter",
    "/m/07r660_": "Giggle",
    "/m/07s04w4": "Snicker",
    "/m/07sq110": "Belly laugh",
    "/m/07rgt08": "Chuckle",
    "/m/0463cq4": "Crying",
    "/t/dd00002": "Baby cry",
    "/m/07qz6j3": "Whimper",
    "/m/07qw_06": "Wail",
    "/m/07plz5l": "Sigh",
    "/m/02fxyj": "Humming",
    "/m/07s2xch": "Groan",
    "/m/07r4k75": "Grunt",
    "/m/01j423": "Yawn",
    "/m/01w250": "Whistling",
    "/m/09hlz4": "Respiratory sounds",
    "/m/0lyf6": "Breathing",
    "/m/07mzm6": "Wheeze",
    "/m/01d3sd": "Snoring",
    "/m/07s0dtb": "Gasp",
    "/m/07pyy8b": "Pant",
    "/m/07q0yl5": "Snort",
    "/m/01b_21": "Cough",
    "/m/0dl9sf8": "Throat clearing",
    "/m/01hsr_": "Sneeze",
    "/m/07ppn3j": "Sniff",
    "/m/06h7j": "Run",
    "/m/07qv_x_": "Shuffle",
    "/m/07pbtc8": "Walk",
    "/m/03cczk": "Chewing",
    "/m/07pdhp0": "Biting",
    "/m/0939n_": "Gargling",
    "/m/03q5_w": "Burping",
    "/m/02p3nc": "Hiccup",
    "/m/02_nn": "Fart",
    "/m/0k65p": "Hands",
    "/m/025_jnm": "Finger snapping",
    "/m/0l15bq": "Clapping",
    "/m/028ght": "Applause",
}
"""People, but no words."""

VOICE_BRANCH = "/m/09l8g"
"""FSD50K's labels go up to the root of the ontology; "Human voice" without a class in `WORDLESS` could be anything."""
MUSIC = frozenset({"/m/04rlf", "/m/04szw"})
ANIMAL = frozenset({"/m/0jbk", "/m/068hy", "/m/0ch8v", "/m/01280g"})


def leaves_out(ids: Iterable[str]) -> str:
    """The class because of which words may be heard in a clip of these classes; empty when they may not."""
    ids = list(ids)
    for found in ids:
        if found in WORDS:
            return WORDS[found]
    return "Human voice" if VOICE_BRANCH in ids and not WORDLESS.keys() & set(ids) else ""


def category_of(ids: Iterable[str]) -> str:
    """`"human"`, `"music"`, `"animal"` or `"sound"`, the first that fits."""
    ids = set(ids)
    if ids & WORDLESS.keys():
        return HUMAN
    if ids & MUSIC:
        return "music"
    return "animal" if ids & ANIMAL else "sound"
