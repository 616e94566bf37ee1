# SPDX-License-Identifier: Apache-2.0
"""Definitions of message types for bags, and the CDR of messages with large data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import apsw
from rosbags.interfaces import MessageDefinition
from rosbags.interfaces.typing import Typesdict
from rosbags.rosbag2 import storage_mcap
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from labeldistill_ros.bags.library_errors import DAMAGED
from labeldistill_ros.messages.bag_family import typestore

_PART = "=" * 80 + "\n"
"""Between the definitions of a type and of those that it contains."""
_ENCODINGS = ("ros2msg", "ros2idl")
_get_msgdef = storage_mcap.get_msgdef
_INCLUDE = re.compile(r"^[ \t]*#.*$", re.MULTILINE)


def _get_msgdef_if_known(schema: Any) -> MessageDefinition:
    """See `allow_no_definitions`; of MCAP files."""
    known = schema is not None and schema.encoding in (*_ENCODINGS, "omgidl")
    return _get_msgdef(schema if known else None)


storage_mcap.get_msgdef = _get_msgdef_if_known


@cache
def definition(msgtype: str) -> tuple[str, str]:
    """Text of a message type with all that it contains, and its RIHS01 hash."""
    store = typestore()
    return store.generate_msgdef(msgtype, ros_version=2)[0], store.hash_rihs01(msgtype)


@dataclass(frozen=True, eq=False)
class MessageType:
    """A message type as a bag defines it."""

    name: str
    """Name of the type, such as `std_msgs/msg/String`."""
    text: str
    """Definition of the type with all that it contains."""
    digest: str
    """RIHS01 hash of the definition."""
    store: Typestore
    """Decodes messages of the type."""

    @property
    def is_ours(self) -> bool:
        """Whether this project defines the type in the same way."""
        return self.name in typestore().types and self.digest == definition(self.name)[1]

    def decodes(self, data: bytes) -> bool:
        """Whether bytes are a message of this type, to the last one."""
        try:
            self.store.deserialize_cdr(data, self.name)
        except DAMAGED:
            return False
        return True


def message_type(name: str, text: str, *, idl: bool = False) -> MessageType | None:
    """A type by the definition that a bag carries, or where that is no use, by that of ROS.

    Types of a bag stay apart from those of this project, since a bag may call a type by the name of
    another one.

    Args:
        name: such as `std_msgs/msg/String`.
        text: of the definition; may be empty.
        idl: the text is in the interface definition language rather than that of `.msg` files.

    Returns:
        None when the definition cannot be read, and the type is not known here.
    """
    ours = None
    if name in typestore().types:
        ours = MessageType(name, *definition(name), typestore())
        if text in ("", ours.text):
            return ours
    if not text:
        return None
    try:
        # A store of its own for each type of a bag, so that no definition of a bag replaces one of
        # ROS.
        return _of_types(name, _types_of(name, text, idl))
    except DAMAGED:
        return ours


def message_type_of_several(name: str, texts: Mapping[str, tuple[str, bool]]) -> MessageType | None:
    """A type whose definition leans on those of other topics, or on ROS's own.

    Args:
        name: of the type.
        texts: definition of each type of the bag, and whether it is in IDL.

    Returns:
        None when it is not among them, or something that it contains is missing.
    """
    # An empty one would be that of a type without fields.
    texts = {other: known for other, known in texts.items() if known[0]}
    if name not in texts:
        return None
    defined: dict[str, Typesdict] = {}
    for other, known in texts.items():
        with suppress(*DAMAGED):  # one that cannot be read helps nobody, and harms only its own
            defined[other] = _types_of(other, *known)
    told: Typesdict = {}
    differ: set[str] = set()
    for found in defined.values():
        # Without their constants, which are no part of a message.
        differ |= {kind for kind, one in found.items() if told.setdefault(kind, one)[1] != one[1]}
    # Nobody knows which of two is meant, and the wrong one would give wrong values.
    types = {k: v for k, v in {**typestore().fielddefs, **told}.items() if k not in differ}
    try:
        return _of_types(name, types | defined.get(name, {}))
    except DAMAGED:
        return None


def _of_types(name: str, types: Typesdict) -> MessageType:
    """A type among its parts; raises one of `DAMAGED` where something is missing."""
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    text = store.generate_msgdef(name, ros_version=2)[0]
    return MessageType(name, text, store.hash_rihs01(name), store)


def _types_of(name: str, text: str, idl: bool) -> Typesdict:
    """Types of a definition; raises one of `DAMAGED` where it cannot be read."""
    return _types_of_idl(text) if idl else get_types_from_msg(text, name)


def _types_of_idl(text: str) -> Typesdict:
    """Types of a definition in IDL, which may be of several parts, each under a line of its own."""
    head = f"{_PART}IDL: "
    parts = text.split(_PART)[1:] if text.startswith(head) else [f"IDL:\n{text}"]
    types: Typesdict = {}
    for part in parts:
        _, _, lines = part.partition("\n")
        # What a part includes is another part, and the library reads no such lines.
        types.update(get_types_from_idl(_INCLUDE.sub("", lines)))
    return types


@contextmanager
def allow_no_definitions() -> Iterator[None]:
    """Lets rosbags open SQLite files with topics whose definition the recorder had not.

    rosbag2 marks them by an encoding of another name, over which rosbags refuses the whole bag.
    """

    def sqlite3(base: apsw.Connection) -> None:
        # Looked at before the bag's own table, which stays as it is.
        names = ", ".join(f"'{name}'" for name in _ENCODINGS)
        with suppress(apsw.Error):  # no file of a bag, or an older one without definitions
            base.execute(
                "CREATE TEMP VIEW message_definitions AS SELECT * FROM main.message_definitions "
                f"WHERE encoding IN ({names})"
            )

    apsw.connection_hooks.append(sqlite3)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(sqlite3)


def with_data(
    msgtype: str, message: Any, data: bytes | memoryview, behind: int
) -> tuple[bytes | memoryview, ...]:
    """CDR of a message, in pieces, whose large field `data` is left as it lies in memory.

    Args:
        msgtype: a type with a field `uint8[] data`, such as `sensor_msgs/msg/CompressedImage`.
        message: with an empty `uint8[] data`.
        data: the field.
        behind: bytes of the fields after it, of one byte each, as nothing else needs no padding.
    """
    # CDR writes a sequence as its length in four bytes and then its items; with an empty one
    # everything else stands where it will stand, but for what follows.
    rest = bytes(typestore().serialize_cdr(message, msgtype))
    end = len(rest) - behind
    return rest[: end - 4] + len(data).to_bytes(4, "little"), data, rest[end:]
