# SPDX-License-Identifier: Apache-2.0
"""Small bags, and what writers of them leave that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages.bag_family import BAG
from tests.support.damage import BEGIN_NS

KIND = "std_msgs/msg/String"
COUNT = 500


def write(bag: BagWriter, count: int = COUNT) -> None:
    for number in range(count):
        bag.write("/text", KIND, BAG.make(KIND, data="x" * 1000), BEGIN_NS + number)
    bag.flush()


def make(path: Path, count: int = COUNT, **options: Any) -> None:
    """A whole bag of so many messages."""
    with BagWriter(path, **options) as bag:
        write(bag, count)


def counts(path: Path) -> dict[str, int]:
    with BagReader(path) as reader:
        assert sum(reader.counts().values()) == len(list(reader.raw()))
        return reader.counts()


def killed(path: Path, *, keep: bool = True, storage: str = "mcap", count: int = COUNT) -> Path:
    """What a writer leaves that is killed."""
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from labeldistill_ros.bags.writer import BagWriter\n"
        "from tests.support.killed_writers import write\n"
        f"bag = BagWriter(Path({str(path)!r}), keep={keep}, storage={storage!r})\n"
        "bag.__enter__()\n"
        f"write(bag, {count}) if {count} else None\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = path.parent.glob(f".{path.name}.partial-*")
    return left


def killed_between_the_names(path: Path, *, keep: bool) -> Path:
    """What a writer leaves that is killed while it replaces a bag, before the second renaming."""
    code = (
        "import os\n"
        "from pathlib import Path\n"
        "from labeldistill_ros.bags.writer import BagWriter\n"
        "from tests.support.killed_writers import write\n"
        f"with BagWriter(Path({str(path)!r}), force=True, keep={keep}) as bag:\n"
        "    write(bag, 5)\n"
        "    rename, seen = Path.rename, []\n"
        "    def last(self, target):\n"
        "        seen.append(self)\n"
        "        if len(seen) == 2:\n"
        "            os._exit(9)\n"
        "        return rename(self, target)\n"
        "    Path.rename = last\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    (left,) = path.parent.glob(f".{path.name}.partial-*")
    return left
