# SPDX-License-Identifier: Apache-2.0
"""What bags cost: conversion, memory, replay."""
