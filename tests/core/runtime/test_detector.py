# SPDX-License-Identifier: Apache-2.0
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CAMERAS, CameraCalibration, FrameSet
from labeldistill_core.checkpoints import save_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.batch import camera_batch, mean_ego_pose
from labeldistill_core.errors import DataError
from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.decode import decode
from labeldistill_core.network.student import Student
from labeldistill_core.profiling.bench_images import frame_set
from labeldistill_core.runtime import Detector
from labeldistill_core.runtime.eager_engine import EagerEngine
from labeldistill_core.runtime.fixed_step_engine import FixedStepEngine
from labeldistill_core.runtime.loading import torch_engine

MAPS = ("heatmap", "box_code")


def network_of(detector: Detector) -> Student:
    assert isinstance(detector.engine, (EagerEngine, FixedStepEngine))
    return detector.engine.network


class Recorder:
    """Keeps what the head said last."""

    def __init__(self, detector: Detector) -> None:
        network_of(detector).head.register_forward_hook(self)

    def __call__(self, module: object, inputs: object, output: tuple[TaskMaps, ...]) -> None:
        self.maps = output


@torch.no_grad()
def reference(student: Student, frames: Sequence[FrameSet]) -> tuple[Sequence[TaskMaps], Boxes3D]:
    """Maps and boxes of the network that sees all frames at once."""
    maps = student(camera_batch(frames, student.config))[0].maps
    return maps, decode(maps, student.config.grid, student.config.decode)[0]


def assert_same(
    maps: Sequence[TaskMaps], expected: Sequence[TaskMaps], tolerance: float = 1e-4
) -> None:
    for ours, theirs in zip(maps, expected, strict=True):
        for name in MAPS:
            one, two = getattr(ours, name), getattr(theirs, name)
            assert (one - two).abs().max() <= tolerance * max(1.0, two.abs().max().item())


@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_streaming_equals_all_frames_at_once(
    student: Student, frame_set: Callable[..., FrameSet], fixed_shapes: bool
) -> None:
    detector = Detector(torch_engine(student, fixed_shapes=fixed_shapes))
    recorder = Recorder(detector)
    sets = {t: frame_set(t) for t in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)}
    # past frames that are not there yet, or fell out at the gap before 3.0, are the current one
    for t, past, valid in (
        (0.0, (0.0, 0.0), 0),
        (0.5, (0.0, 0.5), 1),
        (1.0, (0.5, 0.0), 2),
        (1.5, (1.0, 0.5), 2),
        (2.0, (1.5, 1.0), 2),
        (3.0, (3.0, 2.0), 1),
    ):
        found = detector.detect(sets[t])
        streamed = recorder.maps
        maps, boxes = reference(student, [sets[t], sets[past[0]], sets[past[1]]])
        assert found.history_valid == valid
        assert_same(streamed, maps)
        assert len(found.boxes) == len(boxes) > 10
        torch.testing.assert_close(found.boxes.values, boxes.values, atol=1e-3, rtol=1e-3)
        assert torch.equal(found.boxes.labels, boxes.labels)


def test_a_step_without_history(
    new_student: Callable[..., Student],
    tiny_config: StudentConfig,
    frame_set: Callable[..., FrameSet],
) -> None:
    student = new_student(replace(tiny_config, history_s=()))
    fixed, plain = (Detector(torch_engine(student, fixed_shapes=fixed)) for fixed in (True, False))
    ours, theirs = (detector.detect(frame_set(0.0)).boxes for detector in (fixed, plain))
    torch.testing.assert_close(ours.values, theirs.values)


