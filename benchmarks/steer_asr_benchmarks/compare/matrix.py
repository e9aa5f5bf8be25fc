"""One pair of systems under many conditions: each modifier that both were run with, and each decoding mode, is a row.

    found = matrix([Side.read("results/conditions")], a="stock", b="steered")
    print(markdown(found))

`stock+int8` goes with `steered+int8`, and so on: what steering changes under a condition is told by stock under the
same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steer_asr.errors import SteerOptionError
from steer_asr_benchmarks.compare.paired import compare_scores
from steer_asr_benchmarks.compare.sides import Side
from steer_asr_benchmarks.compare.table import strata_table
from steer_asr_benchmarks.runner import SCHEMA_VERSION

EXPLANATION = (
    "A row compares B with A under the same condition, on the same clips: timestamps or not, and what both systems "
    "were run with (`steer-asr-bench systems` says what each + means; plain is greedy, the run's language and compute "
    "type). R: non-speech clips with any word; F: after dropping segments with no_speech_prob > 0.6. WER change and "
    "missed speech in points, 95 % by bootstrap over groups."
)


def matrix(sides: Sequence[Side], a: str, b: str) -> dict[str, Any]:
    """Paired numbers of every mode and modifier with which both `a` and `b` were run, as JSON.

    Raises `SteerOptionError` when there is no such pair, and when two folders have the same one.
    """
    rows: dict[str, dict[str, Any]] = {}
    for side in sides:
        for mode, systems in side.scores.items():
            for name in systems:
                modifier = name.removeprefix(a)
                other = b + modifier
                if not name.startswith(a) or modifier[:1] not in ("", "+") or other not in systems:
                    continue
                row = f"{mode.replace('_', ' ')}, {modifier or 'plain'}"
                if row in rows:
                    raise SteerOptionError(f"{side.name} and another folder both have {row}")
                rows[row] = compare_scores(systems[name], systems[other], side.clips, timed=False)
    if not rows:
        raise SteerOptionError(
            f"no condition under which both {a} and {b} were run; there are "
            f"{', '.join(dict.fromkeys(name for side in sides for name in side.systems))}"
        )
    return {"schema_version": SCHEMA_VERSION, "a": a, "b": b, "runs": [_run(side, b) for side in sides], "rows": rows}


def markdown(found: dict[str, Any]) -> str:
    """The matrix as one table, and what was run."""
    lines = [f"# {found['b']} (B) against {found['a']} (A) under every condition", "", strata_table(found["rows"]), ""]
    lines.append(EXPLANATION)
    for run in found["runs"]:
        model, pack, decoding = run["model"] or {}, run["pack"] or {}, run["decoding"] or {}
        limit = (run["data"] or {}).get("limit")
        clips = f"at most {limit} clips of each manifest" if limit else "all clips"
        lines += [
            "",
            f"Model {model.get('name')} ({str(model.get('sha256'))[:15]}), {model.get('compute_type')}; pack "
            f"{pack.get('name')} ({str(pack.get('sha256'))[:15]}); language {decoding.get('language')}; {clips}; "
            f"commit {run['git_sha'] or 'unknown'}.",
        ]
    return "\n".join(lines) + "\n"


def _run(side: Side, b: str) -> dict[str, Any]:
    """What was run, without paths of this machine."""
    options = side.run.get("systems", {})
    packs = [said["pack"] for name, said in options.items() if name.startswith(b) and said and "pack" in said]
    keys = ("git_sha", "versions", "model", "decoding", "data")
    return {key: side.run.get(key) for key in keys} | {"pack": packs[0] if packs else None}
