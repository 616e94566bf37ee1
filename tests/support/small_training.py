# SPDX-License-Identifier: Apache-2.0
"""The command line of a training that takes a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeldistill_core import presets
from tests.support.small_networks import small_preset


@pytest.fixture
def small_in_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `--preset small` find the small networks."""
    monkeypatch.setitem(presets.PRESETS, "small", small_preset())


def small_training(
    preset: str | Path = "small",
    *,
    version: str = "v1.0-mini",
    split: str = "all",
    batch_size: int = 4,
    epochs: int = 1,
) -> list[str]:
    """Options of a training in one process, in float32, since a CPU may be slow in others.

    Args:
        preset: name of a preset, or file with a configuration, which other processes can read.
        version: of the tables.
        split: whose scenes are trained on.
        batch_size: samples a step.
        epochs: passes over the samples.
    """
    network = ["--config" if isinstance(preset, Path) else "--preset", str(preset)]
    length = ["--batch-size", str(batch_size), "--epochs", str(epochs)]
    computing = ["--workers", "0", "--precision", "32-true"]
    return ["--version", version, *network, "--split", split, *length, *computing]
