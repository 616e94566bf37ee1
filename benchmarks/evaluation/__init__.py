# SPDX-License-Identifier: Apache-2.0
"""What scoring a whole split costs, beside the devkit."""
