"""Loops that one process compiled are found on disk by the next."""

import os
import subprocess
import sys

ONE_STEP = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from torch import nn
from ssd_dist.config import ModelConfig
from ssd_dist.model.ssd import build_model
from beside import depthwise, gate, pictures, product, quick, used
torch.set_num_threads(1)
chain = nn.Sequential(*product(8, 8), *depthwise(8), gate(8), *product(8, 8))
images = pictures(2, 8, 9, 9).requires_grad_()
output = quick(nn.Sequential(nn.BatchNorm2d(8), chain))(images)
assert used(output)
output.sum().backward()

images = torch.zeros(2, 3, 320, 320).contiguous(memory_format=torch.channels_last)
for norm in ("batch", "none"):
    config = ModelConfig(architecture="ssdlite320_mobilenet_v3_large", weights="none", norm=norm)
    model = quick(build_model(config, num_classes=3).train())
    sum(each.sum() for each in model(images)).backward()
"""


def test_what_was_compiled_ahead_is_found_in_training(tmp_path):
    def files_after(*arguments):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        subprocess.run([sys.executable, *arguments], check=True, env=environment)
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}

    ahead = files_after("-m", "ssd_dist.model.cpu")
    assert len(ahead) > 10
    assert files_after("-c", ONE_STEP, os.path.dirname(__file__)) == ahead  # noqa: PTH120
