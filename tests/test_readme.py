"""The README is short, its file tree exists, and its numbers are those of the committed reports."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

from steer_asr.pack import load_pack

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_numbers_are_those_of_the_reports() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "readme_table.py"))
    assert script["updated"](README) == README, "run: python benchmarks/readme_table.py"


def test_every_path_of_the_tree_exists() -> None:
    tree = README.split("## What is where")[1].split("```")[1]
    top = ROOT
    for line in tree.strip().splitlines():
        names = re.findall(
            r"[\w.\-/]+\.py|[\w.\-/]+/", line.split("  ", 1)[0] if not line.startswith(" ") else line[:34]
        )
        for name in names:
            base = top if line.startswith(" ") else ROOT
            assert (base / name).exists() or (ROOT / "benchmarks" / name).exists(), f"{name} in: {line}"
        if not line.startswith(" "):
            top = ROOT / names[0]


def test_links_point_at_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_packs_that_ship_are_those_that_were_measured() -> None:
    for name in ("base", "tiny.en"):
        report = json.loads((ROOT / "benchmarks" / "results" / name / "report.json").read_text(encoding="utf-8"))
        assert report["pack"]["sha256"] == load_pack(name).sha256, name


def test_the_numbers_on_mixed_recordings_are_those_of_the_report() -> None:
    report = json.loads((ROOT / "benchmarks/results/mixed/base/report.json").read_text(encoding="utf-8"))
    mixed = {name: system["mixed"] for name, system in report["systems"].items()}
    words = {name: f"{found['words_outside_per_min']:.1f}" for name, found in mixed.items()}
    lost = {name: f"{found['deletion_rate']:.1%}".replace("%", " %") for name, found in mixed.items()}
    said = " ".join(README.split())
    assert f"base invents {words['stock']} words a minute beside them" in said
    assert f"behind Silero's VAD {words['stock+vad']} with {lost['stock+vad']} of the true words lost" in said
    assert f"steered {words['steered']} with {lost['steered']} lost (stock loses {lost['stock']})" in said
    older = report["pack"]["sha256"] != load_pack("base").sha256
    assert older == ("that was base's pack before this one" in said)
