# SPDX-License-Identifier: Apache-2.0
"""A small network and a rig of six cameras."""

from tests.support.student_fixtures import calibration as calibration
from tests.support.student_fixtures import frame_set as frame_set
from tests.support.student_fixtures import new_student as new_student
from tests.support.student_fixtures import student as student
from tests.support.student_fixtures import tiny_config as tiny_config
