# SPDX-License-Identifier: Apache-2.0
"""The failure table, one test a scene; and the load tool, for a few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.node.failure_table import SCENES
from benchmarks.node.failures import Scenario, as_json, run_scene
from benchmarks.node.load import LoadOptions, run_load
from benchmarks.node.overhead import SeenSets
from labeldistill_core.cameras import FrameSet
from labeldistill_core.runtime.detector import Detections
from labeldistill_ros.isolated_domain import own_domain
from labeldistill_ros.testing.simulated_drive import SimulatedDrive

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name.replace(" ", "_"))
def test_every_event_of_the_scene(scene: Scenario, tiny_model: Path) -> None:
    rows = run_scene(scene, tiny_model)
    assert len(rows) == len(scene.events)
    assert [row for row in as_json(rows)["rows"] if not row["passed"]] == []


def test_load_counts_what_goes_through(tiny_model: Path) -> None:
    found = run_load(LoadOptions(5.0, 5.0, (320, 180), tiny_model, warm_s=1.0))
    assert found["sets_mixed"] == 0
    assert found["images_received"] >= 0.9 * found["images_sent"] > 100
    assert found["sets_processed"] + found["sets_dropped"] >= found["sets_paired"] - 2
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert len(found["memory_kib_by_fifth"]) == 5
    assert set(found["stages_ms"]) >= {"decode_images", "detect_lift", "transforms", "publish"}
    added = found["overhead"]
    alone = added["alone_ms"]
    assert added["set_ms"] > added["detector_ms"] > 0
    assert alone["total"] > alone["detector"] > 0
    assert alone["total"] > alone["decode"] > 0
    assert added["added_ms"] == pytest.approx(added["set_ms"] - alone["total"])
    assert added["added_share"] == pytest.approx(added["added_ms"] / added["set_ms"])
    assert 0 < added["share_outside_detector"] < 1


def test_the_detector_alone_finds_the_same_as_in_the_node(tiny_model: Path) -> None:
    """Its sets have the stamps, poses and pixels of those that went through the node."""
    seen = SeenSets()
    with own_domain(), SimulatedDrive(tiny_model, {}, on_set=seen.add, size_px=(320, 180)) as run:
        assert run.vehicle.wait(lambda: run.processed >= 6, 60.0) is not None
        jpeg = run.vehicle.jpeg
        run.node.trigger_deactivate()
        before, again = run.last, list[FrameSet]()
        detect = run.detector.detect

        def noted(frames: FrameSet, **options: Any) -> Detections:
            again.append(frames)
            return detect(frames, **options)

        run.detector.detect = noted  # type: ignore[method-assign]
        assert len(seen.alone(run.detector, jpeg)) >= 1
    assert before is not None
    assert again[-1].stamp_ns == before.stamp_ns
    for one, two in zip(again[-1].views, before.views, strict=True):
        assert one.calibration is two.calibration
        assert one.fixed_from_ego is two.fixed_from_ego
        np.testing.assert_array_equal(one.image, two.image)
