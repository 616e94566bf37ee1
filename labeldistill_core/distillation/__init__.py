# SPDX-License-Identifier: Apache-2.0
"""What the student learns from its teachers: label encoder, partition, adaptors, losses."""
