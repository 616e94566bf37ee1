# SPDX-License-Identifier: Apache-2.0
"""A small model, and the detector node spinning in a thread of its own."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from labeldistill_core.cameras import FrameSet
from labeldistill_core.checkpoints import save_student
from labeldistill_core.config import DecodeConfig, StudentConfig
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detections, Detector
from labeldistill_ros.node.detector_node import DetectorNode
from labeldistill_ros.node.model import load_detector
from labeldistill_ros.parameters import Parameters
from tests.support.small_networks import small


def tiny_config() -> StudentConfig:
    config = small()
    return replace(
        config,
        head=replace(config.head, heatmap_bias=None),
        history_s=(0.2,),
        decode=DecodeConfig(score_threshold=0.05),
    )


def save_tiny(path: Path) -> Path:
    torch.manual_seed(0)
    save_student(path, Student(tiny_config()), note="random, for tests")
    return path


class RunningNode:
    """The node under test, and what went through its detector."""

    def __init__(self, context: Context, model: Path, **parameters: Any) -> None:
        self.results: list[tuple[FrameSet, Detections]] = []
        values = {"model": str(model), "device": "cpu", "score_threshold": 0.0, **parameters}
        self.node = DetectorNode(
            context=context,
            load=self._load,
            on_result=lambda frames, found: self.results.append((frames, found)),
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.started = self.node.start()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _load(self, parameters: Parameters) -> Detector:
        self.detector = load_detector(parameters)
        return self.detector

    def _spin(self) -> None:
        while not self._stop.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive(), "the thread that spins the node hangs"
        self.node.close()
        self.executor.shutdown()
        self.node.destroy_node()
