# SPDX-License-Identifier: Apache-2.0
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from benchmarks.detector import lift, pooling
from benchmarks.detector.hardware import gpu_time
from benchmarks.detector.lift import LiftOptions, bench_lift
from benchmarks.detector.page import BEGIN, END, bench_compare, bench_page
from benchmarks.detector.report import TOLERANCE, Report, Speedup
from benchmarks.detector.stages import StagesOptions, stages
from benchmarks.detector.streaming import measure_history, measure_streaming
from benchmarks.detector.work import Work
from benchmarks.timing import peak_mib
from labeldistill_core import presets
from labeldistill_core.config import StudentConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.network.student import Student
from labeldistill_core.profiling.bench import WHOLES
from labeldistill_core.profiling.latency import measure_steps
from labeldistill_core.profiling.ways import Way, ways_on
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.history import History
from labeldistill_core.runtime.loading import torch_engine
from tests.support.small_networks import preset_of


@pytest.fixture
def tiny_preset(tiny_config: StudentConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lift, "find_preset", lambda name: preset_of(tiny_config))


def test_bench_measures_and_reports(
    tiny_preset: StudentConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_lift(LiftOptions("tiny", repeats=1), tmp_path / "out" / "bench.json") == 0
    printed = capsys.readouterr().out
    for row in ("pooling, forward", "forward + backward", "streaming step, 3 frames"):
        assert row in printed
    written = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert len(written["comparisons"]) == 3
    for row in written["comparisons"]:
        assert row["fast_ms"] > 0
        assert row["plain_ms"] > 0
    peaks = [(c["fast_peak_mib"], c["plain_peak_mib"]) for c in written["comparisons"][:2]]
    assert all(0 < fast < plain for fast, plain in peaks)
    assert set(written["single_ms"]) == {"ray points", "pooling table"}
    assert all(value < TOLERANCE for value in written["differences"].values())


def test_bench_fails_when_pooling_differs(
    tiny_preset: StudentConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = pooling.naive_lift
    monkeypatch.setattr(pooling, "naive_lift", lambda *args: 1.01 * plain(*args))
    assert bench_lift(LiftOptions("tiny", repeats=1)) == 1
    assert "TOO LARGE" in capsys.readouterr().out


def test_a_difference_that_is_no_number_is_not_lost() -> None:
    nan, one = torch.tensor([float("nan")]), torch.ones(1)
    assert math.isnan(pooling.relative_difference([one, nan, one], [one, one, one]))


def test_streaming_that_loses_its_past_is_seen(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(torch_engine(student))
    _, difference = measure_streaming(student, detector, repeats=1)
    assert difference < TOLERANCE
    monkeypatch.setattr(History, "pick", lambda self, stamp_ns: [None, None])
    _, difference = measure_streaming(student, detector, repeats=1)
    assert difference > 10 * TOLERANCE


def test_peak_memory_is_what_is_held_at_once() -> None:
    def step() -> None:
        held = torch.ones(2**18)  # 1 MiB
        for _ in range(3):
            held = held * 2.0  # two of them at once

    assert peak_mib(step, torch.device("cpu")) == pytest.approx(2.0, abs=0.01)


def test_a_report_says_which_targets_are_met() -> None:
    good = Speedup("good", fast_ms=1.0, plain_ms=30.0, target=30.0)
    report = Report(
        "cpu", 1, 0.25, 2, (good, replace(good, name="bad", target=31.0)), {"maps": 0.0}, {}
    )
    lines = {line.split()[0]: line for line in report.table().splitlines() if line}
    assert "not met" not in lines["good"]
    assert "not met" in lines["bad"]
    assert "load 0.2 on 2 cores" in report.table()
    assert report.equal
    assert not replace(report, differences={"maps": float("nan")}).equal


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"threads": 0}])
def test_numbers_that_are_not_positive_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        LiftOptions(**wrong)


