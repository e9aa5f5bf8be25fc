"""The threat model's claims rest on tests and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_every_claim_names_a_test_or_a_file_that_exists() -> None:
    named = re.findall(r"`([\w/-]+\.py)(?:::(\w+))?`", TEXT)
    assert len(named) > 30
    for path, test in named:
        file = ROOT / path if "/" in path else ROOT / "tests" / "serving" / path
        assert file.is_file(), path
        assert not test or re.search(rf"def {test}\(", file.read_text(encoding="utf-8")), f"{path}::{test}"


def test_every_row_has_its_evidence() -> None:
    tables = [line for line in TEXT.splitlines() if line.startswith("| ") and line.count(" | ") == 2]
    rows = [line for line in tables if "is stopped by" not in line and "---" not in line]
    assert len(rows) > 20
    assert [row for row in rows if "`" not in row.rpartition(" | ")[2] and ".md)" not in row] == []
