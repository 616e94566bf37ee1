# SPDX-License-Identifier: Apache-2.0
"""What is whole of a bag that was cut off: a killed recording, a truncated file, a full disk."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from labeldistill_core.errors import BagError
from labeldistill_ros.bags.bag_folder import without_copies
from labeldistill_ros.bags.damaged_files import Losses, whole_messages
from labeldistill_ros.bags.file_formats import bag_files, refuse_other_kinds
from labeldistill_ros.bags.writer import BagOutput, BagWriter, Storage, abandoned, refuse_source

_LOG = logging.getLogger(__name__)


def recover(
    source: Path,
    out: Path,
    output: BagOutput = BagOutput(),  # noqa: B008 - frozen
) -> dict[str, int]:
    """Write a bag with every whole message of a damaged one, which stays as it is.

    A message is whole when it decodes as the type of its topic, to the last byte.

    Args:
        source: folder of a bag, of which the metadata may be missing, or a file of one.
        out: folder of the bag to write.
        output: how it is written.

    Returns:
        Messages by topic.

    Raises:
        BagError: there is no file of a bag, it is one of another kind, none has a whole message,
            or `out` cannot be written.
    """
    refuse_source(out, source)
    files = without_copies(bag_files(source))
    if not files:
        refuse_other_kinds(source)
        raise BagError(
            f"{source} has no file of a bag, neither .mcap nor .db3; those that end in .zstd, "
            "decompress first with `unzstd`"
        )
    types: dict[str, str] = {}
    digests: dict[str, str] = {}
    with BagWriter(out, storage=output.storage, force=output.force) as bag:
        for file in files:
            losses = Losses()
            for topic, kind, stamp_ns, data in whole_messages(file, losses):
                # rosbag2 has one type for a topic; a second one means that a name was damaged into
                # another topic's.
                if types.setdefault(topic.name, kind.digest) != kind.digest:
                    losses.topics[topic.name] = f"it has two types, of which one is {kind.name}"
                    losses.messages += 1
                    continue
                # And a bag has one definition for a type.
                if digests.setdefault(kind.name, kind.digest) != kind.digest:
                    losses.topics[topic.name] = f"another topic defines {kind.name} otherwise"
                    losses.messages += 1
                    continue
                bag.connect(topic.name, kind.name, topic.qos, (kind.text, kind.digest))
                bag.write(topic.name, kind.name, data, stamp_ns)
            losses.tell(file)
        if not sum(bag.counts.values()):
            # Only now: a wrong bit in the profile of a ROS 2 bag must not cost all its messages.
            refuse_other_kinds(source)
            raise BagError(
                f"{source}: no message in it is whole, or each is compressed by itself: then "
                "`ros2 bag convert` decompresses what is whole"
            )
    return dict(bag.counts)


def recover_abandoned(path: Path, storage: Storage = "mcap") -> list[Path]:
    """Make bags of what killed recordings left of `path`, beside it; their names.

    What has no whole message is left for the next writer to clear away.
    """
    made = []
    for left in abandoned(path):
        names = (path.with_name(f"{path.name}.recovered-{n}") for n in range(1, 10_000))
        out = next(name for name in names if not name.exists())
        try:
            counts = recover(left, out, BagOutput(storage=storage))
        except BagError as error:
            _LOG.warning("nothing recovered: %s", error)
            continue
        # Only now: until the new bag is complete, what the killed recording left is the only copy.
        shutil.rmtree(left)
        made.append(out)
        _LOG.warning(
            "an earlier recording was cut off: its %d messages are in %s", sum(counts.values()), out
        )
    return made
