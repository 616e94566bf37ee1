# SPDX-License-Identifier: Apache-2.0
"""One dialect of messages for the node and for bags: each message is written and read once.

What writes takes a `MessageFamily`: by default the classes that ROS generates for rclpy, and
`bag_family.BAG` for those of the library rosbags. Importing this needs neither of them.
"""

from labeldistill_ros.messages.boxes import (
    DetectionsMessage,
    boxes_from_detections,
    detections_message,
    label_info,
)
from labeldistill_ros.messages.calibration import (
    calibration_from_info,
    camera_info,
    rectification_differs,
)
from labeldistill_ros.messages.family import ROS, MessageFamily
from labeldistill_ros.messages.geometry import quaternion_of_yaw
from labeldistill_ros.messages.markers import lifetime_of, marker_array
from labeldistill_ros.messages.stamps import header, stamp_from_ns, stamp_of, stamp_to_ns
from labeldistill_ros.messages.status import read_set_status, set_status, values_of
from labeldistill_ros.messages.tables import boxes_from_table, table_message

__all__ = [
    "ROS",
    "DetectionsMessage",
    "MessageFamily",
    "boxes_from_detections",
    "boxes_from_table",
    "calibration_from_info",
    "camera_info",
    "detections_message",
    "header",
    "label_info",
    "lifetime_of",
    "marker_array",
    "quaternion_of_yaw",
    "read_set_status",
    "rectification_differs",
    "set_status",
    "stamp_from_ns",
    "stamp_of",
    "stamp_to_ns",
    "table_message",
    "values_of",
]
