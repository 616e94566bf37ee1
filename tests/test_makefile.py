# SPDX-License-Identifier: Apache-2.0
"""What `make` says before it fetches anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def test_a_missing_compiler_is_told_before_anything_is_fetched(
    repository: Path, tmp_path: Path
) -> None:
    for name in ("Makefile", "setup.py", "setup.cfg"):
        shutil.copy(repository / name, tmp_path)
    shutil.copytree(repository / "requirements", tmp_path / "requirements")
    (tmp_path / "interfaces").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(repository / "scripts" / "build_interfaces.py", tmp_path / "scripts")
    command = ["make", "demo", "CXX=no-compiler"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "No C++ compiler (no-compiler)" in done.stderr
    assert not (tmp_path / ".venv").exists()
