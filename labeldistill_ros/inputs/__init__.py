# SPDX-License-Identifier: Apache-2.0
"""What comes in: subscriptions, image decoding and rectification, transforms and poses."""
