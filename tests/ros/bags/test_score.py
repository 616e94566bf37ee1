# SPDX-License-Identifier: Apache-2.0
"""Scores of bags and result files. No DDS in here."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import BagError, ConfigError, DataError
from labeldistill_core.evaluation.metrics import evaluate
from labeldistill_core.evaluation.result_boxes import result_boxes
from labeldistill_core.evaluation.result_file import read_results
from labeldistill_ros.bags.convert import convert_scene
from labeldistill_ros.bags.detector_output import match, read_recording
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.score import score_bag
from labeldistill_ros.bags.sensors import image_topic
from labeldistill_ros.bags.truth import BagSample, read_samples
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from labeldistill_ros.inputs.transforms import TransformBuffer
from labeldistill_ros.messages import detections_message, header
from labeldistill_ros.messages.bag_family import BAG
from tests.support.bag_rig import ARRAY, truths_of, write_detections
from tests.support.nuscenes_fixture import SCENES, VERSION


@pytest.mark.parametrize("frame", ["map", "base_link"])
@pytest.mark.parametrize("shift_ns", [0, -35_000_000])
def test_ground_truth_as_detections_scores_as_ground_truth(
    bag: Path, shared_dataroot: Path, tmp_path: Path, frame: str, shift_ns: int
) -> None:
    truths = truths_of(shared_dataroot)
    found = score_bag(bag, write_detections(tmp_path / "d", truths, frame=frame, shift_ns=shift_ns))
    wanted = evaluate(
        truths, {t.sample_token: result_boxes(t.sample_token, t.boxes) for t in truths}
    )
    assert found.metrics.mean_ap == pytest.approx(wanted.mean_ap, abs=1e-12)
    assert found.metrics.nds == pytest.approx(wanted.nds, abs=1e-6)
    assert found.velocities
    assert found.coverage.matched == found.coverage.samples == found.coverage.sets == 3
    # the stamp of CAM_FRONT, 35 ms before the scan, is the sample's own
    assert found.coverage.largest_gap_ms == 0


def test_a_sample_without_boxes_is_missed(bag: Path, shared_dataroot: Path, tmp_path: Path) -> None:
    truths = truths_of(shared_dataroot)
    whole = score_bag(bag, write_detections(tmp_path / "a", truths))
    found = score_bag(bag, write_detections(tmp_path / "b", truths[:2]))
    assert found.coverage.missed == (truths[2].sample_token,)
    assert found.metrics.samples == 3
    assert found.metrics.mean_ap < whole.metrics.mean_ap
    late = write_detections(tmp_path / "c", truths, shift_ns=120_000_000)
    with pytest.raises(BagError, match="none of the 3 messages .* is within 50 ms .*0.120 s away"):
        score_bag(bag, late)


def test_stamps_that_go_back_are_refused(bag: Path, shared_dataroot: Path, tmp_path: Path) -> None:
    truths = truths_of(shared_dataroot)
    twice = write_detections(tmp_path / "d", [*truths, truths[0]])
    with pytest.raises(BagError, match="stamps of /detector/detections are not sorted: 16"):
        score_bag(bag, twice)


def test_velocities_come_from_the_table(bag: Path, shared_dataroot: Path, tmp_path: Path) -> None:
    truths = truths_of(shared_dataroot)
    with_ = score_bag(bag, write_detections(tmp_path / "a", truths))
    without = score_bag(bag, write_detections(tmp_path / "b", truths, table=False))
    assert without.metrics.mean_ap == with_.metrics.mean_ap
    assert without.metrics.tp_errors["vel_err"] > with_.metrics.tp_errors["vel_err"] + 0.1
    assert "detections_table was not recorded" in without.table()


def test_boxes_in_an_unknown_frame(bag: Path, shared_dataroot: Path, tmp_path: Path) -> None:
    truths = [replace(t, boxes=replace(t.boxes, frame="sofa")) for t in truths_of(shared_dataroot)]
    detections = write_detections(tmp_path / "d", truths)
    with pytest.raises(BagError, match="boxes at .* are in 'sofa' and cannot be moved to 'map'"):
        score_bag(bag, detections)


def test_boxes_before_the_first_pose_do_not_cost_the_score(
    bag: Path, shared_dataroot: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truths = truths_of(shared_dataroot)
    with BagReader(bag) as reader:
        second_ns = min(read_samples(reader)[1].stamps_ns)
        with BagWriter(tmp_path / "late") as writer:
            for r in reader.raw():
                if r.topic != "/tf" or r.stamp_ns >= second_ns - 60_000_000:
                    writer.write(r.topic, r.msgtype, r.data, r.stamp_ns, reader.qos(r.topic))
    detections = write_detections(tmp_path / "d", truths, frame="base_link")
    found = score_bag(tmp_path / "late", detections)
    assert found.coverage.missed == (truths[0].sample_token,)
    assert "1 key frames count as empty" in caplog.text


def test_an_unknown_class(bag: Path, shared_dataroot: Path, tmp_path: Path) -> None:
    truth = truths_of(shared_dataroot)[0]
    array = detections_message(truth.boxes, CLASSES, truth.stamp_ns, family=BAG)
    array.detections[0].results[0].hypothesis.class_id = "tram"
    with BagWriter(tmp_path / "d") as writer:
        writer.write("/detector/detections", ARRAY, array, truth.stamp_ns)
    with pytest.raises(BagError, match="/detector/detections: class 'tram' is none of car"):
        score_bag(bag, tmp_path / "d")


@pytest.mark.parametrize("node", ["/detector", "/left/detector"])
def test_latencies_and_outcomes_come_from_the_status(
    bag: Path, shared_dataroot: Path, tmp_path: Path, node: str
) -> None:
    truths = truths_of(shared_dataroot)
    kind = "diagnostic_msgs/msg/DiagnosticArray"

    def status(stamp_ns: int, **values: object) -> Any:
        pairs = [
            BAG.make("diagnostic_msgs/msg/KeyValue", key=k, value=str(v)) for k, v in values.items()
        ]
        inner = BAG.make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=0,
            name="detector: set",
            message="",
            hardware_id="",
            values=pairs,
        )
        return BAG.make(kind, header=header(stamp_ns, "", BAG), status=[inner])

    with BagWriter(tmp_path / "d") as writer:
        for i, truth in enumerate(truths):
            array = detections_message(truth.boxes, CLASSES, truth.stamp_ns, family=BAG)
            writer.write(f"{node}/detections", ARRAY, array, truth.stamp_ns)
            values = {"outcome": "processed", "total_ms": 10.0 * (i + 1), "age_ms": 1e9}
            text = status(truth.stamp_ns, **values, sets_seen=i + 2, sets_dropped=1)
            writer.write(f"{node}/status", kind, text, truth.stamp_ns)
        dropped = status(9, outcome="dropped", total_ms=9999.0, sets_seen=1)
        writer.write(f"{node}/status", kind, dropped, truths[-1].stamp_ns)
    found = score_bag(bag, tmp_path / "d", topic=f"{node}/detections")
    assert list(found.latency_ms) == ["total"]
    median_ms, most_ms = found.latency_ms["total"]
    assert median_ms == 20.0
    assert most_ms == pytest.approx(29.0)
    assert found.outcomes == {"seen": 4, "dropped": 1}
    assert "seen 4, dropped 1" in found.table()


def test_reading_takes_time_in_proportion_to_the_bag(
    shared_dataroot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than an hour at 12 Hz takes 2 s; it took 20 s when each looked at all before it."""
    truth = truths_of(shared_dataroot)[0]
    many = 60_000

    class LongBag:
        topics = {"/detector/detections": ARRAY}

        def __init__(self, path: Path) -> None:
            self.path = path

        def __enter__(self) -> "LongBag":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def require(self, *topics: str) -> None:
            assert set(topics) <= set(self.topics)

        def messages(self, topics: list[str]) -> Iterator[tuple[None, Any]]:
            empty = detections_message(Boxes3D.empty("map"), CLASSES, 0, family=BAG)
            for number in range(many):
                empty.header = header(truth.stamp_ns + number, "map", BAG)
                yield None, empty

    monkeypatch.setattr("labeldistill_ros.bags.detector_output.BagReader", LongBag)
    sample = BagSample("scene", truth, {})
    begun_s = time.process_time()
    found = read_recording(Path("long"), [sample], TransformBuffer())
    assert time.process_time() - begun_s < 12
    assert found.coverage.sets == many
    assert found.coverage.matched == 1


