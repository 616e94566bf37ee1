# SPDX-License-Identifier: Apache-2.0
"""Annotations of a data root by machines."""
