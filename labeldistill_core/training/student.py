# SPDX-License-Identifier: Apache-2.0
"""Training of the student: detection and depth loss, and what its teachers say."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.depth_labels import depth_bins, depth_remainders
from labeldistill_core.data.samples import SampleConfig, StudentSample
from labeldistill_core.distillation.distiller import Distiller
from labeldistill_core.errors import ConfigError
from labeldistill_core.network.decode import decode
from labeldistill_core.network.losses import depth_loss, detection_loss
from labeldistill_core.network.student import Student
from labeldistill_core.network.targets import build_targets
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.stage import Stage

_IMAGE_NETWORK = ("network.image_encoder.", "network.depth_net.")


def require_two_images(samples: int, cameras: int) -> None:
    """See that a step has more than one image.

    Raises:
        ConfigError: it has one, whose pooled features have no spread for a norm to go by.
    """
    if samples * cameras < 2:
        raise ConfigError(
            "a step of one sample of one camera has a single image, from which batch norms cannot "
            "learn: take two samples at least (--batch-size, --samples)"
        )


class StudentStage(Stage):
    """Losses of the student."""

    network: Student

    def __init__(
        self,
        config: StudentConfig,
        recipe: Recipe,
        distiller: Distiller | None = None,
        sample: SampleConfig = SampleConfig(),  # noqa: B008
    ) -> None:
        """A student with random weights.

        Args:
            config: of the network.
            recipe: of the run.
            distiller: teachers and adaptors; without them the student learns from labels alone.
            sample: says what the depth is compared with.
        """
        # Convolutions on a CPU are about a third faster in this layout.
        student = Student(config).to(memory_format=torch.channels_last)
        super().__init__(student, recipe, config.class_names)
        self.config, self.distiller, self._sample = config, distiller, sample

    def losses(self, sample: StudentSample) -> dict[str, Tensor]:
        """Detection, depth, and the distiller's losses."""
        output, current = self.network(sample.batch)
        device = current.depth.device
        targets = [
            # Built on the CPU: drawing Gaussians is a loop over objects, which a GPU would have to
            # wait for.
            task.to(device)
            for task in build_targets(sample.boxes, self.config.grid, self.config.head)
        ]
        tasks = detection_loss(output.maps, targets, self.recipe.code_weights(device))
        seen = (
            sample.depth.flatten(0, 1),
            self.config.image_encoder.stride,
            self.config.depth_bins,
        )
        linear = self._sample.depth_labels == "linear"
        remainders = depth_remainders(*seen) if linear else None
        losses = {
            # L_det of the paper, in its two parts; the depth loss carries its factor of 3 itself.
            "heatmap": torch.stack([task.heatmap for task in tasks]).sum(),
            "box": torch.stack([task.box for task in tasks]).sum(),
            "depth": depth_loss(current.depth, depth_bins(*seen), remainders),
        }
        if self.distiller is not None:
            losses |= self.distiller(output, targets, sample.boxes, sample.points)
        return losses

    def detections(self, sample: StudentSample) -> list[Boxes3D]:
        """Boxes of each sample."""
        output, _ = self.network(sample.batch)
        return decode(output.maps, self.config.grid, self.config.decode)

    def parameter_rates(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        """The image network may have a rate of its own."""
        for name, parameter, _ in super().parameter_rates():
            # As published: the pretrained image network and the depth net learn at half the rate.
            image = name.startswith(_IMAGE_NETWORK)
            yield name, parameter, self.recipe.image_rate if image else 1.0
