# SPDX-License-Identifier: Apache-2.0
"""The conversion of recordings, measured once over short ones."""

import json
from pathlib import Path

import pytest

from benchmarks.bags.to_nuscenes import main


def test_drives_are_measured(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository))
    file = tmp_path / "figures.json"
    words = ["--seconds", "3", "--workers", "1", "--width-px", "160", "--height-px", "90"]
    assert main([*words, "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["drives"]
    assert row["mb"] > 1
    assert row["1 workers"]["mb_s"] > 0
    assert row["1 workers"]["peak_mib"] > 50
