# SPDX-License-Identifier: Apache-2.0
"""Every ROS test talks alone, and may have a vehicle and a detector."""

from tests.support.ros_fixtures import detector as detector
from tests.support.ros_fixtures import ros_context as ros_context
from tests.support.ros_fixtures import ros_domain_id as ros_domain_id
from tests.support.ros_fixtures import spun as spun
from tests.support.ros_fixtures import tiny_model as tiny_model
from tests.support.ros_fixtures import vehicle as vehicle
