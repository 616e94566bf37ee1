# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights for the backbone of the image encoder, from a local file."""

from __future__ import annotations

from pathlib import Path

from labeldistill_core.errors import CheckpointError
from labeldistill_core.network.image_encoder import ConvNeXt, ImageEncoder
from labeldistill_core.published.weights import read_state_dict
from labeldistill_core.weights import load_weights

_CLASSIFIERS = ("fc.", "classifier.")
"""What torchvision's ResNets and ConvNeXts have behind their features."""


def load_pretrained(encoder: ImageEncoder, file: Path) -> None:
    """Let a backbone begin with torchvision's weights.

    Args:
        encoder: whose backbone is filled; its neck stays as it is.
        file: state dict of a torchvision ResNet or ConvNeXt, `.pth` or `.safetensors`.

    Raises:
        CheckpointError: the file is missing, damaged or unsafe, or is of another network than the
            backbone; lists what is missing, unexpected or of another shape.
    """
    weights = read_state_dict(file)
    kept = {n: t.float() for n, t in weights.items() if not n.startswith(_CLASSIFIERS)}
    backbone = encoder.backbone
    # counters are no weights, and files from before they existed lack them
    counters = {n: t for n, t in backbone.state_dict().items() if n.endswith("num_batches_tracked")}
    kind = "ConvNeXt" if isinstance(backbone, ConvNeXt) else "ResNet"
    if not kept.keys() & backbone.state_dict().keys():
        raise CheckpointError(
            f"{file} has none of the weights of a torchvision {kind}: give the state dict of the "
            "preset's backbone"
        )
    load_weights(backbone, {**kept, **counters}, str(file))
