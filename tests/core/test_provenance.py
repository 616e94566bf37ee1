# SPDX-License-Identifier: Apache-2.0
"""The commit of a result is that of this code, or unknown."""

from __future__ import annotations

import subprocess
from pathlib import Path

from labeldistill_core.provenance import commit


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    told = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()


def test_only_a_checkout_of_the_package_has_a_commit(tmp_path: Path) -> None:
    package = tmp_path / "venv" / "site-packages" / "labeldistill_core"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    assert commit(package) == "unknown"
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "somebody else's")
    assert commit(package) == "unknown"
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "this code")
    assert commit(package) == git(tmp_path, "rev-parse", "--short", "HEAD")