@pytest.mark.real_time
def test_bench_by_stage(
    tiny_config: StudentConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(preset_of(tiny_config), name="tiny"))
    file = tmp_path / "out" / "bench.json"
    options = StagesOptions(presets=("tiny",), precisions=("bfloat16",), repeats=2)
    stages(options, json=file)
    assert "| image encoder |" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert {"command", "commit", "machine", "peak", "ratios"} <= set(found)
    tiny = found["presets"]["tiny"]
    for run in tiny["runs"].values():
        by_stage = {name: row["p50"] for name, row in run["stages"].items()}
        assert all(value > 0 for value in by_stage.values())
        parts = sum(v for k, v in by_stage.items() if k not in WHOLES)
        assert parts < 1.5 * by_stage["end to end"]
        assert len(run["history"]) == tiny_config.frames
        assert all(row["step"] > row["image_network"] for row in run["history"])
        assert {"image encoder", "depth net", "pooling", "head"} <= set(run["work"])
        assert run["first_step_ms"] > 0
        assert run["sets_s"] > 1
        assert run["peak_mib"] > 50
    assert set(tiny["scaling"]["cameras"]) == {"1", "2", "4", "6"}
    assert tiny["pooling"]["gathered_gb"] > tiny["pooling"]["least_gb"] > 0
    published, fast = (tiny["published"], tiny["runs"][tiny["fastest"]]["stages"])
    ratio = published["step"]["p50"] / fast["step"]["p50"]
    assert found["ratios"]["tiny"]["speedup"] == pytest.approx(ratio)

    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    for _ in range(2):  # the second time replaces the first
        bench_page(page, (file,))
    text = page.read_text()
    assert "old" not in text
    assert text.count("| image encoder |") == 2  # times and work
    assert "nan" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    # as on a GPU, where the fastest way does not tell of its stages
    whole = {**tiny["runs"]["bfloat16"], "busy_ms": 5.0, "graph": "recorded"}
    whole["stages"] = {k: whole["stages"][k] for k in ("step", "end to end")}
    tiny["runs"]["bfloat16, graph"], tiny["fastest"] = whole, "bfloat16, graph"
    (tmp_path / "gpu.json").write_text(json.dumps(found))
    bench_page(page, (tmp_path / "gpu.json",))
    text = page.read_text()
    assert "keeps the GPU busy for 6% of the time" in text
    assert text.count("| image encoder |") == 2
    assert "| CUDA graph |  | recorded |" in text
    (tmp_path / "bench.json").write_text(
        json.dumps({name: value for name, value in found.items() if name not in ("peak", "ratios")})
    )
    with pytest.raises(ConfigError, match="is of `labeldistill bench`"):
        bench_page(page, (tmp_path / "bench.json",))
    bench_compare(file, file)
    assert "1.00" in capsys.readouterr().out
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match="has no 'presets'"):
        bench_compare(file, tmp_path / "other.json")
    (tmp_path / "plain.md").write_text("no place")
    with pytest.raises(ConfigError, match="has no lines"):
        bench_page(tmp_path / "plain.md", (file,))


def test_what_a_gpu_is_measured_in() -> None:
    ways = ways_on(torch.device("cuda"), ("float32", "float16"), compile=True)
    gpu = torch.device("cuda")

    def loaded(precision: str) -> Any:
        return SimpleNamespace(precision=precision, device=gpu)

    names = [way.name(loaded(way.precision)) for way in ways]
    assert names == [
        "float32, resized there",
        "float16, resized there",
        "float16, graph",
        "float16, graph, resized there",
        "float16, graph, decoded there",
        "float16, graph, compiled, decoded there",
    ]
    on_cpu = ways_on(torch.device("cpu"), ("float32", "bfloat16"), compile=True)
    assert [way.compile for way in on_cpu] == [False, False, True]
    assert not any(way.device_resize or way.fixed_shapes for way in on_cpu)


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
def test_a_step_in_one_piece_with_images_on_its_device(student: Student) -> None:
    way = Way("float32", fixed_shapes=True, device_resize=True, device_decode=True)
    times = measure_steps(way.detector(student, "cpu"), 2, device_decode=True)
    assert {"decode JPEG", "resize", "image network", "step", "end to end"} <= set(times)
    assert all(len(values) == 2 for values in times.values())


def test_the_history_of_a_step_in_one_piece(student: Student) -> None:
    way = Way("float32", fixed_shapes=True)
    rows = measure_history(way.detector(student, "cpu"), 1)
    assert len(rows) == student.config.frames
    assert all(row["step"] > row["image_network"] > 0 for row in rows)


def test_work_is_what_layers_compute_and_move() -> None:
    conv = torch.nn.Conv2d(3, 8, 3, padding=1)
    x = torch.zeros(1, 3, 16, 16)
    with torch.inference_mode(), Work() as work:
        y = conv(x)
        work.start("relu")
        y.relu_()
        y.view(-1)
        work.stop("relu")
    weights = 4 * (3 * 8 * 9 + 8)
    assert work.stages["other"]["gflop"] == pytest.approx(2 * 8 * 256 * 27 / 1e9)
    assert work.stages["other"]["gigabytes"] == pytest.approx((x.nbytes + weights + y.nbytes) / 1e9)
    assert work.stages["relu"] == {"gflop": 0.0, "gigabytes": pytest.approx(2 * y.nbytes / 1e9)}


def test_the_longest_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        SimpleNamespace(key=f"k{us}", self_device_time_total=us) for us in (500, 3000, 1500, 1500)
    ]
    profile = MagicMock()
    profile.__enter__.return_value.key_averages.return_value = events
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: profile)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    step = MagicMock()
    found = gpu_time(step, repeats=5, longest=2)
    assert step.call_count == 5
    assert found.busy_ms == pytest.approx(1.3)
    assert found.kernels_ms == pytest.approx({"k3000": 0.6, "k1500": 0.6})
