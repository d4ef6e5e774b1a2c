import pytest
import torch

from ssd_dist.ops.top import top


@pytest.mark.parametrize(("length", "count"), [(1, 1), (40, 40), (1000, 10), (1000, 100)])
@pytest.mark.parametrize("num_values", [1, 5, 10**6])
def test_highest_first_and_of_equal_ones_the_first(length, count, num_values):
    generator = torch.Generator().manual_seed(0)
    score = torch.randint(num_values, (2, 3, length), generator=generator) / num_values
    found, place = top(score, count)
    order = score.argsort(dim=-1, descending=True, stable=True)[..., :count]
    assert torch.equal(place, order)
    assert torch.equal(found, score.gather(-1, order))
