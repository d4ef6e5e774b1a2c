"""Compiled loops are found on disk by the next process."""

import os
import subprocess
import sys

ONE_STEP = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from torch import nn
from beside import depthwise, gate, pictures, product, quick, used
torch.set_num_threads(1)
chain = nn.Sequential(*product(8, 8), *depthwise(8), gate(8), *product(8, 8))
images = pictures(2, 8, 9, 9).requires_grad_()
output = quick(nn.Sequential(nn.BatchNorm2d(8), chain))(images)
assert used(output)
output.sum().backward()
"""


def test_the_second_process_compiles_nothing(tmp_path):
    def files_after_a_step():
        command = [sys.executable, "-c", ONE_STEP, os.path.dirname(__file__)]  # noqa: PTH120
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        subprocess.run(command, check=True, env=environment)
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}

    first = files_after_a_step()
    assert len(first) > 10
    assert files_after_a_step() == first
