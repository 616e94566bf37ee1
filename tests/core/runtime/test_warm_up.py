# SPDX-License-Identifier: Apache-2.0
"""Warming up uses the history, and changes nothing of what is found afterwards."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from labeldistill_core.errors import NotFiniteError
from labeldistill_core.network.student import Student
from labeldistill_core.profiling.bench_images import frame_set
from labeldistill_core.runtime.detector import Detections, Detector
from labeldistill_core.runtime.loading import torch_engine
from labeldistill_core.runtime.warm_up import warm_up
from tests.support.small_networks import small


def test_what_is_found_afterwards_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    torch.manual_seed(0)
    student = Student(small())
    warm, cold = Detector(torch_engine(student)), Detector(torch_engine(student))
    steps: list[Detections] = []
    detect = warm.detect

    def noted(*args: Any, **options: Any) -> Detections:
        steps.append(detect(*args, **options))
        return steps[-1]

    warm.detect = noted  # type: ignore[method-assign]
    assert warm_up(warm, 0) is None
    last_s = warm_up(warm, 3)
    assert last_s is not None
    assert last_s > 0
    assert [found.history_valid for found in steps] == [0, 1, 1]
    # Every start would tell of a past that nobody has seen.
    assert "dropped" not in caplog.text
    for stamp_s in (10.0, 10.5):
        frames = frame_set(stamp_s, small())
        one, two = warm.detect(frames), cold.detect(frames)
        assert (one.history_valid, one.dropped) == (two.history_valid, "")
        torch.testing.assert_close(one.boxes.values, two.boxes.values)
        torch.testing.assert_close(one.boxes.scores, two.boxes.scores)


def test_one_slow_step_is_not_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    took_s = iter([9.0, 3.0, 0.2, 0.3, 8.0])
    now_s = 0.0

    def clock() -> float:
        return now_s

    detector = Detector(torch_engine(Student(small())))

    def detect(*_: Any) -> None:
        nonlocal now_s
        now_s += next(took_s)

    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(detector, "detect", detect)
    assert warm_up(detector, 5) == pytest.approx(0.3)


def test_the_reason_for_forgetting_is_told() -> None:
    detector = Detector(torch_engine(Student(small())))
    assert detector.detect(frame_set(1.0, small())).dropped == ""
    assert detector.detect(frame_set(0.5, small())).dropped == "time went back by 0.500 s"
    assert detector.detect(frame_set(1.0, small())).dropped == ""


@pytest.mark.parametrize("name", ["depth_net.reduce.0.bias", "head.tasks.0.heatmap.3.bias"])
def test_a_network_that_computes_nan_is_told(name: str) -> None:
    """As in a precision that its weights are too large for: all of them are finite."""
    student = Student(small())
    with torch.no_grad():
        student.get_parameter(name).fill_(float("nan"))
    detector = Detector(torch_engine(student))
    with pytest.raises(NotFiniteError, match="computes NaN on cpu in float32: its weights"):
        warm_up(detector, 1)
    assert detector.newest is None
