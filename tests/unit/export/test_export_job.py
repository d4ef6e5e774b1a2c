"""`jobs/export.py` as it is called."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ssd_dist.checkpoint import load_checkpoint, save_checkpoint

JOB = Path(__file__).parents[3] / "jobs" / "export.py"


@pytest.fixture
def trained_on_voc(tiny_checkpoint, tmp_path):
    """Folder of a checkpoint whose configuration says that its own data are VOC's."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    data = replace(checkpoint.config.data, format="voc")
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, replace(checkpoint, config=replace(checkpoint.config, data=data)))
    return folder


def test_other_data_may_have_another_format(trained_on_voc, tmp_path):
    coco = tmp_path / "coco"
    convert = ["-m", "ssd_dist.data", "convert", "synthetic", coco, "--to", "coco"]
    subprocess.run([sys.executable, *convert, "--split", "val"], check=True)
    job = [sys.executable, JOB, "--checkpoint", trained_on_voc, "--to", "torchscript"]
    job += ["--data", coco, "--check-pictures", "2", "--out", tmp_path / "out"]
    done = subprocess.run(job, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"labels.txt", "MODEL_CARD.md"}
