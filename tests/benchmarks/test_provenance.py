from __future__ import annotations

import subprocess
from pathlib import Path

from steer_asr_benchmarks.provenance import git_sha, versions


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text("1")
    assert git_sha(code) is None, "no checkout"
    git(tmp_path, "init", "-q")
    assert git_sha(code) is None, "in a checkout, but not part of it"
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "x")
    git(tmp_path, "tag", "-a", "v1", "-m", "a tag must not replace the commit")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_sha(code) == commit
    code.write_text("2")
    assert git_sha(code) == f"{commit}-dirty"


def test_results_that_a_run_replaces_are_not_code(tmp_path: Path) -> None:
    code, report = tmp_path / "code.py", tmp_path / "benchmarks" / "results" / "report.json"
    report.parent.mkdir(parents=True)
    for file in (code, report):
        file.write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "x")
    report.unlink()
    assert git_sha(code) == git(tmp_path, "rev-parse", "HEAD")


def test_versions_are_of_what_decides_the_numbers() -> None:
    found = versions()
    assert {"steer_asr", "faster_whisper", "ctranslate2", "jiwer", "whisper_normalizer", "python"} <= found.keys()
    assert all(found.values())