def test_each_stamp_serves_one_sample_and_the_nearest() -> None:
    ms = 1_000_000
    samples = [[100 * ms, 65 * ms], [600 * ms, 565 * ms]]
    assert match(samples, [65 * ms, 148 * ms, 590 * ms], 0.05) == [
        (65 * ms, 0),
        (590 * ms, 10 * ms),
    ]
    assert match(samples, [350 * ms], 0.05) == [None, None]
    assert match([[100 * ms], [120 * ms]], [112 * ms], 0.05) == [None, (112 * ms, 8 * ms)]
    assert match(samples, [], 0.05) == [None, None]


@pytest.mark.parametrize("tolerance_s", [-0.1, math.inf, math.nan])
def test_a_tolerance_is_a_time(bag: Path, tolerance_s: float) -> None:
    with pytest.raises(ConfigError, match="--tolerance .*: give seconds"):
        score_bag(bag, tolerance_s=tolerance_s)


def test_the_commands(
    shared_dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = tmp_path / "bag"
    convert = ["bag", "from-nuscenes", str(shared_dataroot), str(bag), "--version", VERSION]
    assert main([*convert, "--scene", SCENES[0], "--no-sweeps"]) == 0
    said = capsys.readouterr().out
    assert "3 samples, 18 images" in said
    assert said.splitlines()[-2:] == [f"wrote {bag}", f"next: labeldistill doctor {bag}"]
    assert main([*convert, "--scene", SCENES[0]]) == 2
    assert "use --force" in capsys.readouterr().err
    assert main([*convert, "--scene", "scene-9", "--force"]) == 2
    assert "there are: scene-0001, scene-0002" in capsys.readouterr().err

    detections = write_detections(tmp_path / "d", truths_of(shared_dataroot))
    result, metrics = tmp_path / "out/r.json", tmp_path / "out/m.json"
    arguments = [str(bag), str(detections), "--out", str(result), "--json", str(metrics)]
    assert main(["bag", "score", *arguments]) == 0
    assert "samples with boxes 3 of 3" in capsys.readouterr().out
    content = json.loads(metrics.read_text())
    assert content["coverage"]["matched"] == 3
    assert content["NDS"] > 0.2
    assert len(read_results(result)) == 3
    assert main(["bag", "score", str(bag)]) == 2
    assert "lacks the topic /detector/detections" in capsys.readouterr().err
    # a recording of a vehicle, which knows no samples
    assert main(["bag", "score", str(detections)]) == 2
    assert "give the data root of the drive (`bag score RUN --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("root", "scene", "samples"), [("mini_val", "scene-0103", 6), ("scene-0061", "scene-0061", 1)]
)
def test_real_scenes(
    shared_data: Path, tmp_path: Path, root: str, scene: str, samples: int
) -> None:
    tables = NuScenesTables(shared_data / "nuscenes" / root, "v1.0-mini")
    done = convert_scene(tables, scene, tmp_path / "bag")
    assert (done.samples, done.images) == (samples, 6 * samples)
    with BagReader(tmp_path / "bag") as reader:
        image = next(reader.messages([image_topic("CAM_FRONT")]))[1]
        assert decode_jpeg(bytes(image.data)).shape == (900, 1600, 3)
        found = read_samples(reader)
    tokens = [sample.truth.sample_token for sample in found]
    truths = [tables.ground_truth(token) for token in tokens]
    results = {t.sample_token: result_boxes(t.sample_token, t.boxes) for t in truths}
    wanted = evaluate(truths, results)
    score = score_bag(tmp_path / "bag", write_detections(tmp_path / "d", truths))
    assert score.metrics.mean_ap == pytest.approx(wanted.mean_ap, abs=1e-12)
    assert score.metrics.nds == pytest.approx(wanted.nds, abs=1e-6)
    assert score.coverage.missed == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scores": float("inf")}, "its `detection_score`.*infinite"),
        ({"scores": float("nan")}, "its `detection_score`.*no number"),
        ({"values": 0.0}, "its `size`.*must be above zero"),
    ],
)
def test_a_box_that_cannot_be_is_named_with_its_message(
    bag: Path, shared_dataroot: Path, tmp_path: Path, change: dict[str, float], told: str
) -> None:
    truths = truths_of(shared_dataroot)
    boxes = truths[0].boxes
    changed = {name: getattr(boxes, name).clone() for name in change}
    for name, value in change.items():
        changed[name][0 if name == "scores" else (0, slice(3, 6))] = value
    truths = [replace(truths[0], boxes=replace(boxes, **changed)), *truths[1:]]
    write_detections(tmp_path / "boxes", truths, frame="base_link")
    with pytest.raises(DataError, match=rf"boxes: .*detections at \d+ ns: box 0 .*{told}"):
        score_bag(bag, tmp_path / "boxes")
