# SPDX-License-Identifier: Apache-2.0
"""The synthetic world as bags, called again."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeldistill_ros.cli import main

RIG = """
cameras:
  - {name: front, size: [64, 48], field_of_view: 90, position: [1.8, 0.0, 1.4], rate: 10}
lidar: {position: [0.8, 0.0, 1.9]}
"""


def synth(out: Path, rig: Path, *more: str) -> int:
    words = ["synth", str(out), "--bags", "--rig", str(rig), "--scenes", "1", "--workers", "1"]
    return main([*words, "--key-frames", "1", *more])


def test_bags_of_other_settings_are_not_taken_for_these(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rig = tmp_path / "bags", tmp_path / "rig.yaml"
    rig.write_text(RIG)
    assert synth(out, rig) == 0
    (bag,) = out.iterdir()
    before = {file: file.read_bytes() for file in bag.iterdir()}
    assert synth(out, rig, "--sweeps", "all") == 0  # as everything is recorded
    capsys.readouterr()
    assert synth(out, rig, "--seed", "7") == 2
    assert "is there already, recorded with other settings" in capsys.readouterr().err
    assert synth(out, rig, "--key-frames", "2") == 2
    rig.write_text(RIG.replace("1.4]", "1.5]"))
    assert synth(out, rig) == 2
    assert {file: file.read_bytes() for file in bag.iterdir()} == before
    rig.write_text(RIG)
    (bag / "metadata.yaml").unlink()
    capsys.readouterr()
    assert synth(out, rig) == 2
    assert "is there already, and nobody knows of which settings" in capsys.readouterr().err
    for file in bag.iterdir():
        file.unlink()
    assert synth(out, rig) == 0
    assert {file: file.read_bytes() for file in bag.iterdir()} == before