def test_a_step_that_cannot_be_recorded_runs_all_the_same(
    student: Student,
    frame_set: Callable[..., FrameSet],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    detector = Detector(torch_engine(student, fixed_shapes=True))
    engine = detector.engine
    assert isinstance(engine, FixedStepEngine)
    assert engine.graph == "not on a GPU"
    monkeypatch.setattr(engine.fixed_step, "graph_state", "")
    monkeypatch.setattr(engine.fixed_step, "record", refuse)
    found = [detector.detect(frame_set(t)) for t in (0.0, 0.5)]
    assert caplog.text.count("steps run without a CUDA graph: operation not permitted") == 1
    assert detector.engine.graph == "operation not permitted when stream is capturing"
    plain = Detector(torch_engine(student))
    for t, ours in zip((0.0, 0.5), found, strict=True):
        torch.testing.assert_close(ours.boxes.values, plain.detect(frame_set(t)).boxes.values)


def test_history_matters(student: Student, frame_set: Callable[..., FrameSet]) -> None:
    with_past = Detector(torch_engine(student))
    recorder = Recorder(with_past)
    for t in (0.0, 0.5):
        with_past.detect(frame_set(t))
    with_past.detect(frame_set(1.0))
    streamed = recorder.maps
    alone, _ = reference(student, [frame_set(1.0)] * 3)
    with pytest.raises(AssertionError):
        assert_same(streamed, alone, tolerance=1e-2)


def test_history_tolerance(student: Student, frame_set: Callable[..., FrameSet]) -> None:
    strict, loose = (Detector(torch_engine(student), history_tolerance_s=s) for s in (0.02, 0.06))
    for detector in (strict, loose):
        detector.detect(frame_set(0.0))
    late = frame_set(0.55)
    assert strict.detect(late).history_valid == 0
    assert loose.detect(late).history_valid == 1


@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_a_missing_camera_is_masked_in_its_frame_and_in_those_after(
    student: Student, frame_set: Callable[..., FrameSet], fixed_shapes: bool
) -> None:
    detector = Detector(torch_engine(student, fixed_shapes=fixed_shapes))
    recorder = Recorder(detector)
    complete, partial = frame_set(0.0), frame_set(0.5, missing=["CAM_FRONT"])
    now = frame_set(1.0)
    detector.detect(complete)
    found = detector.detect(partial)
    assert found.history_valid == 1
    streamed = recorder.maps
    assert_same(streamed, reference(student, [partial, complete, partial])[0])
    detector.detect(now)
    streamed = recorder.maps
    assert_same(streamed, reference(student, [now, partial, complete])[0])


def test_what_a_missing_camera_would_have_shown_does_not_matter(
    student: Student, frame_set: Callable[..., FrameSet]
) -> None:
    detector = Detector(torch_engine(student))
    recorder = Recorder(detector)
    detector.detect(frame_set(0.0, missing=CAMERAS[:5]))
    one = recorder.maps
    detector.reset("next")
    only_back = [v for v in frame_set(0.0).views if v.calibration.name == CAMERAS[5]]
    detector.detect(FrameSet(0, tuple(only_back)))
    assert_same(one, recorder.maps, tolerance=0.0)


def test_time_that_goes_back_drops_the_history(
    student: Student, frame_set: Callable[..., FrameSet], caplog: pytest.LogCaptureFixture
) -> None:
    detector = Detector(torch_engine(student))
    for t in (10.0, 10.5):
        detector.detect(frame_set(t))
    with caplog.at_level(logging.INFO):
        assert detector.detect(frame_set(9.75)).history_valid == 0
    assert "history of 2 frames dropped: time went back by 0.750 s" in caplog.text
    assert detector.detect(frame_set(10.25)).history_valid == 1
    assert detector.detect(frame_set(10.25)).history_valid == 0


def test_another_calibration_drops_the_history(
    student: Student,
    frame_set: Callable[..., FrameSet],
    calibration: Callable[..., CameraCalibration],
    caplog: pytest.LogCaptureFixture,
) -> None:
    detector = Detector(torch_engine(student))
    detector.detect(frame_set(0.0))
    same_values = frame_set(0.5, calibrations=[calibration(i) for i in range(6)])
    assert detector.detect(same_values).history_valid == 1
    zoomed = [calibration(i, 130.0 if i == 2 else None) for i in range(6)]
    with caplog.at_level(logging.INFO):
        found = detector.detect(frame_set(1.0, calibrations=zoomed))
    assert found.history_valid == 0
    assert "the calibration of CAM_FRONT_RIGHT changed" in caplog.text


def test_a_calibration_is_remembered_while_its_camera_is_missing(
    student: Student,
    frame_set: Callable[..., FrameSet],
    calibration: Callable[..., CameraCalibration],
) -> None:
    detector = Detector(torch_engine(student))
    detector.detect(frame_set(0.0))
    detector.detect(frame_set(0.5, missing=["CAM_FRONT"]))
    zoomed = [calibration(i, 130.0 if i == 1 else None) for i in range(6)]
    assert detector.detect(frame_set(1.0, calibrations=zoomed)).history_valid == 0


def test_a_set_without_cameras_leaves_the_detector_as_it_was(
    student: Student, frame_set: Callable[..., FrameSet]
) -> None:
    detector = Detector(torch_engine(student))
    detector.detect(frame_set(0.0))
    with pytest.raises(DataError, match="no image of"):
        detector.detect(FrameSet(500_000_000, ()))
    assert detector.detect(frame_set(0.5)).history_valid == 1


def test_boxes_in_the_fixed_frame(student: Student, frame_set: Callable[..., FrameSet]) -> None:
    frames = frame_set(1.0)
    found = Detector(torch_engine(student)).detect(frames)
    ego = mean_ego_pose(frames)
    assert found.stamp_ns == 1_000_000_000
    assert found.boxes.frame == "ego"
    in_map = found.in_frame(replace(ego @ ego.inverse, target="map", source="map"))
    assert in_map.frame == "map"
    np.testing.assert_allclose(
        in_map.centers.numpy(), ego.apply(found.boxes.centers.numpy()), atol=1e-6
    )
    at_stamp = found.in_frame(ego.inverse)
    torch.testing.assert_close(at_stamp.centers, found.boxes.centers.double(), atol=1e-6, rtol=0)
    assert {"preprocess", "image_network", "lift", "bev_network", "decode"} == set(found.timings_ms)


def test_bfloat16_is_close_to_float32(student: Student, frame_set: Callable[..., FrameSet]) -> None:
    maps = {}
    for precision in ("float32", "bfloat16"):
        detector = Detector(torch_engine(student, precision=precision))
        recorder = Recorder(detector)
        for t in (0.0, 0.5):
            detector.detect(frame_set(t))
        maps[precision] = recorder.maps
    for exact, rough in zip(maps["float32"], maps["bfloat16"], strict=True):
        for name in MAPS:
            one, two = getattr(exact, name), getattr(rough, name)
            assert two.dtype == torch.float32
            assert not torch.equal(one, two)
            assert (one - two).square().mean().sqrt() < 0.1 * one.std()


def test_a_compiled_network_keeps_its_number_of_threads(
    student: Student, frame_set: Callable[..., FrameSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def one_thread() -> Iterator[None]:
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(2)

    monkeypatch.setattr("labeldistill_core.runtime.detector.FittedThreads", lambda: one_thread)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen: list[int] = []
    try:
        for compiled in (False, True):
            engine = torch_engine(student)
            engine.info = replace(engine.info, compiled=compiled)  # type: ignore[misc]
            detector = Detector(engine)
            network_of(detector).head.register_forward_hook(
                lambda *_: seen.append(torch.get_num_threads())
            )
            detector.detect(frame_set(0.0))
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


@pytest.mark.gpu
@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_cuda_equals_the_cpu(
    student: Student, frame_set: Callable[..., FrameSet], fixed_shapes: bool
) -> None:
    on_cpu = Detector(torch_engine(student))
    engine = torch_engine(student, device="cuda:0", fixed_shapes=fixed_shapes)
    on_gpu = Detector(engine, device_resize=False)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for t in (0.0, 0.5, 1.0, 1.5):
        frames = frame_set(t, missing=["CAM_FRONT"] if t == 1.0 else ())
        expected, found = (detector.detect(frames).boxes for detector in (on_cpu, on_gpu))
        assert found.values.device.type == "cpu"
        assert on_gpu.newest is not None
        assert on_cpu.newest is not None
        assert on_gpu.newest.features.depth.is_cuda
        for name in ("depth", "context"):
            one = getattr(on_gpu.newest.features, name).cpu()
            two = getattr(on_cpu.newest.features, name)
            torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)
        # of nearly equal scores, another may be the better one
        assert abs(len(found) - len(expected)) <= 2
        nearest = torch.cdist(expected.values, found.values).min(dim=1).values
        assert (nearest < 0.05).float().mean() > 0.95


@pytest.mark.gpu
def test_a_step_is_recorded(student: Student, frame_set: Callable[..., FrameSet]) -> None:
    for precision in ("float32", "float16", "bfloat16"):
        detector = Detector(torch_engine(student, device="cuda:0", precision=precision))
        for t in (0.0, 0.5, 1.0):
            detector.detect(frame_set(t))
        assert detector.engine.graph == "recorded"


def test_loading_from_a_file(
    tmp_path: Path, student: Student, frame_set: Callable[..., FrameSet]
) -> None:
    path = tmp_path / "tiny.safetensors"
    save_student(path, student)
    detector = Detector.load(path)
    assert len(detector.checkpoint_sha256) == 64
    assert detector.class_names == student.config.class_names
    frames = frame_set(0.0)
    original = Detector(torch_engine(student)).detect(frames).boxes
    assert torch.equal(detector.detect(frames).boxes.values, original.values)
    named = Detector.load(str(path))
    assert torch.equal(named.detect(frames).boxes.values, original.values)


def test_only_steps_over_fixed_shapes_let_cudnn_search(
    student: Student, frame_set: Callable[..., FrameSet]
) -> None:
    for fixed_shapes in (True, False):
        detector = Detector(torch_engine(student, fixed_shapes=fixed_shapes))
        assert not torch.backends.cudnn.benchmark
        during: list[bool] = []
        head = network_of(detector).head
        head.register_forward_hook(lambda *_, to=during: to.append(torch.backends.cudnn.benchmark))
        detector.detect(frame_set(0.0))
        assert during == [fixed_shapes]
        assert not torch.backends.cudnn.benchmark


def test_images_of_cameras_that_the_model_lacks_are_told_once(
    student: Student, caplog: pytest.LogCaptureFixture
) -> None:
    detector = Detector(torch_engine(student))
    other = replace(student.config, cameras=(*CAMERAS[:-1], "left\n"))
    frames = [frame_set(stamp_s, other) for stamp_s in (1.0, 2.0)]
    for frames_of_time in frames:
        detector.detect(frames_of_time)
    (told,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert told.startswith(r"images of 'left\n' are left out: the model's cameras are CAM_FRONT")


def test_two_images_of_one_camera_are_refused(student: Student) -> None:
    views = frame_set(1.0, student.config).views
    with pytest.raises(ValueError, match="two images are of one camera: "):
        FrameSet(0, (*views, views[0]))
