"""The number of workers changes the speed, not the result."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import load_config, replace_at
from ssd_dist.engine import Worker
from ssd_dist.training import train

NUM_STEPS = 5


def work(rank, world_size, config, data, folder, port):
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)

    def on_epoch(report):
        if rank == 0:
            report.save(folder / f"epoch_{int(report.metrics['epoch'])}")

    train(config, data, Worker(torch.device("cpu"), rank, world_size), on_epoch)
    if world_size > 1:
        dist.destroy_process_group()


def run(world_size, config, data, folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (world_size, config, str(data), folder, port)
    mp.spawn(work, args=arguments, nprocs=world_size)
    return load_checkpoint(folder / "epoch_1")


@pytest.fixture
def config(tiny_config):
    # 20 of the 24 pictures in 5 steps of 4; with SGD a difference stays as large as it is.
    return replace_at(
        load_config(tiny_config),
        {
            "epochs": 1,
            "global_batch_size": 24 // NUM_STEPS,
            "lr": 0.01,
            "optimizer.name": "sgd",
            "optimizer.ema_decay": 0.0,
        },
    )


@pytest.mark.parametrize("norm", ["frozen", "none"])
def test_one_and_two_workers_agree_after_five_steps(norm, config, voc_root, tmp_path):
    config = replace_at(config, {"model.norm": norm})
    one = run(1, config, voc_root, tmp_path / "one")
    two = run(2, config, voc_root, tmp_path / "two")
    start = run(1, replace_at(config, {"lr": 1e-30}), voc_root, tmp_path / "start")
    moved = 0.0
    for name, weight in one.weights.items():
        assert torch.allclose(two.weights[name], weight, rtol=1e-4, atol=1e-6), name
        if weight.is_floating_point():
            moved = max(moved, (weight - start.weights[name]).abs().max().item())
    assert moved > 1e-3  # they did train
    for metric in ("loss", "loss_conf", "loss_loc", "l2_term", "map_11pt"):
        assert two.metrics[metric] == pytest.approx(one.metrics[metric], rel=1e-4, abs=1e-6)


def test_three_workers_share_a_batch_of_four_unevenly(config, voc_root, tmp_path):
    config = replace_at(config, {"model.norm": "none"})
    one = run(1, config, voc_root, tmp_path / "one")
    three = run(3, config, voc_root, tmp_path / "three")
    for name, weight in one.weights.items():
        assert torch.allclose(three.weights[name], weight, rtol=1e-4, atol=1e-6), name


def test_a_resumed_training_equals_the_undisturbed_one_bit_for_bit(tiny_config, voc_root, tmp_path):
    config = load_config(tiny_config)
    worker = Worker(torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:

        def save(folder):
            return lambda report: report.save(folder / f"epoch_{int(report.metrics['epoch'])}")

        train(config, str(voc_root), worker, save(tmp_path / "whole"))
        train(
            config,
            str(voc_root),
            worker,
            save(tmp_path / "resumed"),
            resume=tmp_path / "whole" / "epoch_1",
        )
    finally:
        torch.set_num_threads(threads)
    assert not (tmp_path / "resumed" / "epoch_1").exists()
    whole = load_checkpoint(tmp_path / "whole" / "epoch_3")
    resumed = load_checkpoint(tmp_path / "resumed" / "epoch_3")
    assert all(torch.equal(resumed.weights[name], w) for name, w in whole.weights.items())
    without_clock = [
        [
            {k: v for k, v in epoch.items() if k not in ("seconds", "images_per_second")}
            for epoch in checkpoint.history
        ]
        for checkpoint in (whole, resumed)
    ]
    assert without_clock[0] == without_clock[1]
