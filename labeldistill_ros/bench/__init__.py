# SPDX-License-Identifier: Apache-2.0
"""Measures of the running node: its failure table, its load, its degradation."""
