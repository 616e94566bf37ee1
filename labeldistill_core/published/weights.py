# SPDX-License-Identifier: Apache-2.0
"""Weights of the published code: reading its files and renaming its parameters."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from labeldistill_core.errors import CheckpointError
from labeldistill_core.names import plain_text, shown

STUDENT_RENAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.img_backbone\.", "image_encoder.backbone."),
    (r"backbone\.img_neck\.deblocks\.", "image_encoder.neck.levels."),
    (r"backbone\.depth_net\.reduce_conv\.", "depth_net.reduce."),
    (r"backbone\.depth_net\.bn\.", "depth_net.camera_norm."),
    (r"backbone\.depth_net\.context_conv\.", "depth_net.context_out."),
    (r"backbone\.depth_net\.(depth|context)_mlp\.fc1\.", r"depth_net.\1_gate.mlp.0."),
    (r"backbone\.depth_net\.(depth|context)_mlp\.fc2\.", r"depth_net.\1_gate.mlp.2."),
    (r"backbone\.depth_net\.(depth|context)_se\.conv_(reduce|expand)\.", r"depth_net.\1_gate.\2."),
    (r"backbone\.depth_net\.depth_conv\.([012])\.", r"depth_net.blocks.\1."),
    (r"backbone\.depth_net\.depth_conv\.3\.aspp1\.", "depth_net.pyramid.branches.0."),
    (r"backbone\.depth_net\.depth_conv\.3\.aspp2\.", "depth_net.pyramid.branches.1."),
    (r"backbone\.depth_net\.depth_conv\.3\.aspp3\.", "depth_net.pyramid.branches.2."),
    (r"backbone\.depth_net\.depth_conv\.3\.aspp4\.", "depth_net.pyramid.branches.3."),
    (r"(depth_net\.pyramid\.branches\.\d)\.atrous_conv\.", r"\1.0."),
    (r"(depth_net\.pyramid\.branches\.\d)\.bn\.", r"\1.1."),
    (r"backbone\.depth_net\.depth_conv\.3\.global_avg_pool\.1\.", "depth_net.pyramid.pool.0."),
    (r"backbone\.depth_net\.depth_conv\.3\.global_avg_pool\.2\.", "depth_net.pyramid.pool.1."),
    (r"backbone\.depth_net\.depth_conv\.3\.conv1\.", "depth_net.pyramid.merge.0."),
    (r"backbone\.depth_net\.depth_conv\.3\.bn1\.", "depth_net.pyramid.merge.1."),
    (r"backbone\.depth_net\.depth_conv\.4\.conv_offset\.", "depth_net.deform.offset."),
    (r"backbone\.depth_net\.depth_conv\.4\.weight", "depth_net.deform.weight"),
    (r"backbone\.depth_net\.depth_conv\.5\.", "depth_net.depth_out."),
    (r"head\.trunk\.", "bev_encoder.trunk."),
    (r"head\.neck\.deblocks\.", "bev_encoder.neck.levels."),
    (r"head\.shared_conv\.conv\.", "head.shared.0."),
    (r"head\.shared_conv\.bn\.", "head.shared.1."),
    (r"head\.task_heads\.(\d)\.", r"head.tasks.\1."),
    (r"(head\.tasks\.\d)\.reg\.", r"\1.offset."),
    (r"(head\.tasks\.\d)\.dim\.", r"\1.size."),
    (r"(head\.tasks\.\d)\.rot\.", r"\1.heading."),
    (r"(head\.tasks\.\d)\.vel\.", r"\1.velocity."),
    (r"(head\.tasks\.\d\.\w+)\.1\.(weight|bias)$", r"\1.3.\2"),
    (r"(head\.tasks\.\d\.\w+)\.0\.conv\.", r"\1.0."),
    (r"(head\.tasks\.\d\.\w+)\.0\.bn\.", r"\1.1."),
)
"""Regular expressions at the start of a published name, applied in order."""

LABEL_ENCODER_RENAMES: tuple[tuple[str, str], ...] = (
    (r"label_encoder\.", ""),
    (r"mlp_box\.", "box_mlp."),
    (r"mlp_label\.", "class_mlp."),
    (r"mlp2\.", "joint_mlp."),
    (r"(\w+_mlp)\.fc1\.", r"\1.0."),
    (r"(\w+_mlp)\.fc2\.", r"\1.2."),
    (r"ln2\.", "joint_norm."),
    (r"conv1\.", "block."),
    (r"conv_blocks\.", "levels."),
)
"""Parameter names of the published label encoder, as patterns, and ours."""

TEACHER_RENAMES: tuple[tuple[str, str], ...] = (
    (r"centerpoint\.", ""),
    (r"pts_middle_encoder\.conv_input\.", "encoder.input."),
    (r"pts_middle_encoder\.conv_out\.", "encoder.output."),
    (r"(encoder\.(?:input|output))\.0\.", r"\1.conv."),
    (r"(encoder\.(?:input|output))\.1\.", r"\1.norm."),
    *(
        (rf"pts_middle_encoder\.encoder_layers\.encoder_layer{i + 1}\.", f"encoder.stages.{i}.")
        for i in range(8)
    ),
    (r"(encoder\.stages\.\d\.2)\.0\.", r"\1.conv."),
    (r"(encoder\.stages\.\d\.2)\.1\.", r"\1.norm."),
    (r"pts_backbone\.blocks\.", "second.stages."),
    (r"pts_neck\.deblocks\.", "neck.levels."),
    (r"pts_bbox_head\.", "head."),
    *(rule for rule in STUDENT_RENAMES if "head" in rule[0]),
)
"""Parameter names of the published LiDAR teacher, as patterns, and ours."""

ADAPTOR_RENAMES: tuple[tuple[str, str], ...] = (
    (r"distill_encoder_(lidar|label)\.blocks\.", r"\1_adaptor.levels."),
)
"""Parameter names of the published adaptors, as patterns, and ours."""

_GEOMETRY = re.compile(r"backbone\.(voxel_size|voxel_coord|voxel_num|frustum)$")
_TRAINING_ONLY = (
    "distill_encoder_lidar.",
    "distill_encoder_label.",
    "centerpoint.",
    "label_encoder.",
)


def rename_student(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The student's part of a published state dict under our names.

    Geometry buffers are recomputed here and training-only parts belong to other networks; both
    are left out. A name that no rule knows is kept, so that loading reports it.
    """
    renamed = {}
    for name, tensor in _plain_names(published).items():
        if _GEOMETRY.match(name) or name.startswith(_TRAINING_ONLY):
            continue
        renamed[rename(name, STUDENT_RENAMES)] = tensor
    return renamed


