# SPDX-License-Identifier: Apache-2.0
import errno
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from labeldistill_core.cameras import FrameSet
from labeldistill_core.checkpoints import (
    build_network,
    load_student,
    read_checkpoint,
    save_network,
    save_student,
)
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.batch import camera_batch
from labeldistill_core.errors import CheckpointError
from labeldistill_core.network.student import Student
from labeldistill_core.weights import load_weights
from tests.support.fuzzing import fuzz


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

    def disk_full(target: Path, _: bytes) -> int:
        with target.open("wb") as file:
            file.write(b"half of it")
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match=f"disk full: '{path}'"):
        save_student(path, student)
    assert path.read_bytes() == before


def test_a_device_that_cannot_be_written_is_named(student: Student) -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        save_student(Path("/dev/full"), student)


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


def rewritten(path: Path, **metadata: str) -> None:
    """Write a checkpoint anew with other metadata and the same weights."""
    with safe_open(path, framework="pt") as file:
        kept = file.metadata()
    changed = {f"labeldistill.{key}": value for key, value in metadata.items()}
    save_file(load_file(path), path, {**kept, **changed})


def configured(path: Path, keys: tuple[str, ...], value: Any) -> None:
    """Change one entry of a checkpoint's configuration."""
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["labeldistill.config"])
    place = config
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    rewritten(path, config=json.dumps(config))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("bev_encoder", "base_channels"), 10**9, "no network can be made|of another shape"),
        (("bev_encoder", "base_channels"), 10**400, "is far too large"),
        (("depth_net", "mid_channels"), 20_000, "of another shape"),
        (("depth_net", "mid_channels"), -4, "depth_net.mid_channels is -4: use positive"),
        (("depth_net", "dropout"), 2.0, "depth_net.dropout is 2.0"),
        (("history_s",), [0.5 * i for i in range(1, 10**5)], "history_s has 99999 ages"),
        (("grid", "cell_m"), 1e-3, "cells of 0.001 m: use at most"),
        (("grid", "cell_m"), 0.0, "grid.cell_m is 0.0"),
        (("depth_bins", "step_m"), 1e-9, "points on rays"),
        (("depth_bins", "stop_m"), float("inf"), "inf is no finite number"),
        (("depth_bins", "stop_m"), float("nan"), "nan is no finite number"),
        (("image", "height"), 3_200_000, "image.height is 3200000"),
        (("image", "std"), [0.0, 1.0, 1.0], "image.std"),
        (("cameras",), [], "cameras needs 1 to"),
        (("cameras",), ["front"] * 6, "cameras needs 1 to"),
        (("head", "tasks"), [], "head.tasks needs a task|radii for 0 tasks"),
    ],
)
def test_what_a_configuration_asks_for_is_checked_before_memory_is_taken(
    path: Path,
    keys: tuple[str, ...],
    value: Any,
    message: str,
) -> None:
    configured(path, keys, value)
    devices = []

    def made(config: StudentConfig) -> Student:
        devices.append(torch.empty(0).device.type)
        return Student(config)

    with pytest.raises(CheckpointError, match=message):
        build_network(read_checkpoint(path, "student"), StudentConfig, made)
    assert set(devices) <= {"meta"}


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "{oops", "9" * 5000, "[]"])
@pytest.mark.parametrize("key", ["config", "record", "kind"])
def test_metadata_that_are_no_json_of_ours(path: Path, key: str, text: str) -> None:
    rewritten(path, **{key: text})
    with pytest.raises(CheckpointError, match=r"tiny.safetensors") as refused:
        load_student(path)
    assert len(str(refused.value)) < 3000


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(path: Path, bad: float) -> None:
    tensors = load_file(path)
    tensors["head.shared.0.weight"][0, 0, 0, 0] = bad
    with safe_open(path, framework="pt") as file:
        metadata = {k: v for k, v in file.metadata().items() if "sha256" not in k}
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match=r"1 of \d+ weights .* \(head.shared.0.weight\)"):
        load_student(path)


