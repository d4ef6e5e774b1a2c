import hashlib
import json
import pickle
import re
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ssd_dist.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_into,
    load_training_state,
    save_checkpoint,
)
from ssd_dist.config import Config

FILES = "checkpoint.json", "model.safetensors", "training.json", "training.safetensors"


@pytest.fixture
def checkpoint():
    return Checkpoint(
        config=Config(alpha=2.5),
        class_names=("cat", "dög"),
        data="synthetic",
        data_fingerprint="0123456789abcdef",
        epoch=2,
        metrics={"epoch": 2, "map_11pt": 0.5},
        history=({"epoch": 1, "map_11pt": 0.1}, {"epoch": 2, "map_11pt": 0.5}),
        weights={"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)},
    )


@pytest.fixture
def state():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.sum().backward()
    optimizer.step()
    return {"optimizer": optimizer.state_dict(), "step": 12, "random": torch.get_rng_state()}


@pytest.fixture
def folder(tmp_path, checkpoint, state):
    folder = tmp_path / "epoch_2"
    save_checkpoint(folder, checkpoint, state)
    return folder


def load(folder):
    return load_checkpoint(folder), load_training_state(folder)


def seal(folder, **changes):
    """Changes checkpoint.json, and makes all checksums right: what a forger would do."""
    path = folder / "checkpoint.json"
    meta = {**json.loads(path.read_text()), **changes}
    if isinstance(meta["sha256"], dict):
        sums = {f: hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in FILES[1:]}
        content = json.dumps({**meta, "sha256": sums}, sort_keys=True)
        sums["checkpoint.json"] = hashlib.sha256(content.encode()).hexdigest()
        meta["sha256"] = sums
    path.write_text(json.dumps(meta))


def assert_one_sentence(error, folder):
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_what_is_saved_comes_back(folder, checkpoint, state):
    loaded, training_state = load(folder)
    for field in ("config", "class_names", "data", "data_fingerprint", "epoch"):
        assert getattr(loaded, field) == getattr(checkpoint, field)
    assert loaded.metrics == checkpoint.metrics
    assert loaded.history == checkpoint.history
    assert all(torch.equal(loaded.weights[name], t) for name, t in checkpoint.weights.items())
    assert training_state["step"] == 12
    assert torch.equal(training_state["random"], state["random"])
    assert training_state["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    moments, expected = training_state["optimizer"]["state"][0], state["optimizer"]["state"][0]
    assert moments.keys() == expected.keys()
    assert all(torch.equal(moments[name], expected[name]) for name in expected)


def test_all_of_it_is_json_and_safetensors(folder):
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    for name in FILES:
        if name.endswith(".json"):
            json.loads((folder / name).read_text())
        else:
            load_file(folder / name)


def test_without_a_training_state_there_is_none_to_resume(tmp_path, checkpoint):
    save_checkpoint(tmp_path / "a", checkpoint)
    assert load_checkpoint(tmp_path / "a").epoch == 2
    with pytest.raises(FileNotFoundError, match="saved without a training to resume") as error:
        load_training_state(tmp_path / "a")
    assert_one_sentence(error, tmp_path / "a")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_wherever_it_is(folder, name, at, bit):
    file = folder / name
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[int(at * len(content))] ^= 1 << bit
    file.write_bytes(flipped)
    try:
        with pytest.raises(ValueError, match=re.escape(str(folder))) as error:
            load(folder)
        assert_one_sentence(error, file)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 1, 0.5, -1])
def test_a_truncated_file_is_noticed(folder, name, kept):
    file = folder / name
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=re.escape(name)) as error:
        load(folder)
    assert_one_sentence(error, folder)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f"{name} is missing")) as error:
        load(folder)
    assert_one_sentence(error, folder)


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_of_another_checkpoint_is_noticed(folder, tmp_path, checkpoint, name):
    weights = {"a.weight": torch.zeros(2, 3), "b": torch.tensor(7)}
    other = Checkpoint(**{**_fields(checkpoint), "weights": weights})
    save_checkpoint(tmp_path / "other", other, {"step": torch.tensor(3)})
    shutil.copy(tmp_path / "other" / name, folder / name)
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: damaged"):
        load(folder)


