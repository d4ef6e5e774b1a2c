"""The detector as an ONNX file, and that file run by onnxruntime."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ssd_dist.export.graph import OUTPUTS, ExportedDetector
from ssd_dist.export.suppression import onnx_translations, survivors_op

Run: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, ...]]
"""An exported detector: (B, 3, H, W) uint8 → what `graph.PaddedDetections` describes, as arrays."""

INPUT = "pictures"
OPSET = 18
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def check_onnx_installed() -> None:
    """Raises ValueError, in one sentence, if what writes and runs ONNX is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"ONNX needs {', '.join(missing)}: `pip install 'ssd-dist[export]'` has what is missing"
        )


def write_onnx(
    detector: ExportedDetector, example: Tensor, path: Path, metadata: Mapping[str, Any]
) -> None:
    """Writes the detector as one ONNX file.

    Args:
        detector: of fixed or dynamic size; its suppression becomes ONNX's own.
        example: (B, 3, H, W) uint8 with B > 1.
        path: the file.
        metadata: names and values, which the file holds as JSON.

    Raises ValueError, in one sentence, for an operator that ONNX lacks, or for a network that can't
    be followed.
    """
    check_onnx_installed()
    detector.suppress = survivors_op
    try:
        with quiet():
            program = torch.onnx.export(
                detector,
                (example,),
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                dynamic_shapes={INPUT: dynamic_sizes(detector)},
                custom_translation_table=onnx_translations(),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(_reason(error)) from error
    assert program is not None
    model = program.model_proto
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=json.dumps(value, ensure_ascii=False))
    path.write_bytes(model.SerializeToString())


def load_onnx(path: Path, num_threads: int | None = None) -> Run:
    """The file, run by onnxruntime on the CPU; `num_threads` None: one a core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pictures: tuple(session.run(None, {INPUT: pictures}))


def dynamic_sizes(detector: ExportedDetector) -> dict[int, Any]:
    """Which axes of the pictures may be of any length, by their names."""
    names = {0: "batch"} if detector.size is not None else {0: "batch", 2: "height", 3: "width"}
    return {axis: torch.export.Dim(name) for axis, name in names.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporters' remarks, which are no use to whoever exports, from the terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _reason(error: BaseException) -> str:
    """One sentence from the chain of the exporter's errors."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for one in chain:
        lacking = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(one))
        if lacking:
            return (
                f"ONNX has no operator for {lacking[1]}, which the network uses: export it with "
                "--to torch-export, or train it with another backbone"
            )
    return (
        f"the network can't be written as ONNX ({first_line(chain[-1])}): export it with "
        "--to torchscript, or train it with another backbone"
    )


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
