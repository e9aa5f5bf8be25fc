"""Two result folders to one comparison, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from steer_asr.errors import SteerOptionError
from steer_asr_benchmarks.compare.paired import compare_scores
from steer_asr_benchmarks.compare.sides import DESCRIPTION, Side
from steer_asr_benchmarks.runner import SCHEMA_VERSION
from steer_asr_benchmarks.scoring import ClipScore
from steer_asr_benchmarks.stats import CONFIDENCE, RESAMPLES, SEED
from steer_asr_benchmarks.strata import divided
from steer_asr_benchmarks.text import PACKAGE, describe_normalizer


def compare(a: Side, b: Side, by: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that changes from `a` to `b`, as JSON: one entry of `comparisons` per mode and pair of systems.

    Systems are paired by name, or are the only one on each side. For each division of `by` (`strata.DIVISIONS`) an
    entry's `strata` holds the same over the clips of each stratum, as B describes them. Raises `SteerOptionError` when
    no system, no mode or no clip is on both sides, and for an unknown division.
    """
    pairs = _system_pairs(a, b)
    modes = [mode for mode in a.scores if mode in b.scores]
    if not modes:
        raise SteerOptionError(
            f"no decoding mode in common: {a.name} has {', '.join(a.scores)}, {b.name} has {', '.join(b.scores)}"
        )
    same = {clip for clip, described in a.clips.items() if b.clips.get(clip) == described}
    if not same:
        raise SteerOptionError(f"no clip in common: {a.name} has {next(iter(a.clips))}, {b.name} {next(iter(b.clips))}")
    timed = not (a.shared_encoder or b.shared_encoder)
    return {
        "schema_version": SCHEMA_VERSION,
        "a": _describe(a),
        "b": _describe(b),
        "scoring": {
            "normalizer": describe_normalizer(),
            "confidence": CONFIDENCE,
            "differences": f"bootstrap by group, {RESAMPLES} resamples, seed {SEED}",
            "p": "McNemar, exact, two-sided",
        },
        "warnings": _warnings(a, b, pairs),
        "settings": _settings(a, b, pairs),
        "comparisons": [
            {"mode": mode, "a": name_a, "b": name_b}
            | compare_scores(a.scores[mode][name_a], b.scores[mode][name_b], same, timed=timed)
            | {"strata": _by_stratum(a.scores[mode][name_a], b.scores[mode][name_b], same, by)}
            for mode in modes
            for name_a, name_b in pairs
            if name_a in a.scores[mode] and name_b in b.scores[mode]
        ],
    }


def _by_stratum(
    a: Mapping[str, ClipScore], b: Mapping[str, ClipScore], same: set[str], by: Sequence[str]
) -> dict[str, Any]:
    both = [score for clip, score in b.items() if clip in a and clip in same]
    found: dict[str, Any] = {}
    for division in by:
        found[division] = {}
        for name, scores in divided(both, division).items():
            clips = {score.clip for score in scores}
            only = [{clip: score for clip, score in side.items() if clip in clips} for side in (a, b)]
            found[division][name] = compare_scores(only[0], only[1], clips, timed=False)
    return found


def _system_pairs(a: Side, b: Side) -> list[tuple[str, str]]:
    if len(a.systems) == len(b.systems) == 1:
        pairs = [(a.systems[0], b.systems[0])]
    else:
        pairs = [(name, name) for name in a.systems if name in b.systems]
    if not pairs:
        raise SteerOptionError(
            f"no system in common: {a.name} has {', '.join(a.systems)}, {b.name} has {', '.join(b.systems)}; "
            "name one on each side: FOLDER:SYSTEM"
        )
    if a.folder.resolve() == b.folder.resolve() and all(name_a == name_b for name_a, name_b in pairs):
        raise SteerOptionError(f"{a.name} and {b.name} are the same; name a system on each side: FOLDER:SYSTEM")
    return pairs


def _describe(side: Side) -> dict[str, Any]:
    keys = ("git_sha", "versions", "model", "decoding", "data")
    return {"name": side.name, "folder": side.folder.as_posix(), **{key: side.run.get(key) for key in keys}}


def _warnings(a: Side, b: Side, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """What stands between these two results and a fair comparison."""
    warnings = []
    manifests = [
        {one["name"]: one["sha256"] for one in (side.run.get("data") or {}).get("manifests", ())} for side in (a, b)
    ]
    for name in sorted(manifests[0].keys() & manifests[1].keys()):
        if manifests[0][name] != manifests[1][name]:
            warnings.append(
                f"manifest {name} is not the same: {manifests[0][name][:12]} in A, {manifests[1][name][:12]} in B"
            )
    here = describe_normalizer()["version"]
    for letter, side in (("A", a), ("B", b)):
        if side.normalizer not in (None, here):
            warnings.append(f"the report of {letter} was made with {PACKAGE} {side.normalizer}; here {here} reads both")
    for letter, side, used in (("A", a, {name for name, _ in pairs}), ("B", b, {name for _, name in pairs})):
        if left := [name for name in side.systems if name not in used]:
            warnings.append(f"only {letter} has the systems {', '.join(left)}")
    for letter, side, other in (("A", a, b), ("B", b, a)):
        if left := [mode for mode in side.scores if mode not in other.scores]:
            warnings.append(f"only {letter} has the modes {', '.join(left)}")
    if differing := Counter(key for key in _differing_descriptions(a, b)):
        counts = ", ".join(f"{key} ({count})" for key, count in differing.items())
        warnings.append(f"clips of one name that are not the same clip are left out; they differ in {counts}")
    if a.shared_encoder or b.shared_encoder:
        warnings.append("times are not compared: systems shared one encoder pass")
    return warnings


def _differing_descriptions(a: Side, b: Side) -> Iterable[str]:
    for clip in sorted(a.clips.keys() & b.clips.keys()):
        for key, one, other in zip(DESCRIPTION, a.clips[clip], b.clips[clip], strict=True):
            if one != other:
                yield key


def _settings(a: Side, b: Side, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Settings that are not the same on both sides, as {"setting", "a", "b"}."""
    sections = [(key, a.run.get(key), b.run.get(key)) for key in ("model", "decoding", "versions")]
    for name_a, name_b in pairs:
        name = name_a if name_a == name_b else f"{name_a} / {name_b}"
        sections.append((name, a.run.get("systems", {}).get(name_a), b.run.get("systems", {}).get(name_b)))
    return [
        {"setting": f"{section}.{key}", "a": one.get(key), "b": other.get(key)}
        for section, one, other in sections
        if one and other
        for key in dict.fromkeys((*one, *other))
        if one.get(key) != other.get(key)
    ]
