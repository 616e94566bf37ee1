# SPDX-License-Identifier: Apache-2.0
"""Recorded drives to data sets in nuScenes form."""
