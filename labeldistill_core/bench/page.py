# SPDX-License-Identifier: Apache-2.0
"""The page of figures, written from the files that the benchmarks leave, and their comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from labeldistill_core.bench.inference import table
from labeldistill_core.errors import ConfigError

BEGIN = "<!-- figures: written by labeldistill bench-page -->"
END = "<!-- end of figures -->"


def bench_page(
    page: tyro.conf.Positional[Path], files: tyro.conf.Positional[tuple[Path, ...]]
) -> None:
    """Write the figures of benchmarks into a page.

    Args:
        page: Markdown page with the two lines between which the figures stand.
        files: what `bench` and `bench-training` wrote.

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
    """Compare two files that `bench` wrote, stage by stage.

    Figures of two runs compare only when both ran on one machine without other load.

    Args:
        before: file to compare with.
        after: file to compare.

    Raises:
        ConfigError: a file is not a benchmark's, or they have no network and precision in common.
    """
    one, two = _read(before, "presets")["presets"], _read(after, "presets")["presets"]
    found = False
    for preset in one.keys() & two.keys():
        runs = one[preset]["runs"], two[preset]["runs"]
        for way in runs[0].keys() & runs[1].keys():
            found = True
            print(f"{preset}, {way}: p50 before, after, before / after")
            stages = [run[way]["stages"] for run in runs]
            for stage in stages[0].keys() & stages[1].keys():
                a, b = (values[stage]["p50"] for values in stages)
                print(f"  {stage:<16}{a:>10.1f} ms{b:>10.1f} ms{a / b:>8.2f}")
    if not found:
        raise ConfigError(f"{before} and {after} have no network and precision in common")


def _read(file: Path, key: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict) or key not in content:
        raise ConfigError(f"{file} is not what the benchmark writes: it has no {key!r}")
    return content


def _sections(file: Path) -> Iterator[str]:
    content = _read(file, "machine")
    if "presets" in content:
        yield from _inference(content)
    else:
        yield from _training(content)


def _inference(content: Mapping[str, Any]) -> Iterator[str]:
    peak = content["peak"]
    yield (
        f"### On {content['device']}\n\n{content['machine']}; `{content['command']}`, commit "
        f"{content['commit']}. At most the machine multiplies "
        f"{peak['float32_gflops']:.0f} GFLOP/s in float32 and {peak['bfloat16_gflops']:.0f} in "
        f"bfloat16 and copies {peak['copy_gb_s']:.0f} GB/s."
    )
    for preset, found in content["presets"].items():
        ratios = content["ratios"][preset]
        last, run = list(found["runs"].items())[-1]
        step_s = run["stages"]["step"]["p50"] / 1e3
        gflops = run["gflop"] / step_s
        kind = "float32" if last.startswith("float32") else "bfloat16"
        yield f"#### {preset}\n\n{table(found)}"
        yield (
            f"The step in {last} is **{ratios['speedup']:.1f} times** as fast as the published "
            f"way, at {ratios['memory_share']:.0%} of its memory "
            f"({run['peak_mib']:.0f} MiB with the libraries). It computes {run['gflop']:.0f} GFLOP,"
            f" {gflops:.0f} a second: {gflops / peak[f'{kind}_gflops']:.0%} of the machine's peak; "
            f"layers read and write {run['gigabytes']:.1f} GB."
        )
        yield _rows(
            ("past frames", "image network, ms", "lift, ms"),
            [
                (str(past), f"{row['image_network']:.1f}", f"{row['lift']:.1f}")
                for past, row in enumerate(run["history"])
            ],
        )
        for name, unit in (("cameras", "cameras"), ("pixels", "image")):
            values = found["scaling"][name]
            cells = [(key, f"{value:.1f}") for key, value in values.items()]
            yield _rows((unit, "image network, ms"), cells)


def _training(content: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"### Training, {content['preset']}\n\n{content['machine']}; batch {content['batch_size']}."
        f" The student's step takes {content['materialized_over_fused']:.2f} times as long with "
        "the materialized lift."
    )
    yield _rows(
        ("stage", "samples/s", "forward, backward, optimizer", "peak MiB"),
        [
            (
                name,
                f"{row['samples_s']:.2f}",
                ", ".join(f"{share:.0%}" for share in row["share"].values()),
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
