# SPDX-License-Identifier: Apache-2.0
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.detector.targets import bench_targets, targets

ON_GPU: dict[str, Any] = {
    "machine": "m",
    "device": "cuda:0",
    "peak": {"copy_gb_s": 2000.0},
    "presets": {
        "r50_256x704_4key": {
            "fastest": "float16, graph",
            "runs": {
                "float32": {"stages": {"end to end": {"p50": 40.0, "p99": 50.0}}},
                "float16, graph": {
                    "stages": {"end to end": {"p50": 9.0, "p99": 14.0}},
                    "busy_ms": 10.0,
                    "graph": "recorded",
                },
            },
            "pooling": {"ms": 0.5, "gathered_gb": 0.8, "least_gb": 0.1},
        },
        "r101_512x1408_2key": {
            "fastest": "float16",
            "runs": {"float16": {"stages": {"end to end": {"p50": 24.0, "p99": 90.0}}}},
        },
    },
}
ON_CPU = {
    "machine": "m",
    "device": "cpu",
    "presets": {
        "r50_256x704_4key": {
            "fastest": "bfloat16",
            "runs": {"bfloat16": {"stages": {"end to end": {"p50": 700.0}}}},
        },
        "demo": {
            "fastest": "bfloat16",
            "runs": {"bfloat16": {"stages": {"end to end": {"p50": 100.0}}}},
        },
    },
    "ratios": {"r50_256x704_4key": {"speedup": 15.2, "memory_share": 0.62}},
}
ACCURACY = {
    "machine": "m",
    "mAP": 0.2,
    "NDS": 0.3,
    "ways": {"bfloat16": {"mAP": 0.2005, "NDS": 0.2995}},
}


OF_BENCH = {name: value for name, value in ON_CPU.items() if name != "ratios"}
OF_BENCH_ON_GPU = {name: value for name, value in ON_GPU.items() if name != "peak"}


@pytest.mark.parametrize(
    ("figures", "count"),
    [(ON_GPU, 6), (ON_CPU, 3), (ACCURACY, 2), (OF_BENCH, 1), (OF_BENCH_ON_GPU, 0)],
)
def test_targets_that_are_met(
    figures: dict[str, Any], count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    assert bench_targets((tmp_path / "figures.json",)) == 0
    printed = capsys.readouterr().out
    assert printed.count("met ") == count
    assert "NOT MET" not in printed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("runs", "float16, graph", "stages", "end to end", "p50"), 10.1),
        (("runs", "float16, graph", "stages", "end to end", "p99"), 15.1),
        (("runs", "float16, graph", "busy_ms"), 13.0),
        (("runs", "float16, graph", "graph"), "operation not permitted"),
        (("pooling", "ms"), 0.9),
    ],
)
def test_a_target_that_is_missed(
    path: tuple[str, ...], value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = copy.deepcopy(ON_GPU)
    place: Any = figures["presets"]["r50_256x704_4key"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert [target.met for target in targets(figures)].count(False) == 1
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    assert bench_targets((tmp_path / "figures.json",)) == 1
    assert "NOT MET" in capsys.readouterr().out


def test_scores_that_differ_are_a_target_missed() -> None:
    far = {**ACCURACY, "ways": {"bfloat16": {"mAP": 0.2012, "NDS": 0.3}}}
    assert [target.met for target in targets(far)] == [False, True]
