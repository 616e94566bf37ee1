#!/bin/sh
# Every figure of a GPU in one call: scripts/bench_cuda.sh OUT [DATAROOT]
# OUT gets bench_cuda.json (by stage, float32, float16, compiled), lift_cuda.json (pooling) and, with
# a synthetic or nuScenes data root, bench_training_cuda.json.
set -eu
out=${1:?give a folder for the results}
mkdir -p "$out"
labeldistill bench --device cuda:0 --precisions float32 bfloat16 float16 --compile --repeats 100 \
    --presets r50_256x704_4key r101_512x1408_2key --json "$out/bench_cuda.json"
labeldistill bench-lift --device cuda:0 --repeats 10 --json "$out/lift_cuda.json"
if [ $# -gt 1 ]; then
    labeldistill bench-training "$2" --device cuda --json "$out/bench_training_cuda.json"
fi
