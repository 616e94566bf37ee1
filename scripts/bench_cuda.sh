#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every figure of a GPU in one call of under eight minutes.
# usage: scripts/bench_cuda.sh OUT [DEVICE [SECONDS]]
# OUT gets a log of each part, bench_cuda*.json, bench_training_cuda.json and the targets. A part that
# fails or takes too long does not keep the others from running; the script then ends with 1.
# DEVICE is cuda:0; with cpu, all parts run once and small, to see that they run. SECONDS bound the whole.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '3,7p' "$0" >&2; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd)
device=${2:-cuda:0}
cd "$(dirname "$0")/.."
path=.venv/bin
[ -x $path/python ] && PATH=$PWD/$path:$PATH
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

if [ "$device" = cpu ]; then
	small=1 repeats=1 preset=demo large=demo half=bfloat16 scenes=1 limit=${3:-7200}
else
	small= repeats=100 preset=r50_256x704_4key large=r101_512x1408_2key half=float16 scenes=8 limit=${3:-475}
fi
world="$out/world"
start=$SECONDS
failed=()

# part NAME SECONDS COMMAND...: runs it, within what is left of the time for all
part() {
	local name=$1 seconds=$2 left=$((limit - SECONDS + start)) code
	shift 2
	[ "$device" = cpu ] && seconds=1200
	[ "$left" -lt "$seconds" ] && seconds=$((left > 1 ? left : 1))
	printf '== %s: %s\n' "$name" "$*"
	timeout -k 5 "$seconds" "$@" > "$out/$name.log" 2>&1
	code=$?
	if [ $code != 0 ]; then
		failed+=("$name (exit code $code)")
		echo "!! $name FAILED with exit code $code (124: after $seconds s); the end of $out/$name.log:"
		tail -n 15 "$out/$name.log"
	fi
	echo "   $((SECONDS - start)) s since the start"
}

labeldistill=(python -m labeldistill_ros.cli)

# a small world for accuracy and training
part world 60 "${labeldistill[@]}" synth "$world" --scenes $scenes --key-frames 5 \
	--sweeps lidar
# correct: features, images and boxes as on the CPU, a graph for every precision, spconv as torch
part tests 60 python -m pytest -q -m gpu tests/core tests/benchmarks

# latency by stage, history, cameras and pixels; pooling; busy share; memory; graph
part r50 190 python -m benchmarks.detector stages --device "$device" --presets $preset \
	--precisions float32 $half --repeats $repeats ${small:+--no-scaling} --json "$out/bench_cuda.json"
# training steps with and without AMP, spconv against the torch backend
part training 60 python -m benchmarks.training "$world" --version v1.0-mini \
	--device "$device" ${small:+--batch-size 1 --repeats 1} --json "$out/bench_training_cuda.json"
part lift 30 python -m benchmarks.detector lift --device "$device" --preset $preset \
	--repeats $((repeats > 9 ? 10 : 1)) --json "$out/bench_cuda_lift.json"
# scores of every fast way against the plain network
part accuracy 60 python -m benchmarks.detector accuracy config/models/demo.safetensors "$world" \
	--version v1.0-mini --split all --scenes $scenes --device "$device" \
	--json "$out/bench_cuda_accuracy.json"
part r101 100 python -m benchmarks.detector stages --device "$device" --presets $large \
	--precisions $half --repeats $repeats --no-scaling --json "$out/bench_cuda_r101.json"
part compile 100 python -m benchmarks.detector stages --device "$device" --presets $preset \
	--precisions $half --compile --repeats $repeats --no-scaling --json "$out/bench_cuda_compile.json"

files=()
for name in bench_cuda bench_cuda_r101 bench_cuda_compile bench_cuda_accuracy; do
	[ -f "$out/$name.json" ] && files+=("$out/$name.json")
done
if [ ${#files[@]} != 0 ]; then
	python -m benchmarks.detector targets "${files[@]}" | tee "$out/targets.txt"
	code=${PIPESTATUS[0]} # 1 says that a target is not met
	[ "$code" -le 1 ] || failed+=("targets (exit code $code)")
fi
echo "took $((SECONDS - start)) s"
if [ ${#failed[@]} != 0 ]; then
	printf 'FAILED: %s\n' "${failed[@]}"
	exit 1
fi
echo "all parts ran"
