#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make the demo bag anew and train a demo model from nothing (under three hours on two cores); it takes the place of the
# shipped one, which learnt for longer, and so of the score that `make demo` expects.
# usage: scripts/make_demo.sh WORK_FOLDER
set -euo pipefail
[ $# = 1 ] || { sed -n '3,5p' "$0" >&2; exit 2; }
work=$1
cd "$(dirname "$0")/.."
labeldistill=.venv/bin/labeldistill

# The scene was taken because all ten classes stand in it.
$labeldistill synth "$work/scene" --scenes 1 --key-frames 20 --seed 270
$labeldistill bag from-nuscenes "$work/scene" rosbags/demo --version v1.0-mini --scene scene-0061 \
	--no-clouds --force

# A repeated call goes on where the last one stopped.
$labeldistill synth "$work/world" --scenes 850 --key-frames 5 --seed 1 --sweeps lidar
$labeldistill train teacher "$work/world" "$work/teacher" --devices 2
$labeldistill train label-encoder "$work/world" "$work/labels" \
	--teacher "$work/teacher/teacher.safetensors"
$labeldistill train student "$work/world" "$work/run" --devices 2 --teacher-cache-gib 6 \
	--teacher "$work/teacher/teacher.safetensors" \
	--label-encoder "$work/labels/label_encoder.safetensors"
$labeldistill evaluate "$work/run/student.safetensors" "$work/world" --split val
cp "$work/run/student.safetensors" config/models/demo.safetensors
cp "$work/teacher/teacher.safetensors" config/models/demo_teacher.safetensors
cp "$work/labels/label_encoder.safetensors" config/models/demo_label_encoder.safetensors
