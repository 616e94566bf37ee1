# SPDX-License-Identifier: Apache-2.0
import ast
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from labeldistill_core.checkpoints import load_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.errors import CheckpointError
from labeldistill_core.network.student import Student
from labeldistill_core.presets import PRESETS
from labeldistill_core.published import behaviour, convert
from labeldistill_core.published.weights import read_state_dict, rename_student
from labeldistill_core.weights import load_weights
from labeldistill_ros.cli import main
from tests.support.small_networks import preset_of

RENAMES = (
    ("image_encoder.backbone.", "backbone.img_backbone."),
    ("image_encoder.neck.levels.", "backbone.img_neck.deblocks."),
    ("depth_net.reduce.", "backbone.depth_net.reduce_conv."),
    ("depth_net.camera_norm.", "backbone.depth_net.bn."),
    ("depth_net.context_out.", "backbone.depth_net.context_conv."),
    ("depth_net.context_gate.mlp.0.", "backbone.depth_net.context_mlp.fc1."),
    ("depth_net.context_gate.mlp.2.", "backbone.depth_net.context_mlp.fc2."),
    ("depth_net.depth_gate.mlp.0.", "backbone.depth_net.depth_mlp.fc1."),
    ("depth_net.depth_gate.mlp.2.", "backbone.depth_net.depth_mlp.fc2."),
    ("depth_net.context_gate.", "backbone.depth_net.context_se.conv_"),
    ("depth_net.depth_gate.", "backbone.depth_net.depth_se.conv_"),
    ("depth_net.blocks.", "backbone.depth_net.depth_conv."),
    *(
        (f"depth_net.pyramid.branches.{i}.{j}.", f"backbone.depth_net.depth_conv.3.aspp{i + 1}.{n}")
        for i in range(4)
        for j, n in ((0, "atrous_conv."), (1, "bn."))
    ),
    ("depth_net.pyramid.pool.0.", "backbone.depth_net.depth_conv.3.global_avg_pool.1."),
    ("depth_net.pyramid.pool.1.", "backbone.depth_net.depth_conv.3.global_avg_pool.2."),
    ("depth_net.pyramid.merge.0.", "backbone.depth_net.depth_conv.3.conv1."),
    ("depth_net.pyramid.merge.1.", "backbone.depth_net.depth_conv.3.bn1."),
    ("depth_net.deform.offset.", "backbone.depth_net.depth_conv.4.conv_offset."),
    ("depth_net.deform.", "backbone.depth_net.depth_conv.4."),
    ("depth_net.depth_out.", "backbone.depth_net.depth_conv.5."),
    ("bev_encoder.trunk.", "head.trunk."),
    ("bev_encoder.neck.levels.", "head.neck.deblocks."),
    ("head.shared.0.", "head.shared_conv.conv."),
    ("head.shared.1.", "head.shared_conv.bn."),
)
BRANCHES = {
    **{"offset": "reg", "size": "dim", "heading": "rot", "velocity": "vel"},
    **{"height": "height", "heatmap": "heatmap"},
}
LAYERS = {"0": "0.conv", "1": "0.bn", "3": "1"}


def published_name(name: str) -> str:
    """The name of one of our parameters in the published code, written down independently."""
    branch = re.fullmatch(r"head\.tasks\.(\d)\.(\w+)\.(\d)\.(\w+)", name)
    if branch:
        task, kind, layer, rest = branch.groups()
        return f"head.task_heads.{task}.{BRANCHES[kind]}.{LAYERS[layer]}.{rest}"
    return next(
        theirs + name.removeprefix(ours) for ours, theirs in RENAMES if name.startswith(ours)
    )


def as_published(student: Student) -> dict[str, Tensor]:
    """A published state dict, with what does not belong to the student."""
    return {
        **{f"model.{published_name(name)}": t for name, t in student.state_dict().items()},
        "model.backbone.voxel_num": torch.tensor([32, 32, 1]),
        "model.backbone.frustum": torch.zeros(10, 4, 8, 4),
        "model.centerpoint.pts_backbone.blocks.0.0.weight": torch.zeros(2, 2),
        "model.label_encoder.ln2.weight": torch.zeros(2),
        "model.distill_encoder_lidar.blocks.0.0.weight": torch.zeros(2),
    }


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch, tiny_config: StudentConfig) -> StudentConfig:
    """The small network in the place of one of the published size."""
    monkeypatch.setattr(convert, "PRESETS", {"r50_256x704_2key": preset_of(tiny_config)})
    return behaviour.student(tiny_config)


def test_names_round_trip(student: Student) -> None:
    renamed = rename_student(as_published(student))
    assert renamed.keys() == student.state_dict().keys()
    for name, tensor in student.state_dict().items():
        assert renamed[name] is not None
        assert torch.equal(renamed[name], tensor)