def test_weights_that_overflow_in_the_type_of_the_network_are_refused(student: Student) -> None:
    tensors = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    tensors["head.shared.0.weight"] = tensors["head.shared.0.weight"].double() + 1e300
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        load_weights(student, tensors, "some file")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_weights_of_another_type_are_refused(
    path: Path, student: Student, dtype: torch.dtype
) -> None:
    name = "head.shared.0.weight"
    tensors = student.state_dict() | {name: student.state_dict()[name].to(dtype)}
    save_file(tensors, path, {"labeldistill.config": student.config.to_json()})
    with pytest.raises(CheckpointError, match=f"1 of another type: {name} is {dtype}"):
        load_student(path)


def test_weights_that_are_not_finite_are_not_written(path: Path, student: Student) -> None:
    before = path.read_bytes()
    with torch.no_grad():
        student.head.get_parameter("shared.0.weight").fill_(float("nan"))
    with pytest.raises(CheckpointError, match="is not written: 1 of"):
        save_student(path, student)
    assert path.read_bytes() == before


def test_statistics_of_norms_are_not_rounded(tmp_path: Path, student: Student) -> None:
    """Of one camera the variances are 0, and its mean is what the norm leaves of it."""
    norm, means = student.depth_net.camera_norm, [1266.417, 626.4, 0.22, -70.0]
    assert norm.running_mean is not None
    norm.running_mean[:4] = torch.tensor(means)
    save_student(tmp_path / "half.safetensors", student, dtype=torch.float16)
    read = load_student(tmp_path / "half.safetensors").student
    found = read.get_buffer("depth_net.camera_norm.running_mean")
    assert torch.equal(found[:4], torch.tensor(means))


def test_weights_beyond_half_precision_keep_their_own(tmp_path: Path, student: Student) -> None:
    name = "depth_net.camera_norm.weight"
    with torch.no_grad():
        student.get_parameter(name)[0] = 89356.0
    save_student(tmp_path / "half.safetensors", student, dtype=torch.float16)
    assert load_student(tmp_path / "half.safetensors").student.get_parameter(name)[0] == 89356.0


def test_the_same_weights_have_the_same_hash_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from pathlib import Path;"
        "from labeldistill_core.checkpoints import save_network;"
        "save_network(Path(sys.argv[1]), 'student', torch.nn.BatchNorm1d(3), {'a': 1}, 'note')"
    )
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file in files[:2]:
        subprocess.run([sys.executable, "-c", program, file], check=True)
    save_network(files[2], "student", torch.nn.BatchNorm1d(3), {"a": 1}, "note")
    # five entries have 120 orders
    assert len({file.read_bytes() for file in files}) == 1
    assert files[0].stat().st_mode & 0o444 == 0o444


@fuzz(25)
@given(data=st.data())
def test_no_configuration_does_more_than_be_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, tiny_config: StudentConfig
) -> None:
    """Any entry becomes any value: it loads, or one sentence says why not."""
    path = tmp_path_factory.mktemp("any") / "any.safetensors"
    save_student(path, Student(tiny_config))
    place: Any = json.loads(tiny_config.to_json())
    keys: list[str] = []
    while isinstance(place, dict) and (not keys or data.draw(st.booleans())):
        keys.append(data.draw(st.sampled_from(sorted(place))))
        place = place[keys[-1]]
    numbers = st.integers() | st.floats() | st.sampled_from([-1, 0, 1, 10**9, 10**400, 1e308])
    value = data.draw(
        numbers | st.none() | st.booleans() | st.text(max_size=5) | st.lists(numbers, max_size=8)
    )
    configured(path, tuple(keys), value)
    with suppress(CheckpointError):
        load_student(path)


def test_a_detector_is_loaded_without_what_only_some_networks_need() -> None:
    """torchvision and torch's compiler take two seconds each, at every start of a node or command.

    In a process of its own, since other tests import them.
    """
    program = (
        "import sys\n"
        "from labeldistill_core.installed_files import demo_model\n"
        "from labeldistill_core.runtime import Detector\n"
        "Detector.load(demo_model(), device='cpu')\n"
        "print([name for name in ('torchvision', 'torch._dynamo') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
