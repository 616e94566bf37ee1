# SPDX-License-Identifier: Apache-2.0
"""The training benchmark measures what it says: shares add up, sparse equals dense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.detector.page import BEGIN, END, bench_page
from benchmarks.training.__main__ import main


def test_every_stage_is_measured(
    synthetic_dataroot: Path,
    tmp_path: Path,
    small_in_presets: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "bench" / "training.json"
    assert main(
        [str(synthetic_dataroot), "--version", "v1.0-mini", "--preset", "small",
         "--batch-size", "2", "--repeats", "1", "--json", str(file)]
    ) == 0  # fmt: skip
    figures = json.loads(file.read_text())
    assert len(figures["stages"]) == 6
    for row in figures["stages"].values():
        assert sum(row["share"].values()) == pytest.approx(1.0)
        assert row["samples_s"] == pytest.approx(2000 / row["step_ms"])
        assert row["peak_mib"] > 0
        assert sum(row["forward_share"].values()) == pytest.approx(1.0)
    distilled = figures["stages"]["student, distilled"]["forward_share"]
    assert {"image_encoder", "depth_net", "bev_encoder", "head", "teacher", "label encoder"} < set(
        distilled
    )
    lifts = [figures["stages"][f"student, {n}"] for n in ("no teachers", "materialized lift")]
    assert lifts[1]["peak_mib"] > lifts[0]["peak_mib"]
    sparse = figures["sparse"]["torch"]
    assert sparse["largest_difference"] < 1e-4
    assert 0 < sparse["active_share"] < 0.5
    assert "materialized lift over fused pooling" in capsys.readouterr().out
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    bench_page(page, (file,))
    assert page.read_text().count("| student, ") == 4
    assert "image encoder" in page.read_text()
    # a file of before the shares within a forward
    for row in figures["stages"].values():
        del row["forward_share"]
    file.write_text(json.dumps(figures))
    bench_page(page, (file,))
    assert page.read_text().count("| student, ") == 4
