# SPDX-License-Identifier: Apache-2.0
"""Bags whose messages decode, but say what no detector says: scored, or refused by a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import BagError, DataError
from labeldistill_ros.bags.convert import ConversionOptions, convert_scene
from labeldistill_ros.bags.score import score_bag
from labeldistill_ros.bags.truth import SAMPLE_TOPIC, TRUTH_TOPIC
from labeldistill_ros.messages import set_status
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.sets.report import SetReport
from tests.support.bag_rig import truths_of, write_detections
from tests.support.fuzzing import fuzz
from tests.support.nuscenes_fixture import SCENES, VERSION
from tests.support.odd_messages import Decoded, decoded_messages, write_odd_bag

DETECTOR = ("/detector/detections", "/detector/detections_table", "/detector/status")
ODD = (*DETECTOR, SAMPLE_TOPIC, TRUTH_TOPIC, "/tf")


@pytest.fixture(scope="module")
def messages(shared_dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Decoded]:
    """Truth, poses, boxes and status of three samples."""
    folder = tmp_path_factory.mktemp("bags")
    options = ConversionOptions(sweeps=False, clouds=False)
    convert_scene(NuScenesTables(shared_dataroot, VERSION), SCENES[0], folder / "truth", options)
    truths = truths_of(shared_dataroot)
    write_detections(folder / "boxes", truths, frame="base_link")
    found = [m for m in decoded_messages(folder / "truth") if not m.topic.startswith("/cam")]
    found += decoded_messages(folder / "boxes")
    for truth in truths:
        report = SetReport(truth.stamp_ns, "processed", ("CAM_FRONT",), (), timings_ms={"total": 5})
        status = set_status(report, {"seen": 3, "processed": 3}, "detector", BAG)
        kind = "diagnostic_msgs/msg/DiagnosticArray"
        found.append(Decoded(DETECTOR[2], kind, truth.stamp_ns, status))
    return found


@fuzz(40)
@given(seed=st.integers(0, 2**32))
@example(seed=39736890)  # a score of 1e308
@example(seed=17554875)  # a number of points that is a table
@example(seed=353864)  # a bicycle rack that faces nowhere
@example(seed=3167900)  # a visibility of five thousand letters
def test_odd_messages_are_scored_or_refused(messages: list[Decoded], seed: int) -> None:
    with TemporaryDirectory() as folder:
        bag = Path(folder, "bag")
        write_odd_bag(bag, messages, ODD, seed)
        try:
            score = score_bag(bag)
        except (BagError, DataError) as error:
            told = str(error)
        else:
            json.dumps(score.as_json(), allow_nan=False)
            told = score.table().replace("\n", "")
    assert told.isprintable()
    assert len(told) < 5000
