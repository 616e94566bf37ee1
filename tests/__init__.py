# SPDX-License-Identifier: Apache-2.0
"""Tests, in the folders of the packages that they test."""
