# SPDX-License-Identifier: Apache-2.0
"""The HTML report. No DDS in here."""

import re
from pathlib import Path

import pytest

from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.result_boxes import result_boxes
from labeldistill_core.evaluation.result_file import read_results, write_results
from labeldistill_ros.bags import score
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.truth import SAMPLE_TOPIC, TRUTH_TOPIC
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from tests.support.bag_rig import truths_of, write_detections
from tests.support.nuscenes_fixture import SCENES, VERSION


@pytest.fixture
def two_runs(bag: Path, shared_dataroot: Path, tmp_path: Path) -> list[str]:
    """The command that scores a run which found everything, and one which found a third."""
    truths = truths_of(shared_dataroot)
    good = write_detections(tmp_path / "good <run>", truths)
    poor = write_detections(tmp_path / "poor", truths[:1])
    return ["bag", "score", str(bag), str(good), str(poor)]


def test_a_report_is_one_file_about_all_runs(two_runs: list[str], tmp_path: Path) -> None:
    report = tmp_path / "new" / "report.html"
    assert main([*two_runs, "--report", str(report)]) == 0
    text = report.read_text()
    assert "good &lt;run&gt;" in text
    assert "<run>" not in text
    # nothing is loaded from elsewhere
    sources = re.findall(r'(?:src|href)="([^"#][^"]*)"', text)
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not re.search(r"url\((?!#)|@import|<link", text)
    for title in (
        "Runs",
        "Precision over recall within 2 m",
        "Recall by distance",
        "By visibility",
    ):
        assert f"<h2>{title}</h2>" in text
    assert text.count("<svg") >= 3
    # three key frames, the best and the worst of them once more
    assert len(re.findall("<figcaption>", text)) == 5
    assert len(re.findall("<figcaption>Worst: ", text)) == 1


def test_what_is_compared_stands_first_and_pictures_last(
    two_runs: list[str], tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    assert main([*two_runs, "--report", str(report), "--min-coverage", "0.9"]) == 1
    text = report.read_text()
    order = [
        "<h2>Runs</h2><table",
        "<h2>Thresholds</h2><table",
        "<h2>good &lt;run&gt;</h2>",
        "<h2>poor</h2>",
        "<h2>Runs</h2><svg",
        "<h2>Average precision</h2>",
        "<figcaption>Worst: ",
        'id="slider"',
    ]
    at = [text.index(part) for part in order]
    assert at == sorted(at)
    rows = re.findall(r'<tr class="(\w+)">(.*?)</tr>', text)
    verdicts = [(kind, re.sub(r"<[^>]*>", "|", row)) for kind, row in rows]
    assert [kind for kind, _ in verdicts] == ["passed", "failed"]
    assert verdicts[0][1] == "|good &lt;run&gt;||coverage||1.000||at least 0.9||passed|"
    # each camera by itself, so that a narrow screen shows them one below the other
    assert text.count("<img") == 7 * text.count("<figcaption>")


def test_a_bag_without_images_is_reported_without_pictures(
    bag: Path,
    shared_dataroot: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a recording of the topics that scoring needs is."""
    run = tmp_path / "run"
    topics = {SAMPLE_TOPIC, TRUTH_TOPIC, "/tf", "/tf_static"}
    boxes = write_detections(tmp_path / "boxes", truths_of(shared_dataroot))
    with BagReader(bag) as first, BagReader(boxes) as second, BagWriter(run) as out:
        kept = [r for r in first.raw() if r.topic in topics]
        for r in sorted([*kept, *second.raw()], key=lambda r: r.stamp_ns):
            out.write(r.topic, r.msgtype, r.data, r.stamp_ns)
    report, verdict = tmp_path / "report.html", tmp_path / "junit.xml"
    command = ["bag", "score", str(run), "--report", str(report), "--junit", str(verdict)]
    assert main([*command, "--min-nds", "0.1"]) == 0
    assert "NDS" in capsys.readouterr().out
    assert verdict.stat().st_size
    assert "<h2>Recall by distance</h2>" in report.read_text()
    assert "the report has no pictures, or not all" in caplog.text


def test_results_are_there_when_scoring_fails(
    bag: Path, shared_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DataError("cannot be scored")

    monkeypatch.setattr(score, "evaluate_boxes", fail)
    run = write_detections(tmp_path / "run", truths_of(shared_dataroot))
    out = tmp_path / "results.json"
    assert main(["bag", "score", str(bag), str(run), "--out", str(out)]) == 2
    assert len(read_results(out)) == 3


def test_a_report_about_result_files_takes_pictures_of_the_data_root(
    shared_dataroot: Path, tmp_path: Path
) -> None:
    truths = truths_of(shared_dataroot)
    file, report = tmp_path / "results.json", tmp_path / "report.html"
    results = {t.sample_token: result_boxes(t.sample_token, t.boxes) for t in truths}
    write_results(file, results)
    command = [
        "bag", "score", str(file), "--dataroot", str(shared_dataroot), "--version", VERSION,
        "--scenes", SCENES[0], "--report", str(report), "--report-frames", "2",
    ]  # fmt: skip
    assert main(command) == 0
    text = report.read_text()
    # no latency is known
    assert "<h2>Latency" not in text
    assert len(re.findall(r"<figcaption>(?!Best|Worst)", text)) >= 2
