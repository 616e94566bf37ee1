# SPDX-License-Identifier: Apache-2.0
"""What is whole of a bag that was cut off: a killed recording, a truncated file, a full disk."""

from __future__ import annotations

import logging
from pathlib import Path

from labeldistill_core.errors import BagError
from labeldistill_core.names import shown
from labeldistill_ros.bags.bag_folder import without_copies
from labeldistill_ros.bags.damaged_files import Losses, whole_messages
from labeldistill_ros.bags.file_formats import bag_files, refuse_other_kinds
from labeldistill_ros.bags.partial_folder import (
    abandoned,
    is_early,
    is_replaced,
    refuse_source,
    take_away,
)
from labeldistill_ros.bags.writer import BagOutput, BagWriter, Storage

_LOG = logging.getLogger(__name__)
_MOST_TOLD = 5


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
    files = without_copies(_files(source))
    types: dict[str, str] = {}
    digests: dict[str, str] = {}
    told: list[str] = []
    with BagWriter(out, storage=output.storage, force=output.force, source=source) as bag:
        for file in files:
            losses = Losses()
            for topic, kind, stamp_ns, data in whole_messages(file, losses):
                # rosbag2 has one type for a topic; a second one means that a name was damaged into
                # another topic's.
                if types.setdefault(topic.name, kind.digest) != kind.digest:
                    losses.leave_out(topic.name, f"it has two types, of which one is {kind.name}")
                    continue
                # And a bag has one definition for a type.
                if digests.setdefault(kind.name, kind.digest) != kind.digest:
                    losses.leave_out(topic.name, f"another topic defines {kind.name} otherwise")
                    continue
                bag.connect(topic.name, kind.name, topic.qos, (kind.text, kind.digest))
                bag.write(topic.name, kind.name, data, stamp_ns)
            told += losses.told()
            for text in losses.told():
                _LOG.warning("%s: %s", file, text)
        if not sum(bag.counts.values()):
            # Only now: a wrong bit in the profile of a ROS 2 bag must not cost all its messages.
            refuse_other_kinds(source)
            if not told:
                raise _NoMessageError(f"{source} has no message")
            raise BagError(f"{source}: no message in it is whole: {told[0]}")
    return dict(bag.counts)


def _files(source: Path) -> list[Path]:
    """Files of the bag in a folder or, for what a killed recording left, in folders within it.

    Raises:
        BagError: there is none, or they are those of several bags.
    """
    files = bag_files(source)
    if source.is_dir() and not files:
        files = _bags_in(source) or _bags_in(source, replaced=True)
    if not files:
        refuse_other_kinds(source)
        raise BagError(f"{source} has no file of a bag, neither .mcap nor .db3")
    # What came before simulated time began lies in a partial folder within that of the recording.
    bags = {f.parent for f in files if not any(map(is_early, f.relative_to(source).parents))}
    if len(bags) > 1:
        names = ", ".join(shown(str(bag.relative_to(source))) for bag in sorted(bags)[:_MOST_TOLD])
        raise BagError(f"{source} holds {len(bags)} bags, {names}: recover them one by one")
    return files


def _bags_in(folder: Path, *, replaced: bool = False) -> list[Path]:
    """Files of bags in the folders within one; of what was about to be replaced only if asked."""
    folders = sorted(p for p in folder.rglob("*") if p.is_dir() and is_replaced(p) == replaced)
    return [file for one in folders for file in bag_files(one)]


class _NoMessageError(BagError):
    """A bag is whole, and has no message."""


def recover_abandoned(path: Path, storage: Storage = "mcap") -> list[Path]:
    """Make bags of what killed recordings left of `path`, beside it; their names.

    What has no whole message stays, since somebody else may know how to read it.
    """
    made = []
    for left in abandoned(path):
        names = (path.with_name(f"{path.name}.recovered-{n}") for n in range(1, 10_000))
        out = next(name for name in names if not name.exists())
        try:
            if any(map(is_replaced, left.iterdir())) and not _bags_in(left):
                raise _NoMessageError(f"{left} has nothing but the bag that was to be replaced")
            counts = recover(left, out, BagOutput(storage=storage))
            made.append(out)
            _LOG.warning(
                "an earlier recording was cut off: its %d messages are in %s",
                sum(counts.values()),
                out,
            )
        except _NoMessageError:
            pass
        except BagError as error:
            _LOG.warning(
                "nothing recovered: %s; what an earlier recording left stays in %s", error, left
            )
            continue
        # Only now: until the new bag is complete, what the killed recording left is the only copy.
        if replaced := take_away(left):
            _LOG.warning("the bag that it was about to replace is in %s", replaced)
    return made