def rename_teacher(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The LiDAR teacher's part of a published state dict, or a plain CenterPoint, under our names.

    Sparse weights are (kz, ky, kx, Cin, Cout); those of spconv 2, (Cout, kz, ky, kx, Cin), are
    turned.
    """
    names = _plain_names(published)
    # A checkpoint of a distilled student carries its teacher along.
    if any(name.startswith("centerpoint.") for name in names):
        names = {n: t for n, t in names.items() if n.startswith("centerpoint.")}
    renamed = {rename(name, TEACHER_RENAMES): tensor for name, tensor in names.items()}
    for name, tensor in renamed.items():
        if name == "neck.levels.0.0.weight":
            # a plain 1x1 convolution there, a transposed one here
            renamed[name] = tensor.transpose(0, 1)
        # All kernels are three voxels high, and no layer has three output channels.
        elif tensor.ndim == 5 and tensor.shape[0] != 3:
            renamed[name] = tensor.permute(1, 2, 3, 4, 0)
    return renamed


def rename_part(
    published: dict[str, Tensor], prefix: str, renames: tuple[tuple[str, str], ...]
) -> dict[str, Tensor]:
    """Tensors whose published name begins with `prefix`, under our names."""
    names = _plain_names(published)
    return {rename(n, renames): t for n, t in names.items() if n.startswith(prefix)}


def _plain_names(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without lightning's prefix, which exported files lack."""
    return {name.removeprefix("model."): tensor for name, tensor in published.items()}


def rename(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    """A published name under ours; the patterns are applied in order."""
    for pattern, replacement in renames:
        name = re.sub(rf"^{pattern}", replacement, name)
    return name


def _in_the_way(error: pickle.UnpicklingError) -> str:
    """The class that torch refuses; its own text advises to trust the file, in colours."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f": it holds {plain_text(found[1])}" if found else ""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.pth`, `.ckpt` or `.safetensors` file of other code, under its names.

    Raises:
        CheckpointError: the file is missing, damaged, or a pickle that holds more than tensors and
            plain values; such a file could run any program when it is read.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is truncated or damaged: {error}") from error
    try:
        # A pickle of others could run any program.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors and plain values, so it is not read; "
            f"save its state dict alone, with plain types, where it was made{_in_the_way(error)}"
        ) from error
    except Exception as error:  # damaged bytes lead torch's unpickler to errors of any kind
        what = shown(" ".join(str(error).split()))
        raise CheckpointError(f"{path} is truncated or no checkpoint: {what}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"{path} holds no state dict of tensors")
    return state
