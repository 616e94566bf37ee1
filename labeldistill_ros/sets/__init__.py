# SPDX-License-Identifier: Apache-2.0
"""From the messages of one instant to a `FrameSet`, and which boxes are shown. No ROS import."""
