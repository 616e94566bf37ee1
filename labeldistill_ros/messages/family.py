# SPDX-License-Identifier: Apache-2.0
"""Families of message classes: the same ROS messages, as different libraries make them.

A vehicle's node has the classes that ROS generates for rclpy; a bag tool has those that the
library rosbags makes from message definitions, and needs no ROS. Both have the same fields, but a
class of rosbags wants every field, and a numpy array for each sequence of numbers. What writes a
message takes a family and calls `make`, so it is written once; what reads one needs no family.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any


class MessageFamily(ABC):
    """Makes messages of one library by the names of their types."""

    @abstractmethod
    def make(self, kind: str, /, **fields: Any) -> Any:
        """A message of a type such as `std_msgs/msg/String`.

        Args:
            kind: package, "msg" and name of the type.
            fields: values by field name; a field that is not given has the default of its
                definition, mostly zero or empty. Arrays of numbers may be any sequence, `uint8[]`
                also bytes, and `byte` is an int.

        Raises:
            TypeError: the type has no such field; rclpy's classes say so only where
                `ROS_PYTHON_CHECK_FIELDS` is 1.
        """


class RosMessages(MessageFamily):
    """The classes that ROS generates for rclpy, imported when the first is asked for."""

    def __init__(self) -> None:
        """Begin without classes; each is imported when it is first made."""
        self._makers: dict[str, Callable[..., Any]] = {}

    def make(self, kind: str, /, **fields: Any) -> Any:
        """See `MessageFamily.make`."""
        maker = self._makers.get(kind) or self._learn(kind)
        return maker(**fields)

    def _learn(self, kind: str) -> Callable[..., Any]:
        package, _, name = kind.split("/")
        # Imported by name at run time, so that bag tools, which never ask for these classes, work
        # without a ROS distribution.
        found: Any = getattr(importlib.import_module(f"{package}.msg"), name)
        types = found.get_fields_and_field_types()
        octets = [field for field, type_name in types.items() if type_name == "octet"]

        def with_octets(**fields: Any) -> Any:
            # rclpy has a ROS `byte` as a bytes object of length one
            for field in octets:
                if field in fields:
                    fields[field] = bytes([fields[field]])
            return found(**fields)

        maker: Callable[..., Any] = with_octets if octets else found
        self._makers[kind] = maker
        return maker


ROS = RosMessages()
"""The family of the running node."""
