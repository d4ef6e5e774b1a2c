"""From `jobs/train.py` typed to the first training step, beside a plain torch script.

python benchmarks/start.py --data VOC

The plain script imports torch and this project's model, reads the XML files, decodes one batch and
takes one step. `jobs/train.py` (one worker; decoded pictures in the cache, as on every start but
the first) is clocked until its first epoch is reported, which here is one step, the validation of
one picture, and the first word of the terminal about it: more than is asked for. Ends with status 1
if it takes over 12 seconds more.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
import yaml
from job_runs import ROOT, copy_part
from rich.console import Console

NEEDED_S = 12.0
BATCH = 8
PLAIN = """
import sys
from pathlib import Path
from xml.etree import ElementTree
import numpy as np
import torch
from PIL import Image
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
root = Path(sys.argv[1])
ids = (root / "ImageSets" / "Main" / "train.txt").read_text().split()
trees = [ElementTree.parse(root / "Annotations" / f"{i}.xml") for i in ids]
images, targets = [], []
for image_id, tree in zip(ids, trees):
    picture = Image.open(next((root / "JPEGImages").glob(f"{image_id}.*"))).convert("RGB")
    images.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255)
    boxes = [
        [float(o.findtext(f"bndbox/{c}")) for c in ("xmin", "ymin", "xmax", "ymax")]
        for o in tree.iterfind("object")
    ]
    boxes = torch.tensor([b for b in boxes if b[2] > b[0] and b[3] > b[1]])
    targets.append({"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)})
model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4).train()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
sum(model(images, targets).values()).backward()
optimizer.step()
print("stepped", flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Clock the start of a training."""

    data: Path
    """VOC folder with splits `train` and `val`."""
    turns: int = 3
    """Starts of each."""


def seconds_until(word: str, command: list[str]) -> float:
    """From the start of a command to the first line of its output that holds a word."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if word in line:
                taken = time.perf_counter() - started
                process.stdout.read()
                return taken
    sys.exit(f"no line with {word!r} in what {command} said:\n{''.join(seen)}")


def main(arguments: Arguments) -> None:
    """Clocks both by turns, and prints what the job takes more."""
    with tempfile.TemporaryDirectory() as scratch:
        storage = Path(scratch)
        data = copy_part(arguments.data, storage / "data", BATCH)
        config = {
            "epochs": 1,
            "global_batch_size": BATCH,
            "model": {"architecture": "ssdlite320_mobilenet_v3_large", "weights": "none"},
        }
        (storage / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

        def job(name: str) -> float:
            command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--workers", "1"]
            command += ["--config", str(storage / "config.yaml"), "--data", str(data)]
            return seconds_until("mAP", [*command, "--storage", scratch, "--name", name])

        job("warm-up")
        rows = [
            (seconds_until("stepped", [sys.executable, "-c", PLAIN, str(data)]), job(f"job-{turn}"))
            for turn in range(arguments.turns)
        ]
    plain, ours = (statistics.median(column) for column in zip(*rows, strict=True))
    more = statistics.median(ours - plain for plain, ours in rows)
    Console(width=110).print(
        f"a plain script {plain:.1f} s, jobs/train.py {ours:.1f} s until its first epoch of one "
        f"step is reported: {more:.1f} s more, at most {NEEDED_S:.0f} allowed"
    )
    sys.exit(more > NEEDED_S)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
