# SPDX-License-Identifier: Apache-2.0
"""Where a result comes from: the version of the code and the machine."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

import torch


def commit(package: Path = Path(__file__).parent) -> str:
    """Short name of the commit that the code stands at, or "unknown" outside of its checkout.

    An installed package may lie in a virtual environment within somebody else's repository, whose
    commit says nothing of this code; so the repository must track the package's own files.

    Args:
        package: folder of the package.
    """

    def git(*words: str) -> str:
        told = subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, check=True
        )
        return told.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "--short", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def given_command(program: str) -> str:
    """The command line that was given, as it can be repeated on another machine.

    Args:
        program: what its words follow, such as `labeldistill`.
    """

    def elsewhere(word: str) -> str:
        # Absolute paths by their names: where a file lies here, it does not elsewhere.
        option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
        path = Path(value)
        return f"{option}{sign}{path.name}" if path.is_absolute() and path.name else word

    return shlex.join([*program.split(), *map(elsewhere, sys.argv[1:])])


def machine() -> str:
    """Processor, cores, threads of an operation, GPU if any, and torch."""
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}, "
        f"torch {torch.__version__}"
    )
