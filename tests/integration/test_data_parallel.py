"""The number of workers changes the speed, not the result."""

import dataclasses
import re
import shutil

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ports import free_ports

from ssd_dist import engine, exchange
from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import load_config, replace_at
from ssd_dist.data import open_split
from ssd_dist.divergence import NonFiniteLossError
from ssd_dist.engine import Worker
from ssd_dist.exchange import begin_exchange
from ssd_dist.ops.loss import multibox_sums
from ssd_dist.training import train

NUM_STEPS = 5


def work(rank, world_size, config, data, folder, port):
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)

    def on_epoch(report):
        if rank == 0:
            report.save(folder / f"epoch_{int(report.metrics['epoch'])}")

    try:
        train(config, data, Worker(torch.device("cpu"), rank, world_size), on_epoch)
    finally:
        # Left to the end of the process, the group's threads may abort it.
        if world_size > 1:
            dist.destroy_process_group()


def run(world_size, config, data, folder, work=work):
    (port,) = free_ports(1)
    arguments = (world_size, config, str(data), folder, port)
    mp.spawn(work, args=arguments, nprocs=world_size)
    return load_checkpoint(folder / "epoch_1")


def work_spoilt(rank, world_size, config, data, folder, port):
    """What one worker's pictures do to the loss: infinite, and yet with a finite gradient."""
    if rank == 1:

        def spoilt(*arguments):
            parts = multibox_sums(*arguments)
            return dataclasses.replace(parts, conf=parts.conf + torch.inf)

        engine.multibox_sums = spoilt
    folder.mkdir(exist_ok=True)
    try:
        work(rank, world_size, config, data, folder, port)
    except NonFiniteLossError as error:
        (folder / f"worker_{rank}").write_text(str(error))


def work_counting(rank, world_size, config, data, folder, port):
    """Writes how often gradients were exchanged."""
    exchanged = []

    def begin(under_way, bucket):
        exchanged.append(bucket.index())
        return begin_exchange(under_way, bucket)

    exchange.begin_exchange = begin
    work(rank, world_size, config, data, folder, port)
    if rank == 0:
        (folder / "exchanges").write_text(str(len(exchanged)))


def take_buffers(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=2)
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(2))
    for number, buffer in enumerate(module.buffers()):
        buffer.fill_(10 * rank + number)
    exchange.take_buffers_of_first(module)
    torch.save(list(module.buffers()), folder / f"of_{rank}")
    dist.destroy_process_group()


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


def test_two_workers_meet_their_pictures_in_parts_and_exchange_once(config, voc_root, tmp_path):
    config = replace_at(config, {"model.norm": "none"})
    one = run(1, config, voc_root, tmp_path / "one", work_counting)
    whole = run(2, config, voc_root, tmp_path / "whole", work_counting)
    parts = run(
        2, replace_at(config, {"accumulation": 2}), voc_root, tmp_path / "parts", work_counting
    )
    for name, weight in one.weights.items():
        assert torch.allclose(parts.weights[name], weight, rtol=1e-4, atol=1e-6), name
    for metric in ("loss", "loss_conf", "loss_loc", "gradient_norm"):
        assert parts.metrics[metric] == pytest.approx(whole.metrics[metric], rel=1e-4)
    exchanges = [(tmp_path / name / "exchanges").read_text() for name in ("whole", "parts")]
    assert exchanges[0] == exchanges[1]
    assert int(exchanges[0]) >= NUM_STEPS


def test_three_workers_share_a_batch_of_four_unevenly(config, voc_root, tmp_path):
    config = replace_at(config, {"model.norm": "none"})
    one = run(1, config, voc_root, tmp_path / "one")
    three = run(3, config, voc_root, tmp_path / "three")
    for name, weight in one.weights.items():
        assert torch.allclose(three.weights[name], weight, rtol=1e-4, atol=1e-6), name


def test_all_workers_end_where_the_pictures_of_one_spoil_the_loss(config, voc_root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        run(2, config, voc_root, tmp_path, work_spoilt)
    messages = [(tmp_path / f"worker_{rank}").read_text() for rank in range(2)]
    assert messages[0] == messages[1]
    assert "loss inf with gradient norm" in messages[0]
    assert "at step 0 of the epoch" in messages[0]
    assert len(re.findall(r"train_\d{3}", messages[0])) == config.global_batch_size


def test_two_workers_without_any_object(config, voc_root, tmp_path):
    root = tmp_path / "VOC"
    shutil.copytree(voc_root, root)
    names = list(open_split(str(voc_root), "train").class_names)
    for path in (root / "Annotations").glob("train_*.xml"):
        path.write_text(f"<annotation><filename>{path.stem}.jpg</filename></annotation>")
    config = replace_at(config, {"data.class_names": names})
    metrics = run(2, config, root, tmp_path).metrics
    assert metrics["loss"] == metrics["gradient_norm"] == 0


def test_all_take_the_buffers_of_the_first(tmp_path):
    mp.spawn(take_buffers, args=(tmp_path,), nprocs=2)
    for rank in range(2):
        buffers = torch.load(tmp_path / f"of_{rank}")
        assert [tuple(each.shape) for each in buffers] == [(3,), (3,), (), (2,), (2,), ()]
        assert [each.dtype for each in buffers] == [torch.float32, torch.float32, torch.int64] * 2
        assert [each.unique().tolist() for each in buffers] == [[n] for n in range(6)]
