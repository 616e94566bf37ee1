# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.detector import accuracy
from benchmarks.detector.accuracy import (
    AccuracyOptions,
    PlainNetwork,
    bench_accuracy,
    same_boxes,
    ways_to_compare,
)
from benchmarks.detector.page import BEGIN, END, bench_page
from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FrameSet
from labeldistill_core.checkpoints import save_student
from labeldistill_core.errors import ConfigError
from labeldistill_core.network.student import Student
from labeldistill_core.profiling.ways import Way
from labeldistill_core.runtime import Detector
from labeldistill_core.runtime.detector import Detections
from labeldistill_core.runtime.loading import torch_engine
from tests.support.small_networks import small

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(tmp_path: Path, new_student: Callable[..., Student]) -> Path:
    path = tmp_path / "small.safetensors"
    save_student(path, new_student(small()), note="random")
    return path


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
def test_fast_ways_score_as_the_plain_one(
    synthetic_dataroot: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out" / "accuracy.json"
    options = AccuracyOptions(version="v1.0-mini", split="all", scenes=1)
    assert bench_accuracy(checkpoint, synthetic_dataroot, options, json=file) == 0
    found = json.loads(file.read_text())
    assert found["samples"] == 4
    exact = {"float32", "float32, fixed shapes", "ONNX"}
    assert exact | {"float32, resized there", "float32, decoded there"} <= set(found["ways"])
    for name, row in found["ways"].items():
        assert row["equal"]
        if name in exact:
            assert row["depth_largest"] < 1e-4
            assert row["same_boxes"] > 0.95
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    bench_page(page, (file,))
    assert "| float32, fixed shapes |" in page.read_text()
    assert "| ONNX |" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="0 or more"):
        AccuracyOptions(scenes=-1)


def test_a_way_that_computes_something_else_fails(
    synthetic_dataroot: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    detect = Detector.detect

    def shifted(self: Detector, frames: FrameSet, **options: Any) -> Detections:
        views = tuple(replace(v, image=np.uint8(255) - v.pixels) for v in frames.views)
        return detect(self, replace(frames, views=views), **options)

    monkeypatch.setattr(Detector, "detect", shifted)
    monkeypatch.setattr(accuracy, "ways_to_compare", lambda *_: [Way("float32")])
    monkeypatch.setattr(accuracy, "find_spec", lambda name: None)
    options = AccuracyOptions(version="v1.0-mini", split="all", scenes=1)
    assert bench_accuracy(checkpoint, synthetic_dataroot, options) == 1


def test_the_reference_is_what_streaming_ought_to_be(
    student: Student, frame_set: Callable[..., FrameSet]
) -> None:
    reference, detector = PlainNetwork(student, CPU), Detector(torch_engine(student))
    for t in (0.0, 0.5, 1.0):
        expected, features = reference.detect(frame_set(t))
        found = detector.detect(frame_set(t))
        assert found.history_valid == expected.history_valid
        assert detector.newest is not None
        torch.testing.assert_close(
            detector.newest.features.depth, features.depth, atol=1e-5, rtol=0
        )
        assert sum(same_boxes(expected.boxes, found.boxes)) >= 0.95 * len(expected.boxes)
    reference.reset()
    assert reference.detect(frame_set(1.5))[0].history_valid == 0


def test_boxes_are_the_same_by_class_place_and_score() -> None:
    values = torch.zeros(3, 9)
    values[:, 3:6] = 1.0
    values[:, 0] = torch.tensor([0.0, 5.0, 9.0])
    boxes = Boxes3D("ego", values, torch.tensor([0, 1, 2]), torch.tensor([0.5, 0.6, 0.7]))
    assert same_boxes(boxes, boxes) == [True] * 3
    assert same_boxes(boxes, boxes[torch.tensor([0, 2])]) == [True, False, True]
    assert same_boxes(boxes, replace(boxes, labels=torch.tensor([0, 1, 1])))[2] is False
    assert same_boxes(boxes, replace(boxes, scores=torch.tensor([0.5, 0.6, 0.8])))[2] is False
    assert same_boxes(boxes, Boxes3D.empty("ego")) == [False] * 3


def test_all_that_is_fast_on_a_gpu_is_compared() -> None:
    ways = ways_to_compare(torch.device("cuda"), compile=True)
    assert {way.precision for way in ways} == {"float32", "bfloat16", "float16"}
    for name in ("fixed_shapes", "device_resize", "device_decode", "compile"):
        assert any(getattr(way, name) for way in ways)
