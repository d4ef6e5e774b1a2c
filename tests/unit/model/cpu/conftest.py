"""Shared by the tests of layers that are computed in ways of ours."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Torch with as many threads as a worker has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
