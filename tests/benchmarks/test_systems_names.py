"""What systems are called."""

from __future__ import annotations

import pytest

from steer_asr.errors import SteerOptionError
from steer_asr_benchmarks.cli import with_vad
from steer_asr_benchmarks.systems.names import FALLBACK, KINDS, MODIFIERS, SystemName, listing


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("stock", ("stock", "stock", None, ())),
        (" stock+vad ", ("stock+vad", "stock", None, ("vad",))),
        ("steered:0.5+vad+empty", ("steered:0.5+vad+empty", "steered", "0.5", ("vad", "empty"))),
        ("steered:/a/pack@0.5", ("steered:/a/pack@0.5", "steered", "/a/pack@0.5", ())),
        ("svector=steered:/a/p", ("svector", "steered", "/a/p", ())),
        ("a.b-c_d+e=gate:0.9", ("a.b-c_d+e", "gate", "0.9", ())),
        ("steered:odd=name", ("steered:odd=name", "steered", "odd=name", ())),
        ("http://h:1/v1#base", ("http://h:1/v1#base", "http", "http://h:1/v1#base", ())),
        ("theirs=https://h/v1?a=b#m", ("theirs", "http", "https://h/v1?a=b#m", ())),
        ("rule:0.5/-0.8+beam5", ("rule:0.5/-0.8+beam5", "rule", "0.5/-0.8", ("beam5",))),
    ],
)
def test_names(text: str, parsed: tuple[str, str, str | None, tuple[str, ...]]) -> None:
    name = SystemName.parse(text)
    assert (name.text, name.kind, name.argument, name.modifiers) == parsed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stok", "did you mean 'stock'"),
        ("", "unknown system"),
        ("a=stok", "did you mean 'stock'"),
        ("stock+vat", "did you mean 'vad'"),
        ("stock:0.5", "stands nothing; only steered, gate"),
        ("steered:", "stands STRENGTH"),
    ],
)
def test_unknown_names(text: str, message: str) -> None:
    with pytest.raises(SteerOptionError, match=message):
        SystemName.parse(text)


def test_later_modifiers_win() -> None:
    assert SystemName.parse("stock+beam5+vad").arguments() == {"beam_size": 5, "vad_filter": True}
    assert SystemName.parse("stock+fallback").arguments() == FALLBACK
    assert SystemName.parse("stock+auto+batched").batched


@pytest.mark.parametrize("argument", ["x", "-0.1", "1.1", "nan"])
def test_numbers_have_limits(argument: str) -> None:
    with pytest.raises(SteerOptionError, match="is not a number from 0 to 1"):
        SystemName.parse(f"nospeech:{argument}").number(0.6, 0.0, 1.0)


def test_the_list_has_everything() -> None:
    listed = dict(listing())
    assert set(KINDS) <= set(listed)
    assert {f"...+{name}" for name in MODIFIERS} <= set(listed)


@pytest.mark.parametrize(
    ("name", "behind"),
    [
        ("stock", "stock+vad"),
        ("a=steered:p", "a+vad=steered:p+vad"),
        ("stock+vad", None),
        ("webrtcvad:3", None),
        ("http://h/v1#m", None),
    ],
)
def test_all_systems_can_be_put_behind_vad(name: str, behind: str | None) -> None:
    assert with_vad(name) == behind
    if behind:
        assert SystemName.parse(behind).modifiers == ("vad",)
