# SPDX-License-Identifier: Apache-2.0
"""What failing cameras, stamps and calibrations cost a model."""
