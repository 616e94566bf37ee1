# SPDX-License-Identifier: Apache-2.0
"""Measurements of what makes the detector fast."""
