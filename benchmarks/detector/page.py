# SPDX-License-Identifier: Apache-2.0
"""The page of figures, written from the files that the benchmarks leave, and their comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks.detector.accuracy import accuracy_table
from labeldistill_core.errors import ConfigError
from labeldistill_core.profiling.bench import table

BEGIN = "<!-- figures: written by python -m benchmarks.detector page -->"
END = "<!-- end of figures -->"


def bench_page(
    page: tyro.conf.Positional[Path], files: tyro.conf.Positional[tuple[Path, ...]]
) -> None:
    """Write the figures of benchmarks into a page.

    Args:
        page: Markdown page with the two lines between which the figures stand.
        files: what `benchmarks.detector stages` and `accuracy` and `benchmarks.training` wrote.

    Raises:
        ConfigError: the page has no such lines, or a file is not a benchmark's.
    """
    text = page.read_text() if page.exists() else ""
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{page} has no lines {BEGIN!r} and {END!r}")
    sections = [section for file in files for section in _sections(file)]
    head, rest = text.split(BEGIN, 1)
    page.write_text("\n\n".join([head + BEGIN, *sections, END + rest.split(END, 1)[1]]))


def bench_compare(before: tyro.conf.Positional[Path], after: tyro.conf.Positional[Path]) -> None:
    """Compare two files that `benchmarks.detector stages` or `labeldistill bench` wrote.

    Figures of two runs compare only when both ran on one machine without other load.

    Args:
        before: file to compare with.
        after: file to compare.

    Raises:
        ConfigError: a file is not a benchmark's, or they have no network and precision in common.
    """
    one, two = (read_figures(file, "presets")["presets"] for file in (before, after))
    found = False
    for preset in (preset for preset in one if preset in two):
        runs = one[preset]["runs"], two[preset]["runs"]
        for way in (way for way in runs[0] if way in runs[1]):
            found = True
            print(f"{preset}, {way}: p50 before, after, before / after")
            stages = [run[way]["stages"] for run in runs]
            for stage in (stage for stage in stages[0] if stage in stages[1]):
                a, b = (values[stage]["p50"] for values in stages)
                print(f"  {stage:<16}{a:>10.1f} ms{b:>10.1f} ms{a / b:>8.2f}")
    if not found:
        raise ConfigError(f"{before} and {after} have no network and precision in common")


def read_figures(file: Path, key: str) -> dict[str, Any]:
    """A file of figures.

    Args:
        file: what a benchmark wrote.
        key: that such a file has.

    Raises:
        ConfigError: the file cannot be read or is not a benchmark's.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict) or key not in content:
        raise ConfigError(f"{file} is not what the benchmark writes: it has no {key!r}")
    return content


def _sections(file: Path) -> Iterator[str]:
    content = read_figures(file, "machine")
    if "presets" in content:
        if "peak" not in content:
            raise ConfigError(
                f"{file} is of `labeldistill bench`: a page is made of what "
                "`python -m benchmarks.detector stages` writes"
            )
        yield from _inference(content)
    elif "ways" in content:
        yield from _accuracy(content)
    else:
        yield from _training(content)


def _inference(content: Mapping[str, Any]) -> Iterator[str]:
    peak = content["peak"]
    multiplied = ", ".join(
        f"{value:.0f} in {name.removesuffix('_gflops')}"
        for name, value in peak.items()
        if name.endswith("_gflops")
    )
    yield (
        f"### On {content['device']}\n\n{content['machine']}; `{content['command']}`, commit "
        f"{content['commit']}. At most the machine multiplies {multiplied} GFLOP/s and copies "
        f"{peak['copy_gb_s']:.0f} GB/s."
    )
    for preset, found in content["presets"].items():
        yield f"#### {preset}\n\n{table(found)}"
        yield from _fastest(found, content["ratios"][preset], peak)
        for name, unit in (("cameras", "cameras"), ("pixels", "image")):
            values = found.get("scaling", {}).get(name, {})
            cells = [(key, f"{value:.1f}") for key, value in values.items()]
            if cells:
                yield _rows((unit, "image network, ms"), cells)


