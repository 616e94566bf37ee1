# SPDX-License-Identifier: Apache-2.0
"""`metadata.yaml` of a rosbag2 folder.

Written as text, since a YAML library takes longer for it than the images of a short scene take.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from textwrap import dedent, indent

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2.metadata import dump_qos_v8

METADATA_VERSION = 8  # the newest whose QoS profiles Humble can parse


@cache
def qos_text(profile: Qos) -> str:
    """A list of one profile, as rosbag2 stores it."""
    return dump_qos_v8([profile])


def metadata_text(
    storage: str,
    file: str,
    topics: Sequence[tuple[Connection, Qos, int]],
    span_ns: tuple[int, int],
    about: Mapping[str, str],
) -> str:
    """The content of `metadata.yaml`.

    Args:
        storage: identifier of its plugin, such as `mcap`.
        file: name of the only file.
        topics: with offered profile and number of messages.
        span_ns: log time of the first and the last message.
        about: goes into `custom_data`.
    """
    begin_ns, end_ns = span_ns
    # The same span twice in the file: of the bag, and of its only file.
    span = (
        "duration:\n"
        f"  nanoseconds: {end_ns - begin_ns}\n"
        "starting_time:\n"
        f"  nanoseconds_since_epoch: {begin_ns}\n"
        f"message_count: {sum(count for *_, count in topics)}\n"
    )
    lines = [
        f"version: {METADATA_VERSION}\n",
        f"storage_identifier: {storage}\n",
        span,
        "topics_with_message_count:" + ("\n" if topics else " []\n"),
        *(_topic_text(*topic) for topic in topics),
        'compression_format: ""\n',
        'compression_mode: ""\n',
        f"relative_file_paths:\n  - {_quoted(file)}\n",
        f"files:\n  - path: {_quoted(file)}\n" + indent(span, "    "),
        "custom_data:" + ("\n" if about else " {}\n"),
        *(f"  {_quoted(key)}: {_quoted(value)}\n" for key, value in about.items()),
        "ros_distro: rosbags\n",
    ]
    return "rosbag2_bagfile_information:\n" + indent("".join(lines), "  ")


def information(text: str) -> str:
    """What is below the only key of `metadata_text`, as the files in a bag carry it too."""
    return dedent(text.partition("\n")[2])


def _topic_text(connection: Connection, profile: Qos, count: int) -> str:
    return (
        "  - topic_metadata:\n"
        f"      name: {_quoted(connection.topic)}\n"
        f"      type: {_quoted(connection.msgtype)}\n"
        "      serialization_format: cdr\n"
        f"      offered_qos_profiles: {_quoted(qos_text(profile))}\n"
        f"      type_description_hash: {connection.digest}\n"
        f"    message_count: {count}\n"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a YAML scalar
