"""A training that stops and goes on equals the undisturbed one, bit for bit: one worker, CPU."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from comparisons import differences
from ports import free_ports

from ssd_dist.checkpoint import load_checkpoint, load_training_state
from ssd_dist.config import load_config, replace_at
from ssd_dist.engine import Worker
from ssd_dist.interruption import TrainingInterruptedError
from ssd_dist.training import train

STEPS_PER_EPOCH, EPOCHS = 3, 3  # 24 pictures, 8 a step
CHECKS_PER_EPOCH = STEPS_PER_EPOCH + 2  # the 8 pictures to validate are two batches on a CPU
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tiny_config):
    """With all that is random or has a state: dropout, stochastic depth, an average, momentum."""
    changes = {"epochs": EPOCHS, "model.dropout": 0.3, "model.drop_path": 0.3}
    return replace_at(load_config(tiny_config), changes)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def save_in(folder):
    return lambda report: report.save(folder / f"epoch_{int(report.metrics['epoch'])}")


@pytest.fixture(scope="module")
def undisturbed(config, voc_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(config, str(voc_root), Worker(CPU), save_in(folder))
    torch.set_num_threads(threads)
    return folder


def asked_at(count):
    """Asks for a stop when it is called for the `count`th time."""
    calls = iter(range(1, count + 1))
    return lambda: next(calls, count) == count


def stopped(config, voc_root, folder, count, resume=None):
    """Folder of the checkpoint of a training that is asked to stop at its `count`th check."""
    with pytest.raises(TrainingInterruptedError) as caught:
        train(
            config,
            str(voc_root),
            Worker(CPU),
            save_in(folder),
            resume=resume,
            check_in=asked_at(count),
        )
    caught.value.save(folder / f"stopped_{count}")
    return folder / f"stopped_{count}"


def test_from_a_finished_epoch(config, voc_root, undisturbed, tmp_path):
    train(
        config,
        str(voc_root),
        Worker(CPU),
        save_in(tmp_path),
        resume=undisturbed / "epoch_1",
    )
    assert not (tmp_path / "epoch_1").exists()
    assert differences(tmp_path / "epoch_3", undisturbed / "epoch_3") == []


@pytest.mark.parametrize(
    ("count", "epoch", "step"),
    [
        pytest.param(1, 0, 1, id="after the first step"),
        pytest.param(CHECKS_PER_EPOCH + 2, 1, 2, id="within an epoch"),
        pytest.param(CHECKS_PER_EPOCH + 3, 1, 3, id="after an epoch's last step"),
        pytest.param(2 * CHECKS_PER_EPOCH - 1, 1, 3, id="before the validation"),
        pytest.param(2 * CHECKS_PER_EPOCH, 1, 3, id="in the validation"),
    ],
)
def test_from_any_step(count, epoch, step, config, voc_root, undisturbed, tmp_path):
    checkpoint = stopped(config, voc_root, tmp_path, count)
    assert load_checkpoint(checkpoint).epoch == epoch
    part = load_training_state(checkpoint)["epoch_part"]
    assert part["num_steps"] == step
    assert (part["losses"] is not None) == ((count - 1) % CHECKS_PER_EPOCH >= STEPS_PER_EPOCH)
    steps = []
    train(
        config,
        str(voc_root),
        Worker(CPU),
        save_in(tmp_path),
        resume=checkpoint,
        on_step=lambda done, in_all: steps.append((done, in_all)),
    )
    num_steps = EPOCHS * STEPS_PER_EPOCH
    assert steps == [(n, num_steps) for n in range(epoch * 3 + step + 1, num_steps + 1)]
    assert differences(tmp_path / "epoch_3", undisturbed / "epoch_3") == []


def test_stopped_again_and_again(config, voc_root, undisturbed, tmp_path):
    checkpoint = None
    for _ in range(4):
        checkpoint = stopped(config, voc_root, tmp_path, 2, checkpoint)
    train(config, str(voc_root), Worker(CPU), save_in(tmp_path), resume=checkpoint)
    assert differences(tmp_path / "epoch_3", undisturbed / "epoch_3") == []


def one_of_two(rank, config, data, folder, port):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    asked = asked_at(5) if rank == 1 else asked_at(1000)
    with pytest.raises(TrainingInterruptedError) as caught:
        train(config, data, Worker(CPU, rank, 2), lambda report: None, check_in=asked)
    assert caught.value.together
    caught.value.save(folder / f"rank_{rank}")
    dist.destroy_process_group()


def test_all_workers_stop_where_one_is_asked_to(config, voc_root, tmp_path):
    (port,) = free_ports(1)
    mp.spawn(one_of_two, args=(config, str(voc_root), tmp_path, port), nprocs=2)
    states = [load_training_state(tmp_path / f"rank_{rank}") for rank in range(2)]
    assert [state["epoch_part"]["num_steps"] for state in states] == [1, 1]
    assert states[0]["epoch_part"]["sums"] == states[1]["epoch_part"]["sums"]
    train(
        replace_at(config, {"epochs": 3}),
        str(voc_root),
        Worker(CPU),
        save_in(tmp_path),
        resume=tmp_path / "rank_0",
    )
    history = load_checkpoint(tmp_path / "epoch_3").history
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
