# SPDX-License-Identifier: Apache-2.0
"""Small networks and a rig of six cameras."""

from tests.support.small_training import small_in_presets as small_in_presets
from tests.support.student_fixtures import calibration as calibration
from tests.support.student_fixtures import frame_set as frame_set
from tests.support.student_fixtures import new_student as new_student
from tests.support.student_fixtures import student as student
from tests.support.student_fixtures import tiny_config as tiny_config
