# SPDX-License-Identifier: Apache-2.0
"""Comparisons over several training runs."""
