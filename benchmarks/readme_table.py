"""Writes the README's results table from the committed reports: `python benchmarks/readme_table.py [--check]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
START, END = "<!-- results:start -->", "<!-- results:end -->"
MODES = {"timestamps": "with", "no_timestamps": "without"}


def table() -> str:
    """One row per model and mode, from `benchmarks/results/*/report.json`."""
    reports = {name: load(name) for name in ("base", "tiny.en")}
    header = [
        "| model | timestamps | any text on non-speech, stock → steered | English WER, stock → steered "
        "| difference [95 %] | speech newly empty |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join(
        [*header, *(row for name, report in reports.items() for row in rows(name, report)), "", counts(reports)]
    )


def rows(name: str, report: dict[str, Any]) -> Iterator[str]:
    for mode, label in MODES.items():
        found = report["by_mode"][mode]
        stock, steered = found["systems"]["stock"], found["systems"]["steered"]
        rates = [system["nonspeech"]["hallucination_rate"]["r"] for system in (stock, steered)]
        change = found["differences"]["steered"]["wer"]
        low, high = change["ci"]
        yield (
            f"| {name} | {label} | {rates[0]:.1%} → **{rates[1]:.1%}** "
            f"| {stock['speech']['wer']:.2%} → {steered['speech']['wer']:.2%} "
            f"| {100 * change['difference']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] "
            f"| {steered['speech']['newly_empty_rate']:.2%} |"
        )


def counts(reports: dict[str, Any]) -> str:
    """What the table was measured on."""
    report = reports["base"]
    stock = report["by_mode"]["timestamps"]["systems"]["stock"]
    packs = ", ".join(f"`{name}` {r['pack']['sha256'][:12]}" for name, r in reports.items())
    return (
        f"{stock['nonspeech']['clips']} non-speech and {stock['speech']['clips']} speech clips "
        f"({stock['speech']['words']} English words), float32, greedy, language forced to English. "
        f"Packs by SHA-256: {packs}."
    )


def load(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / name / "report.json").read_text(encoding="utf-8"))


def updated(readme: str) -> str:
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


def main() -> None:
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(0 if updated(readme) == readme else "README.md does not show what the committed reports say")
    path.write_text(updated(readme), encoding="utf-8")


if __name__ == "__main__":
    main()
