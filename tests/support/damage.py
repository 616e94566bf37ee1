# SPDX-License-Identifier: Apache-2.0
"""Small sound bags, and what disks, downloads and killed processes make of their files."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.writer import BagWriter, Storage
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.boxes import detections_message
from labeldistill_ros.messages.geometry import transform_stamped
from labeldistill_ros.messages.stamps import header

MESSAGES = 60
BEGIN_NS = 1_600_000_000 * 10**9


def write_small_bag(path: Path, *, storage: Storage = "mcap", zstd: bool = False) -> None:
    """`MESSAGES` messages of four types, in an mcap file in six chunks."""
    kinds = {
        "/text": "std_msgs/msg/String",
        "/image": "sensor_msgs/msg/CompressedImage",
        "/tf": "tf2_msgs/msg/TFMessage",
        "/boxes": "vision_msgs/msg/Detection3DArray",
    }
    noise = Random(0)
    with BagWriter(path, storage=storage, zstd=zstd) as bag:
        for number in range(MESSAGES):
            stamp_ns = BEGIN_NS + number * 10**8
            topic = tuple(kinds)[number % len(kinds)]
            message: Any
            if topic == "/text":
                message = BAG.make(kinds[topic], data=f"message {number} " * 20)
            elif topic == "/image":
                message = BAG.make(
                    kinds[topic],
                    header=header(stamp_ns, "camera", BAG),
                    format="jpeg",
                    data=list(noise.randbytes(700)),
                )
            elif topic == "/tf":
                still = Transform.identity("a", "b")
                message = BAG.make(
                    kinds[topic], transforms=[transform_stamped(still, stamp_ns, "a", "b", BAG)]
                )
            else:
                values = torch.tensor([[10.0, number, 0.8, 4.6, 1.9, 1.6, 0.0, 5.0, 0.0]])
                boxes = Boxes3D("map", values, torch.tensor([0]), torch.ones(1))
                message = detections_message(boxes, CLASSES, stamp_ns, family=BAG)
            bag.write(topic, kinds[topic], message, stamp_ns)
            if number % 10 == 9:
                bag.flush()


def damaged(data: bytes, seed: int) -> bytes:
    """The bytes with one to four faults: wrong, missing, added or exchanged ones."""
    draw, out = Random(seed), bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(out) + 1)
        if draw.random() < 0.3:  # heads and tails have most of the structure
            at = min(len(out), draw.choice((at % 600, max(0, len(out) - at % 3000))))
        size = draw.choice((1, 2, 8, 100, 3000))
        match draw.randrange(7):
            case 0 | 1 if at < len(out):
                out[at] ^= 1 << draw.randrange(8)
            case 2:
                out[at : at + size] = draw.randbytes(min(size, len(out) - at))
            case 3:
                del out[at : at + size]
            case 4:
                out[at:at] = draw.randbytes(size)
            case 5:
                del out[at:]
            case _:
                out[at : at + size] = bytes(min(size, len(out) - at))
    return bytes(out)