def _fields(checkpoint):
    return {name: getattr(checkpoint, name) for name in checkpoint.__slots__}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 3}, "format version 3, and this release reads up to 2: use the release that"),
        ({"version": 1}, "format version 1, and this release reads 2 only: train again"),
        ({"version": "2"}, "format version '2'"),
        ({"version": None}, "format version None"),
        ({"config": {"lrr": 1}}, "unknown field 'lrr'"),
        ({"config": {"lr": "fast"}}, "lr"),
        ({"config": 3}, "config is a whole number, not an object"),
        ({"class_names": 3}, "class_names is a whole number, not a list"),
        ({"class_names": ["a", None]}, r"class_names\[1\] is null, not text"),
        ({"data": ["x"]}, "data is a list, not text"),
        ({"epoch": 2.5}, "epoch is a number, not a whole number"),
        ({"epoch": True}, "epoch is true or false, not a whole number"),
        ({"metrics": {"map_11pt": "high"}}, "map_11pt|metrics"),
        ({"history": {"1": 0.5}}, "history is an object, not a list"),
        ({"sha256": None}, "sha256 is null, not an object"),
    ],
)
def test_a_strange_description_is_refused(folder, changes, words):
    seal(folder, **changes)
    with pytest.raises(ValueError, match=words) as error:
        load_checkpoint(folder)
    assert_one_sentence(error, folder)


def test_a_changed_description_is_noticed(folder):
    path = folder / "checkpoint.json"
    for change in {"epoch": 3}, {"more": 1}, {"sha256": {}}:
        meta = json.loads(path.read_text())
        path.write_text(json.dumps({**meta, **change}))
        with pytest.raises(ValueError, match=r"checkpoint\.json: damaged: its checksum"):
            load_checkpoint(folder)
        path.write_text(json.dumps(meta))
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "[" * 100_000, "\udcff"])
def test_a_description_of_another_kind_is_refused(folder, text):
    (folder / "checkpoint.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"checkpoint\.json") as error:
        load_checkpoint(folder)
    assert_one_sentence(error, folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"$tensor": "gone"}', '{"a": {"$call": 1}}', "[" * 100_000],
)
def test_a_training_state_of_another_kind_is_refused(folder, text):
    (folder / "training.json").write_text(text)
    seal(folder)
    with pytest.raises(ValueError, match=r"training\.json: not the state of a training") as error:
        load_training_state(folder)
    assert_one_sentence(error, folder)


class Evil:
    def __reduce__(self):
        return (open, ("evil", "w"))


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_does_not_run(folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), folder / name, _use_new_zipfile_serialization=False)
    if name != "checkpoint.json":
        seal(folder)
    with pytest.raises(ValueError, match=re.escape(name)) as error:
        load(folder)
    assert_one_sentence(error, folder)
    assert not (tmp_path / "evil").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "evil").exists()  # it would have


def test_what_lies_beside_is_not_read(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), folder / "training.pt")
    assert load(folder)[1]["step"] == 12
    assert not (tmp_path / "evil").exists()


def test_another_model_s_weights_are_refused():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    load_into(model, {"0.weight": torch.ones(3, 2), "0.bias": torch.zeros(3)}, "here")
    assert model[0].weight.sum() == 6
    for weights, name in [
        ({}, r"2 are .* such as 0\.bias"),
        ({"0.weight": torch.ones(3, 2), "0.bias": torch.zeros(4)}, r"1 are .* such as 0\.bias"),
        ({**model.state_dict(), "1.weight": torch.ones(1)}, r"1 are .* such as 1\.weight"),
    ]:
        with pytest.raises(ValueError, match=f"^here: the weights of another model: of 2.*{name}"):
            load_into(model, weights, "here")


def test_a_failure_leaves_nothing_behind_and_the_old_one_in_place(folder, checkpoint):
    with pytest.raises(TypeError, match=r"state\.bad is a function, which no checkpoint can hold"):
        save_checkpoint(folder, checkpoint, {"bad": lambda: None})
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert load_checkpoint(folder).epoch == 2


def test_a_full_disk_leaves_the_old_one_in_place(folder, checkpoint, monkeypatch):
    def no_space(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(folder, checkpoint, {"step": 13})
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert load_training_state(folder)["step"] == 12


def test_saving_again_replaces(folder, checkpoint):
    save_checkpoint(folder, checkpoint)
    assert not (folder / "training.json").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
