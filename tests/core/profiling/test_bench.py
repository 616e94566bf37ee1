# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from labeldistill_core.checkpoints import save_student
from labeldistill_core.errors import ConfigError
from labeldistill_core.network.student import Student
from labeldistill_core.profiling import bench as bench_module
from labeldistill_core.profiling.bench import BenchOptions, bench
from labeldistill_core.profiling.latency import replaced
from labeldistill_ros.cli import main
from tests.support.small_networks import small


def test_a_checkpoint_is_measured_by_stage(
    new_student: Callable[..., Student], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, file = tmp_path / "mine.safetensors", tmp_path / "out" / "bench.json"
    save_student(model, new_student(small()), note="random")
    command = ["bench", "--model", str(model), "--precisions", "float32", "--repeats", "2"]
    assert main([*command, "--json", str(file)]) == 0
    assert "| image encoder |" in capsys.readouterr().out
    run = json.loads(file.read_text())["presets"]["mine"]["runs"]["float32"]
    assert run["stages"]["end to end"]["p50"] > run["stages"]["step"]["p50"] > 0
    assert run["stages"]["step beside a busy process"]["p50"] > 0
    assert run["peak_mib"] > 50
    assert run["first_step_ms"] > 0


def test_repeats_and_threads_are_positive() -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        BenchOptions(repeats=0)
    with pytest.raises(ConfigError, match="1 or more"):
        BenchOptions(threads=0)


def test_single_fields_are_options_of_each_preset() -> None:
    args = ["--presets", "demo", "ablation", "--student.image.height", "96"]
    options, rest = BenchOptions.prepared(args)
    assert rest == args[:3]
    networks = replace(options, presets=("demo", "r50_256x704_2key")).networks()
    assert {network.config.image.height for network in networks.values()} == {96}
    assert [network.config.history_s for network in networks.values()] == [(1.0,), (1.0, 2.0)]
    with pytest.raises(ConfigError, match="network is as it was trained"):
        replace(options, model=Path("mine.safetensors"))


def test_a_model_has_its_own_configuration() -> None:
    with pytest.raises(ConfigError, match="--model has its own configuration"):
        BenchOptions(model=Path("mine.safetensors"), config=Path("own.yaml"))


def test_want_of_a_compiler_is_told_before(
    new_student: Callable[..., Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "mine.safetensors"
    save_student(model, new_student(small()))
    monkeypatch.setattr(bench_module, "measure_ways", None)  # so that nothing is measured
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="compile needs a C\\+\\+ compiler"):
        next(bench(BenchOptions(model=model, compile=True)))


def test_what_is_replaced_comes_back() -> None:
    class Owner:
        def method(self) -> str:
            return "own"

    owner = Owner()
    with replaced(owner, "method", lambda: "other"):
        assert owner.method() == "other"
    assert owner.method() == "own"
    assert "method" not in vars(owner)
