# SPDX-License-Identifier: Apache-2.0
"""Where a result comes from: the version of the code and the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import torch


def commit() -> str:
    """Short name of the commit that the code stands at, or "unknown" outside of a checkout."""
    try:
        told = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()


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
