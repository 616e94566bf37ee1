# SPDX-License-Identifier: Apache-2.0
"""A small network and a rig of six cameras, as the tests of the package itself have them."""

from tests.core.conftest import calibration, frame_set, new_student, student, tiny_config  # noqa: F401
