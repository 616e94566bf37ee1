# SPDX-License-Identifier: Apache-2.0
"""The programs under examples/ run and do what they say."""

import math
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *arguments: Path) -> str:
    """What an example prints."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_detect_images_lists_and_draws_boxes(tmp_path: Path) -> None:
    picture = tmp_path / "found.png"
    *boxes, last = run("detect_images.py", EXAMPLES / "images", picture).splitlines()
    assert last == f"open {picture}"
    surest = {}  # of each class: score, metres ahead, metres left
    for name, score, ahead, _, _, left, *_ in map(str.split, reversed(boxes)):
        surest[name] = float(score), float(ahead), float(left)
    for name, true_ahead, true_left in (("car", -11.1, -6.3), ("bicycle", 4.7, -6.3)):
        found_score, *found_place = surest[name]
        assert found_score > 0.5
        assert math.dist(found_place, (true_ahead, true_left)) < 1.0
    with Image.open(picture) as image:
        assert image.size == (3 * 640, 2 * 360)


def test_an_image_that_is_missing_is_told_in_a_line(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "images", tmp_path / "images")
    (tmp_path / "images" / "CAM_BACK.jpg").unlink()
    command = [sys.executable, str(EXAMPLES / "detect_images.py"), str(tmp_path / "images")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "CAM_BACK.jpg" in done.stderr
    assert "Traceback" not in done.stderr


def test_train_tiny_ends_with_a_student_and_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # in this process, which has imported what takes as long as the training does
    file = str(EXAMPLES / "train_tiny.py")
    monkeypatch.setattr(sys, "argv", [file, str(tmp_path)])
    student, written = tmp_path / "student.safetensors", []
    for _ in range(2):  # a run that has ended gives the same student again
        with pytest.raises(SystemExit) as end:
            runpy.run_path(file, run_name="__main__")
        assert end.value.code == 0
        written.append(student.read_bytes())
    assert written[0] == written[1]
    text = capsys.readouterr().out
    assert "mAP" in text
    # four key frames of the scene that was not trained on
    assert "4 samples" in text