def test_unknown_names_are_kept_for_the_report(student: Student) -> None:
    weights = rename_student({**as_published(student), "model.head.surprise": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="1 unexpected: head.surprise"):
        load_weights(student, weights, "file")


@pytest.mark.parametrize(
    ("listing", "preset"),
    [
        ("state_dict_r50_2key.txt", "r50_256x704_2key"),
        ("state_dict_r50_4key.txt", "r50_256x704_4key"),
        ("state_dict_r101_2key.txt", "r101_512x1408_2key"),
    ],
)
def test_all_published_names_and_shapes(shared_data: Path, listing: str, preset: str) -> None:
    path = shared_data.parent / "design" / "state_dicts" / listing
    if not path.is_file():
        pytest.skip("needs the list of the published parameters")
    with torch.device("meta"):
        published = {
            name: torch.empty(ast.literal_eval(shape))
            for name, shape, *_ in (line.split("\t") for line in path.read_text().splitlines())
        }
        student = Student(PRESETS[preset].as_published().student)
    renamed = rename_student(published)
    ours = student.state_dict()
    assert renamed.keys() == ours.keys()
    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in ours.items()}


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors"])
def test_conversion(
    tmp_path: Path,
    tiny_preset: StudentConfig,
    new_student: Callable[..., Student],
    suffix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    student = new_student(tiny_preset)
    source, target = tmp_path / f"published{suffix}", tmp_path / "ours.safetensors"
    weights = as_published(student)
    if suffix == ".safetensors":
        save_file(weights, source)
    else:
        torch.save({"epoch": 24, "global_step": 7, "state_dict": weights}, source)
    assert main(["convert-checkpoint", str(source), str(target)]) == 0
    count = len(student.state_dict())
    told = f"{target}: student r50_256x704_2key with {count} tensors\n"
    assert capsys.readouterr().out == told
    checkpoint = load_student(target)
    assert checkpoint.student.config == tiny_preset
    assert checkpoint.note == f"converted from {source.name}"
    loaded = checkpoint.student.state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in student.state_dict().items())


def test_no_file_of_another_kind_is_written_over(
    tmp_path: Path, tiny_preset: StudentConfig, new_student: Callable[..., Student],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source, other = tmp_path / "published.safetensors", tmp_path / "notes.txt"
    save_file(as_published(new_student(tiny_preset)), source)
    other.write_text("dear to me")
    before = source.read_bytes()
    assert main(["convert-checkpoint", str(source), str(source)]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert main(["convert-checkpoint", str(source), str(other)]) == 2
    assert "is no file of a network" in capsys.readouterr().err
    assert (source.read_bytes(), other.read_text()) == (before, "dear to me")


@pytest.mark.usefixtures("tiny_preset")
def test_a_network_of_another_shape_is_refused_with_a_list(
    tmp_path: Path, student: Student, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = as_published(student)
    del weights["model.head.shared_conv.conv.weight"]
    source, target = tmp_path / "published.pth", tmp_path / "ours.safetensors"
    torch.save(weights, source)
    assert main(["convert-checkpoint", str(source), str(target)]) == 2
    message = capsys.readouterr().err
    assert "r50_256x704_2key: " in message
    assert "1 missing: head.shared.0.weight" in message
    assert not target.exists()


class Bomb:
    """A pickle that makes a folder when it is read by an incautious reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = tmp_path / "bomb.pth", tmp_path / "made_by_the_pickle"
    torch.save({"state_dict": {"w": torch.zeros(1)}, "extra": Bomb(folder)}, source)
    assert main(["convert-checkpoint", str(source), str(tmp_path / "out.safetensors")]) == 2
    assert "holds more than tensors and plain values, so it is not read" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("kept", [0.5, 0.0])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file(tmp_path: Path, student: Student, kept: float, suffix: str) -> None:
    source = tmp_path / f"published{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(as_published(student), source)
    data = source.read_bytes()
    source.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CheckpointError, match=f"published{suffix} is (truncated|damaged)"):
        read_state_dict(source)


@pytest.mark.parametrize("data", [b"hello\n", bytes(range(256)), b"\x80\x02N.", b"PK\x03\x04" * 9])
def test_files_that_are_no_checkpoint(tmp_path: Path, data: bytes) -> None:
    source = tmp_path / "published.pth"
    source.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"published.pth (is|holds)"):
        read_state_dict(source)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": 1}}, torch.zeros(2)])
def test_files_without_a_state_dict(tmp_path: Path, content: object) -> None:
    source = tmp_path / "published.pth"
    torch.save(content, source)
    with pytest.raises(CheckpointError, match="holds no state dict of tensors"):
        read_state_dict(source)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_state_dict(tmp_path / "absent.pth")
