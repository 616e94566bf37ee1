# SPDX-License-Identifier: Apache-2.0
"""`labeldistill export`, `export-onnx` and `convert-checkpoint`: files of networks."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.published import convert as published
from labeldistill_core.runtime import onnx_export
from labeldistill_core.training import export as exporting
from labeldistill_core.yaml_text import quoted


def export(
    run: Positional[Path], out: Positional[Path], options: Flat[exporting.ExportOptions]
) -> None:
    """Write the network of a run, without optimizer, as the node and the next stage load it.

    The file holds averaged weights and their hash, the configuration with the class names, and the
    record of the training. A run that is still going on can be exported, too.

    Args:
        run: folder of `labeldistill train`, or one of its checkpoints.
        out: file to write, `*.safetensors`.
        options: which of its networks, and how.
    """
    written = exporting.export(run, out, options)
    print(written)
    # Only a student runs by itself.
    tell_written(
        out, then=("labeldistill", "bench", "--model", out) if written.kind == "student" else ()
    )


def export_onnx(checkpoint: Positional[Path], out: Positional[Path]) -> None:
    """Write a student as an ONNX graph that the node loads, float32.

    The graph is one streaming step with standard operators; the node computes the tables that it
    takes. Weights of 2 GB and more go to a file beside it.

    Args:
        checkpoint: student, `*.safetensors`.
        out: file to write, `*.onnx`.
    """
    onnx_export.export_onnx(checkpoint, out)
    tell_written(
        out, then=("detector_node", "--ros-args", "-p", f"model:={quoted(str(out.resolve()))}")
    )


def convert_checkpoint(
    source: Positional[Path],
    target: Positional[Path],
    options: Flat[published.CheckpointOptions],
) -> None:
    """Read a network of the published code and write it as a safetensors checkpoint.

    Args:
        source: `.pth`, `.ckpt` or `.safetensors` file with the published parameter names; for the
            teacher also a CenterPoint of mmdetection3d.
        target: `.safetensors` file to write.
        options: which of the networks in the file.
    """
    # Its line begins with the file that it wrote.
    print(published.convert_checkpoint(source, target, options))
