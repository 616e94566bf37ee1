# SPDX-License-Identifier: Apache-2.0
"""What a detector costs on this device."""
