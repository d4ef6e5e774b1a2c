import pytest
import torch
from searching import Driver, make_config

from ssd_dist.config import Config, ModelConfig
from ssd_dist.distributed.memory import memory_error, ran_out_of_memory
from ssd_dist.distributed.study import close_finished, trial_records
from ssd_dist.engine import Worker


def test_torchs_own_error_is_known_and_told_in_one_sentence():
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**14)  # 400 TB
    assert ran_out_of_memory(error.value)
    config = Config(global_batch_size=12, model=ModelConfig(image_size=96))
    sentence = str(memory_error(error.value, config, Worker(torch.device("cpu"), 0, 3)))
    assert sentence.startswith(
        "out of memory with 12 pictures of 96 pixels a step over 3 worker(s)"
    )
    assert sentence.endswith(
        "raise accumulation, lower global_batch_size or model.image_size, or take more workers"
    )
    assert "\n" not in sentence


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_the_others_too(error):
    assert ran_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shape '[2]' is invalid"), ValueError("memory")])
def test_and_nothing_else(error):
    assert not ran_out_of_memory(error)


def test_its_trial_fails_at_once_and_the_search_goes_on(place, tmp_path):
    driver = Driver(make_config(), place)
    driver.start("a")
    assert driver.epoch("a", 1, 0.5, tmp_path / "a") is False
    assert driver.searcher.report("a", {"failed": "out of memory", "map_11pt": 0.0, "epoch": 0})
    # The driver is killed before it closes the trial; the next one does.
    close_finished(driver.study, driver.config.epochs)
    [record] = [r for r in trial_records(driver.study) if r.state != "running"]
    assert (record.state, record.error) == ("failed", "out of memory")
    assert driver.start("b")["number"] == 1