def _fastest(
    found: Mapping[str, Any], ratios: Mapping[str, float], peak: Mapping[str, float]
) -> Iterator[str]:
    """What the fastest way reaches, by stage and by history, and what pooling does."""
    name, copied = found["fastest"], peak["copy_gb_s"]
    run = found["runs"][name]
    yield (
        f"The step in {name} is **{ratios['speedup']:.1f} times** as fast as the published way, at "
        f"{ratios['memory_share']:.0%} of its memory ({run['peak_mib']:.0f} MiB)."
        + (f" At 12 Hz it keeps the GPU busy for {run['busy_ms'] * 0.012:.0%} of the time." if
           "busy_ms" in run else "")
    )  # fmt: skip
    precision = name.split(",")[0]
    rows = []
    # where it runs in one piece, the same precision stage by stage tells
    by_stage = (
        other["stages"]
        for way, other in found["runs"].items()
        if way.split(",")[0] == precision and "image encoder" in other["stages"]
    )
    stages = next(by_stage, run["stages"])
    parts = run["work"].values()
    whole = {key: sum(work[key] for work in parts) for key in ("gflop", "gigabytes")}
    for stage, work in {**run["work"], "step": whole}.items():
        ms = stages.get(stage, {}).get("p50")
        if not ms:
            continue
        gflops, gb_s = work["gflop"] / ms * 1e3, work["gigabytes"] / ms * 1e3
        share = gflops / peak[f"{precision}_gflops"]
        rows.append(
            (stage, f"{work['gflop']:.1f}", f"{share:.0%}", f"{work['gigabytes']:.2f}",
             f"{gb_s / copied:.0%}")
        )  # fmt: skip
    yield _rows(("stage", "GFLOP", "of the peak", "GB", "of copying"), rows)
    pooling = found["pooling"]
    least, gathered = (
        pooling[key] / pooling["ms"] * 1e3 / copied for key in ("least_gb", "gathered_gb")
    )
    yield (
        f"Pooling all frames takes {pooling['ms']:.2f} ms in a row of ten. That is {gathered:.0%} "
        f"of the speed of copying when each row that a cell sums counts as read from memory, and "
        f"{least:.0%} when each row counts once."
    )
    if "history" in run:
        yield _rows(
            ("past frames", "image network, ms", "lift, ms", "step, ms"),
            [
                (str(past), *(f"{row[key]:.1f}" for key in ("image_network", "lift", "step")))
                for past, row in enumerate(run["history"])
            ],
        )


def _accuracy(content: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"### Accuracy on {content['device']}\n\n{content['samples']} key frames of "
        f"{content['scenes']} scenes; `{content['command']}`, commit {content['commit']}; "
        f"{content['machine']}. A box is the same when one of its class lies within 0.1 m of it "
        "and has its score within 0.01."
    )
    yield accuracy_table(content)


def _training(content: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"### Training, {content['preset']}\n\n{content['machine']}, commit {content['commit']}; "
        f"batch {content['batch_size']}. The student's step takes "
        f"{content['materialized_over_fused']:.2f} times as long with the materialized lift."
    )
    yield _rows(
        (
            "stage",
            "samples/s",
            "forward, backward, optimizer",
            "of the forward",
            "loading processes needed",
            "peak MiB",
        ),
        [
            (
                name,
                f"{row['samples_s']:.2f}",
                ", ".join(f"{share:.0%}" for share in row["share"].values()),
                ", ".join(
                    f"{part.replace('_', ' ')} {share:.0%}"
                    for part, share in row.get("forward_share", {}).items()  # older files: none
                ),
                f"{row['loading_processes_needed']:.2f}",
                f"{row['peak_mib']:.0f}",
            )
            for name, row in content["stages"].items()
        ],
    )
    for backend, row in content["sparse"].items():
        yield (
            f"LiDAR, {backend} backend, {row['samples']} samples: voxels {row['voxelize_ms']:.0f} "
            f"ms, sparse encoder {row['sparse_ms']:.0f} ms, the same layers dense "
            f"{row['dense_ms']:.0f} ms."
        )


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
