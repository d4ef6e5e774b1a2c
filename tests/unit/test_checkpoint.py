import json
import pickle

import pytest
import torch

from ssd_dist.checkpoint import Checkpoint, load_checkpoint, load_training_state, save_checkpoint
from ssd_dist.config import Config


@pytest.fixture
def checkpoint():
    return Checkpoint(
        config=Config(alpha=2.5),
        class_names=("cat", "dog"),
        data="synthetic",
        data_fingerprint="0123456789abcdef",
        epoch=3,
        metrics={"map_11pt": 0.5},
        history=({"map_11pt": 0.1}, {"map_11pt": 0.5}),
        weights={"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)},
    )


@pytest.fixture
def folder(tmp_path, checkpoint):
    folder = tmp_path / "epoch_3"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    save_checkpoint(folder, checkpoint, {"optimizer": optimizer.state_dict(), "step": 12})
    return folder


def test_what_is_saved_comes_back(folder, checkpoint):
    loaded = load_checkpoint(folder)
    for field in ("config", "class_names", "data", "data_fingerprint", "epoch"):
        assert getattr(loaded, field) == getattr(checkpoint, field)
    assert loaded.metrics == checkpoint.metrics
    assert loaded.history == checkpoint.history
    assert all(torch.equal(loaded.weights[name], t) for name, t in checkpoint.weights.items())
    state = load_training_state(folder)
    assert state["step"] == 12
    assert state["optimizer"]["param_groups"][0]["momentum"] == 0.9


def test_a_flipped_bit_is_noticed(folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged"):
        load_checkpoint(folder)


def test_a_truncated_file_is_noticed(folder):
    file = folder / "training.pt"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"training\.pt: damaged"):
        load_training_state(folder)


def test_a_missing_file_is_named(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load_checkpoint(folder)
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "format version 2"),
        ({"config": {"lrr": 1}}, "unknown field 'lrr'"),
        ({"class_names": 3}, "not a checkpoint's description"),
    ],
)
def test_a_strange_description_is_refused(folder, change, words):
    path = folder / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words):
        load_checkpoint(folder)


def test_a_description_that_is_no_json_is_refused(folder):
    (folder / "checkpoint.json").write_text("{")
    with pytest.raises(ValueError, match=r"checkpoint\.json"):
        load_checkpoint(folder)


class Evil:
    def __reduce__(self):
        return (open, ("evil", "w"))


def test_a_pickle_does_not_run(folder, tmp_path, monkeypatch):
    import hashlib

    monkeypatch.chdir(tmp_path)
    with (folder / "training.pt").open("wb") as file:
        pickle.dump(Evil(), file)
    path = folder / "checkpoint.json"
    meta = json.loads(path.read_text())
    digest = hashlib.sha256((folder / "training.pt").read_bytes()).hexdigest()
    meta["sha256"]["training.pt"] = digest
    path.write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=r"training\.pt: refused"):
        load_training_state(folder)
    assert not (tmp_path / "evil").exists()


def test_a_failure_leaves_nothing_behind_and_the_old_one_in_place(folder, checkpoint):
    with pytest.raises(AttributeError):
        save_checkpoint(folder, checkpoint, {"bad": lambda: None})
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert load_checkpoint(folder).epoch == 3


def test_saving_again_replaces(folder, checkpoint):
    save_checkpoint(folder, checkpoint)
    assert not (folder / "training.pt").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
