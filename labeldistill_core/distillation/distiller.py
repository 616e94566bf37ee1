# SPDX-License-Identifier: Apache-2.0
"""Teachers beside the student: they run frozen, the adaptors learn with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import ClassList
from labeldistill_core.config import StudentConfig
from labeldistill_core.distillation.adaptors import Adaptor
from labeldistill_core.distillation.config import (
    DistillationConfig,
    LabelEncoderConfig,
    TeacherNorm,
)
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.distillation.losses import ObjectMasks, feature_loss, response_loss
from labeldistill_core.distillation.partition import Partition
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.config import TeacherConfig
from labeldistill_core.network.student import StudentOutput
from labeldistill_core.network.targets import TaskTargets

if TYPE_CHECKING:
    from labeldistill_core.lidar.teacher import Teacher
    from labeldistill_core.lidar.teacher_cache import CachedTeacher

_Network = TypeVar("_Network", bound=nn.Module)


class Frozen(Generic[_Network]):
    """A network that is used and never changed: no part of the module that holds it.

    It is in evaluation mode, has no gradient, and stays out of optimizer, average and state dict.
    """

    def __init__(self, network: _Network, norm: TeacherNorm = "running") -> None:
        """Freeze it.

        Args:
            network: to freeze.
            norm: `batch` puts it in training mode, see `DistillationConfig.teacher_norm`; its
                running statistics stay as they are nevertheless.
        """
        self._network = network.train(norm == "batch").requires_grad_(False)
        for module in network.modules():
            if norm == "batch" and isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.momentum = 0.0

    def on(self, device: torch.device) -> _Network:
        """The network on a device."""
        return self._network.to(device)

    def __deepcopy__(self, _: dict[int, Any]) -> Frozen[_Network]:
        """What never changes need not be copied."""
        return self


class Distiller(nn.Module):
    """Losses between the student and its teachers."""

    def __init__(
        self,
        config: DistillationConfig,
        student: StudentConfig,
        teacher: Teacher | CachedTeacher | None,
        label_encoder: LabelEncoder | None,
    ) -> None:
        """Adaptors with random weights.

        Args:
            config: of distillation.
            student: whose channels are shaped.
            teacher: needed for LiDAR features and responses.
            label_encoder: needed for label features.

        Raises:
            ConfigError: a teacher is missing, or has another grid or other classes.
        """
        super().__init__()
        if config.needs_teacher and teacher is None:
            raise ConfigError("the LiDAR losses need a teacher: give its checkpoint (--teacher)")
        if config.label_weight and label_encoder is None:
            raise ConfigError(
                "the label loss needs a label encoder: give its checkpoint (--label-encoder)"
            )
        self.config = config
        norm = config.teacher_norm
        self.teacher = Frozen(teacher, norm) if teacher and config.needs_teacher else None
        self.label_encoder = (
            Frozen(label_encoder, norm) if label_encoder and config.label_weight else None
        )
        # Of the two taps: the frames as stacked for the BEV encoder, and its first stage, in which
        # they are mixed already.
        self.partitions = (
            Partition.of(
                config, student.frames * student.depth_net.context_channels, student.frames
            ),
            Partition.of(config, student.bev_encoder.base_channels, 1),
        )
        self.lidar_adaptor = self.label_adaptor = None
        quiet = config.adaptors == "quiet"
        if teacher and config.needs_teacher:
            require_same_cells("teacher", student, teacher.config)
        if teacher and config.lidar_weight:
            self.lidar_adaptor = Adaptor(
                [p.size("lidar") for p in self.partitions],
                teacher.config.second_channels,
                quiet=quiet,
            )
        if label_encoder and config.label_weight:
            require_same_cells("label encoder", student, label_encoder.config)
            self.label_adaptor = Adaptor(
                [p.size("label") for p in self.partitions],
                label_encoder.config.channels,
                quiet=quiet,
            )

    def teachers(self, device: torch.device) -> dict[str, nn.Module]:
        """The networks that teach, on a device, by name."""
        frozen = {"teacher": self.teacher, "label encoder": self.label_encoder}
        return {name: network.on(device) for name, network in frozen.items() if network}

    def forward(
        self,
        output: StudentOutput,
        targets: Sequence[TaskTargets],
        boxes: Sequence[Boxes3D],
        points: Sequence[Tensor] | None,
    ) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            output: of the student.
            targets: of its head, on its device.
            boxes: ground truth of each sample.
            points: (P, 5) of each sample, in the model's frame; needed by the LiDAR detector.
        """
        device = output.taps[0].device
        masks = ObjectMasks.of(targets, self.config.coarse_mask)
        losses = {}
        if self.teacher is not None:
            assert points is not None
            with torch.no_grad():
                lidar = self.teacher.on(device)(points)
            if self.lidar_adaptor is not None:
                # Weights M of the paper's feature loss: soft for what a sensor saw, whole cells for
                # what was drawn, as in the published code.
                levels = self.features(output.taps, "lidar", lidar.taps, masks.soft)
                losses["lidar"] = self.config.lidar_weight * torch.stack(levels).sum()
            if self.config.response_weight:
                # The sum over tasks of the paper's L_cls + L_bbox.
                tasks = response_loss(output.maps, lidar.maps, targets, self.config.response)
                total = torch.stack([task.heatmap + task.box for task in tasks]).sum()
                losses["response"] = self.config.response_weight * total
        if self.label_encoder is not None:
            with torch.no_grad():
                label = self.label_encoder.on(device)(boxes)
            levels = self.features(output.taps, "label", label, masks.binary)
            losses["label"] = self.config.label_weight * torch.stack(levels).sum()
        return losses

    def adapted(self, taps: Sequence[Tensor], teacher: str) -> list[Tensor]:
        """The student's share for one teacher, "lidar" or "label", in that teacher's channels."""
        adaptor = self.lidar_adaptor if teacher == "lidar" else self.label_adaptor
        assert adaptor is not None
        parts = [p.part(x, teacher) for p, x in zip(self.partitions, taps, strict=True)]  # type: ignore[arg-type]
        result: list[Tensor] = adaptor(parts)
        return result

    def features(
        self,
        taps: Sequence[Tensor],
        teacher: str,
        features: Sequence[Tensor],
        masks: Sequence[Tensor],
    ) -> list[Tensor]:
        """Loss of each level between the student and one teacher."""
        adapted, config = self.adapted(taps, teacher), self.config
        return feature_loss(adapted, features, masks, config.objects, config.scale)


def require_same_cells(
    name: str, student: StudentConfig, other: TeacherConfig | LabelEncoderConfig
) -> None:
    """See that a teacher's features lie where the student's do, and mean the same classes.

    Args:
        name: of the teacher, for the message.
        student: that is taught.
        other: the teacher.

    Raises:
        ConfigError: it has other cells or classes.
    """
    head = other.head if isinstance(other, TeacherConfig) else other
    # By name and order, which is what labels mean; ranges and categories may be other ones.
    theirs = tuple(map(tuple, head.tasks)), ClassList(head.classes).names
    own = student.head.tasks, student.head.class_list.names
    if not other.grid.same_cells(student.grid):
        raise ConfigError(
            f"the {name} has other cells than the student ({other.grid}, not {student.grid}): "
            "train it for this configuration"
        )
    for found, wanted in zip(theirs, own, strict=True):
        if found != wanted:
            raise ConfigError(
                f"the {name} has other classes than the student ({found}, not {wanted}): train it "
                "for this configuration"
            )
