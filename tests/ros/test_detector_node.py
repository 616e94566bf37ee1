# SPDX-License-Identifier: Apache-2.0
"""The node over real DDS: six cameras in, boxes out, equal to the offline pipeline's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rig import CAMERAS, PERIOD_NS, Vehicle, map_from_ego, offline_set, stamp_of
from running import RunningNode

from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.messages import boxes_from_detections, boxes_from_table, stamp_to_ns

Start = Callable[..., RunningNode]


def test_six_cameras_give_the_offline_boxes(
    vehicle: Vehicle, detector: Start, tiny_model: Path
) -> None:
    node = detector()
    assert node.started
    vehicle.connect()
    vehicle.drive(range(8))
    vehicle.wait(lambda: vehicle.outcomes().count("processed") >= 6, "six sets")
    vehicle.spin(0.3)

    offline, names = Detector.load(tiny_model), node.node._configured.detector.class_names
    cycles = [
        (stamp_to_ns(m.header.stamp) - stamp_of(0, "CAM_FRONT")) / PERIOD_NS
        for m in vehicle.detections
    ]
    assert len(cycles) >= 6
    assert all(c == int(c) for c in cycles)
    for cycle, message, table, (frames, _) in zip(
        map(int, cycles), vehicle.detections, vehicle.tables, node.results, strict=True
    ):
        wanted = offline_set(cycle)
        prepared, expected = offline.prepare(frames), offline.prepare(wanted)
        grey = (prepared.images.int() - expected.images.int()).abs().max()
        assert grey <= 1
        torch.testing.assert_close(prepared.ego_from_camera, expected.ego_from_camera)
        base_from_map = map_from_ego(wanted.stamp_ns).inverse
        boxes = offline.detect(wanted).in_frame(base_from_map)
        assert len(boxes) > 5
        assert message.header.frame_id == "base_link"
        got = boxes_from_detections(message, names)
        order = boxes.scores.argsort(descending=True, stable=True)[:200]
        torch.testing.assert_close(got.values[:, :6], boxes.values[order][:, :6], atol=1e-3, rtol=0)
        turn = (got.yaws - boxes.yaws[order]).numpy()
        assert np.abs(np.angle(np.exp(1j * turn))).max() < 1e-3
        assert got.labels.tolist() == boxes.labels[order].tolist()
        rows = boxes_from_table(table)
        assert stamp_to_ns(table.header.stamp) == wanted.stamp_ns
        torch.testing.assert_close(
            rows.velocities.double(), boxes.velocities[order], atol=1e-3, rtol=0
        )
    last = vehicle.status[-1]
    assert last["history_valid"] == "1"
    assert last["cameras"].split() == list(CAMERAS)
    assert float(last["total_ms"]) > 0
