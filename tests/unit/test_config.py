from pathlib import Path

import pytest

from ssd_dist.config import (
    Config,
    ModelConfig,
    Range,
    from_mapping,
    load_config,
    replace_at,
    to_mapping,
    value_at,
)

SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load_and_survive_a_round_trip(path):
    config = load_config(path)
    assert from_mapping(to_mapping(config)) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_open_with_command_cost_and_result(path):
    opening = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert "python jobs/" in opening
    assert "mAP" in opening


@pytest.mark.parametrize(
    ("architecture", "size"),
    [("ssd", 224), ("ssd300_vgg16", 300), ("ssdlite320_mobilenet_v3_large", 320)],
)
def test_a_model_is_as_large_as_it_was_made_for(architecture, size):
    assert ModelConfig(architecture=architecture).image_size == size
    config = from_mapping({"model": {"architecture": architecture}})
    assert config.model.image_size == size
    assert replace_at(config, {"model.image_size": 352}).model.image_size == 352
    given = from_mapping({"model": {"architecture": architecture, "image_size": 416}})
    assert given.model.image_size == 416
    with pytest.raises(ValueError, match="positional"):
        ModelConfig(architecture)


def test_there_are_shipped_configurations():
    assert SHIPPED


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"alhpa": 1}, ["alhpa", "alpha"]),
        ({"model": {"image_siz": 300}}, ["model.image_siz", "model.image_size"]),
        ({"lr": -1}, ["lr", "-1"]),
        ({"lr": float("nan")}, ["lr"]),
        ({"epochs": 2.5}, ["epochs", "2.5"]),
        ({"model": {"norm": "group"}}, ["model.norm", "group"]),
        ({"optimizer": {"name": "lion"}}, ["optimizer.name", "lion"]),
        ({"search": {"space": {"lr": {"low": 1, "high": 0.1}}}}, ["space.lr", "below high"]),
        ({"search": {"space": {"lr": {"low": 0, "high": 1, "log": True}}}}, ["above 0"]),
        ({"search": {"space": {"lr": {"low": 0.1}}}}, ["low and high"]),
        ({"search": {"space": {"lr": {"low": -1, "high": 1}}}}, ["search.space['lr']", "-1"]),
        ({"search": {"space": {"loss.nms": {"low": 1, "high": 2}}}}, ["loss.nms"]),
        ({"search": {"space": {"search.trials": {"choices": [1]}}}}, ["search.trials"]),
        ("alpha: 1", ["alpha: 1"]),
    ],
)
def test_mistakes_are_named_with_their_place(mapping, words):
    with pytest.raises(ValueError, match=r".") as caught:
        from_mapping(mapping, source="some.yaml")
    message = str(caught.value)
    assert message.startswith("some.yaml: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_yaml_numbers_without_a_dot(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("lr: 1e-3\nalpha: 2\n")
    assert load_config(path).lr == 1e-3


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "a.yaml") == Config()


def test_broken_and_missing_files_are_named(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: [1\n")
    with pytest.raises(ValueError, match=r"a\.yaml"):
        load_config(tmp_path / "a.yaml")
    with pytest.raises(FileNotFoundError, match=r"b\.yaml"):
        load_config(tmp_path / "b.yaml")


def test_values_at_dotted_paths():
    config = replace_at(Config(), {"lr": 0.5, "loss.neg_pos_ratio": 5})
    assert (config.lr, config.loss.neg_pos_ratio) == (0.5, 5.0)
    assert value_at(config, "loss.neg_pos_ratio") == 5.0
    for path in ("loss.nothing", "lr.deeper", "nothing"):
        with pytest.raises(ValueError, match="no field"):
            replace_at(config, {path: 1})
        with pytest.raises(ValueError, match="no field"):
            value_at(config, path)


def test_any_field_can_be_searched():
    space = {
        "loss.neg_pos_ratio": Range(low=1, high=6),
        "global_batch_size": Range(low=4, high=64, log=True, integer=True),
        "model.norm": Range(choices=("batch", "none")),
        "data.augmentation.vertical_flip": Range(choices=(0.0, 0.5)),
    }
    config = from_mapping({"search": {"space": {k: to_plain(v) for k, v in space.items()}}})
    assert config.search.space == space


def to_plain(values: Range) -> dict:
    return {
        "low": values.low,
        "high": values.high,
        "log": values.log,
        "integer": values.integer,
        "choices": values.choices,
    }
