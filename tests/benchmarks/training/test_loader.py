# SPDX-License-Identifier: Apache-2.0
"""What loading processes feed to the GPUs of a machine."""

import json
from pathlib import Path

import pytest

from benchmarks.training.loader import LoaderOptions, compute, main
from tests.support.small_networks import small_preset


def test_a_machine_is_computed_from_one_core() -> None:
    one = {"cpu_s_a_sample": 0.25, "sample_mib": 16.0, "own_mib": 256.0, "file_mb": 5.0}
    found = compute(one, LoaderOptions(cores=64, gpus=8, batch_size=8))
    assert found["workers_a_gpu"] == 7
    assert found["samples_s"] == pytest.approx(56 * 4)
    assert found["disk_gb_s"] == pytest.approx(56 * 4 * 5e-3)
    assert found["shared_memory_gib"] == pytest.approx(8 * 15 * 8 * 16 / 1024)
    assert found["memory_of_loaders_gib"] == pytest.approx(56 / 4)


def test_samples_are_loaded_and_counted(
    synthetic_dataroot: Path,
    tmp_path: Path,
    small_in_presets: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "loader.json"
    command = [str(synthetic_dataroot), "--version", "v1.0-mini", "--preset", "small"]
    assert main([*command, "--samples", "2", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    image = small_preset().student.image
    images = small_preset().student.frames * 6 * 3 * image.height * image.width
    assert found["measured"]["sample_mib"] > images / 2**20
    assert found["measured"]["cpu_s_a_sample"] > 0
    assert found["measured"]["file_mb"] > 0
    assert "samples_s_a_gpu" in capsys.readouterr().out
    assert main([*command, "--cores", "8"]) == 2
    assert "--cores must be more than --gpus" in capsys.readouterr().err
