# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch

from labeldistill_core.cameras import FrameSet
from labeldistill_core.checkpoints import save_student
from labeldistill_core.config import DepthNetConfig, StudentConfig
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.onnx_export import METADATA_KEY, export_onnx


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory,
    new_student: Callable[..., Student],
    tiny_config: StudentConfig,
) -> Path:
    """A student with deformable convolution in both forms."""
    folder = tmp_path_factory.mktemp("onnx")
    config = replace(tiny_config, depth_net=DepthNetConfig(16, 8, deform_groups=2))
    student: Student = new_student(config)
    save_student(folder / "student.safetensors", student, note="random")
    export_onnx(folder / "student.safetensors", folder / "student.onnx")
    return folder


def test_the_graph_computes_what_the_network_does(
    files: Path, frame_set: Callable[..., FrameSet]
) -> None:
    torch_detector, onnx_detector = (
        Detector.load(files / f"student.{suffix}") for suffix in ("safetensors", "onnx")
    )
    assert onnx_detector.class_names == torch_detector.class_names
    # no history, some, all, a camera that is missing in one set, and a jump back
    for t, missing in ((0.0, ()), (0.5, ()), (1.0, ("CAM_FRONT",)), (1.5, ()), (0.2, ())):
        frames = frame_set(t, missing=missing)
        one, two = torch_detector.detect(frames), onnx_detector.detect(frames)
        assert one.history_valid == two.history_valid
        assert len(one.boxes) == len(two.boxes) > 10
        torch.testing.assert_close(one.boxes.values, two.boxes.values, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(one.boxes.scores, two.boxes.scores, atol=1e-4, rtol=1e-3)
        assert torch.equal(one.boxes.labels, two.boxes.labels)


def test_the_backend_can_be_chosen(files: Path, frame_set: Callable[..., FrameSet]) -> None:
    exported = Detector.load(files / "student.safetensors", backend="onnx")
    same = Detector.load(files / "student.safetensors", backend="torch")
    assert (exported.engine.info.backend, same.engine.info.backend) == ("onnx", "torch")
    assert exported.checkpoint_sha256 == same.checkpoint_sha256
    one, two = (detector.detect(frame_set(0.0)).boxes for detector in (exported, same))
    torch.testing.assert_close(one.values, two.values, atol=1e-3, rtol=1e-3)
    with pytest.raises(ConfigError, match="is a graph for onnxruntime: set backend to auto"):
        Detector.load(files / "student.onnx", backend="torch")
    with pytest.raises(ConfigError, match="no backend 'tensorrt': use auto, torch, onnx"):
        Detector.load(files / "student.onnx", backend="tensorrt")  # type: ignore[arg-type]


def test_only_standard_operators(files: Path) -> None:
    model = onnx.load(files / "student.onnx")
    onnx.checker.check_model(model)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not model.functions
    assert METADATA_KEY in {entry.key for entry in model.metadata_props}


def test_bad_files_and_wishes_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not end in \.onnx"):
        export_onnx(files / "student.safetensors", tmp_path / "student.pb")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes((files / "student.onnx").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged"):
        Detector.load(cut)
    with pytest.raises(CheckpointError, match="cannot read"):
        Detector.load(tmp_path / "none.onnx")
    model = onnx.load(files / "student.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match="was not written by labeldistill export-onnx"):
        Detector.load(tmp_path / "other.onnx")
    with pytest.raises(ConfigError, match="float32, not on cpu in bfloat16"):
        Detector.load(files / "student.onnx", precision="bfloat16")


def test_configurations_that_were_written_by_others_are_refused(
    files: Path, tmp_path: Path
) -> None:
    model = onnx.load(files / "student.onnx")
    for told in ("{", "[]", '{"config": 1}', '{"config": "{}x"}', "[" * 100_000):
        del model.metadata_props[:]
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, told
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(CheckpointError, match="was not written by labeldistill export-onnx"):
            Detector.load(tmp_path / "other.onnx")


def test_a_fault_of_ours_is_not_taken_for_a_damaged_file(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise AttributeError("no such method")

    monkeypatch.setattr(onnxruntime, "InferenceSession", wrong)
    with pytest.raises(AttributeError, match="no such method"):
        Detector.load(files / "student.onnx")
