"""A node that is taken away with a warning: SIGTERM to `ray start --block`, as Kubernetes does."""

import signal

import pytest
from clusters import start_ray
from comparisons import differences_to_undisturbed, wrong_in_search
from injections import Job, assert_nothing_remains, running_environment
from outcomes import checkpoints
from running import read_json, wait_until

pytestmark = pytest.mark.cluster

TRIALS, EPOCHS = 2, 30


def test_its_trial_saves_its_state_and_goes_on_elsewhere(
    tiny_config, voc_root, tmp_path, environment
):
    config = tmp_path / "long.yaml"
    config.write_text(
        tiny_config.read_text().replace("global_batch_size: 8", "global_batch_size: 1")
    )
    arguments = ["--config", config, "--data", voc_root, "--storage", tmp_path, "--name", "s"]
    arguments += ["--trials", TRIALS, "--epochs", EPOCHS]
    with start_ray(environment, num_cpus=1) as server:
        node = server.add_node(1)
        search = Job(
            "tune.py",
            arguments,
            running_environment(server.environment),
            tmp_path / "s",
            tmp_path / "log",
        )
        search.start()
        wait_until(lambda: len({p.parent for p in checkpoints(search.folder)}) == 2, 150,
                   search.printed)  # fmt: skip
        node.send_signal(signal.SIGTERM)
        wait_until(lambda: search.interrupted(), 20, search.printed)
        node.wait(60)
        server.nodes.remove(node)
        assert search.wait() == 0, search.printed()
        assert wrong_in_search(search.folder, {}, TRIALS) == []
        for trial in read_json(search.folder / "trials.json"):
            name = f"trial-{trial['number']:04d}"
            kept = [path for path in checkpoints(search.folder) if path.parent.name == name]
            if trial["state"] == "complete":
                assert differences_to_undisturbed(kept, str(voc_root), tmp_path) == []
        assert_nothing_remains(server)
