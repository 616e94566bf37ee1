# SPDX-License-Identifier: Apache-2.0
"""Boxes, calibrations and times as messages, and back."""
