# SPDX-License-Identifier: Apache-2.0
"""The running node: its failure table, and itself under load."""
