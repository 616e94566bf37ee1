# SPDX-License-Identifier: Apache-2.0
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from labeldistill_core import checkpoints
from labeldistill_core.cameras import FrameSet
from labeldistill_core.checkpoints import load_student, load_weights, save_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.batch import camera_batch
from labeldistill_core.errors import CheckpointError
from labeldistill_core.network.student import Student


@pytest.fixture
def path(tmp_path: Path, student: Student) -> Path:
    path = tmp_path / "models" / "tiny.safetensors"
    save_student(path, student, note="random")
    return path


@torch.no_grad()
def test_round_trip_gives_the_same_output(
    path: Path, student: Student, tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    checkpoint = load_student(path)
    assert checkpoint.student.config == tiny_config
    assert checkpoint.note == "random"
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not checkpoint.student.training
    batch = camera_batch([frame_set(t) for t in (1.0, 0.5, 0.0)], tiny_config)
    for one, two in zip(checkpoint.student(batch)[0].maps, student(batch)[0].maps, strict=True):
        assert torch.equal(one.heatmap, two.heatmap)
        assert torch.equal(one.box_code, two.box_code)


def test_half_precision_storage(tmp_path: Path, path: Path, student: Student) -> None:
    half = tmp_path / "half.safetensors"
    save_student(half, student, dtype=torch.float16)
    assert half.stat().st_size < 0.7 * path.stat().st_size
    loaded = load_student(half).student.state_dict()
    for name, tensor in student.state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        torch.testing.assert_close(loaded[name], tensor, atol=1e-3, rtol=1e-3)


def test_a_file_that_could_not_be_written_leaves_the_old_one(
    path: Path, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def disk_full(tensors: object, target: Path, metadata: object) -> None:
        target.write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "save_file", disk_full)
    with pytest.raises(CheckpointError, match="cannot write .*disk full"):
        save_student(path, student)
    assert path.read_bytes() == before


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*absent.safetensors: give"):
        load_student(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_student(tmp_path)


@pytest.mark.parametrize("kept", [0.9, 0.1, 0.0])
def test_a_truncated_file(path: Path, kept: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CheckpointError, match=r"tiny.safetensors is truncated or no safetensors"):
        load_student(path)


def test_something_else_than_safetensors(path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="convert-checkpoint"):
        load_student(path)


def test_safetensors_of_another_origin(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="holds no network configuration"):
        load_student(path)


def test_a_configuration_that_is_wrong(path: Path, student: Student) -> None:
    text = student.config.to_json().replace('"height": 64', '"height": 65')
    save_file(student.state_dict(), path, {"labeldistill.config": text})
    with pytest.raises(CheckpointError, match=r"tiny.safetensors: .* image.height is 65"):
        load_student(path)


def test_weights_of_another_configuration(
    path: Path, student: Student, tiny_config: StudentConfig
) -> None:
    other = replace(tiny_config, history_s=(0.5,))
    save_file(student.state_dict(), path, {"labeldistill.config": other.to_json()})
    with pytest.raises(CheckpointError) as refused:
        load_student(path)
    message = str(refused.value)
    assert "is it another preset? 2 of another shape:" in message
    assert "bev_encoder.trunk.conv1.weight is (8, 18, 7, 7), the network has (8, 12" in message


def test_all_that_does_not_fit_is_listed_and_nothing_is_loaded(
    student: Student, new_student: Callable[..., Student], tiny_config: StudentConfig
) -> None:
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    tensors = new_student(tiny_config, seed=1).state_dict()
    del tensors["head.shared.0.weight"], tensors["depth_net.depth_out.bias"]
    tensors["teacher.weight"] = torch.zeros(2)
    tensors["depth_net.depth_out.weight"] = torch.zeros(5, 8, 1, 1)
    with pytest.raises(CheckpointError) as refused:
        load_weights(student, tensors, "some file")
    assert re.fullmatch(
        r"some file does not fit the network; is it another preset\? "
        r"2 missing: depth_net.depth_out.bias, head.shared.0.weight; "
        r"1 unexpected: teacher.weight; "
        r"1 of another shape: depth_net.depth_out.weight is \(5, 8, 1, 1\), "
        r"the network has \(10, 8, 1, 1\)",
        str(refused.value),
    )
    after = student.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_long_lists_are_cut(student: Student) -> None:
    with pytest.raises(CheckpointError, match=r"\d+ missing: [^;]* \.\.\.$"):
        load_weights(student, {}, "nothing")


def test_the_record_of_the_training_comes_back(tmp_path: Path, student: Student) -> None:
    path = tmp_path / "s.safetensors"
    save_student(path, student, record={"preset": "tiny", "recipe": {"epochs": 3}})
    assert load_student(path).record == {"preset": "tiny", "recipe": {"epochs": 3}}


def test_changed_weights_are_noticed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="its weights are not those that were written"):
        load_student(path)
