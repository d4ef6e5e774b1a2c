"""The search's study in a PostgreSQL of the test's own, with a password."""

import optuna
import pytest
from postgresql import PASSWORD, start_postgresql

from ssd_dist.config import Config, SearchConfig
from ssd_dist.distributed.first_points import plan_search
from ssd_dist.distributed.searcher import StudySearcher
from ssd_dist.distributed.study import (
    close_finished,
    enqueue,
    load_study,
    open_study,
    trial_records,
)
from ssd_dist.distributed.study_storage import (
    StudyStorageError,
    existing_place,
    new_place,
    open_storage,
    record_place,
)


@pytest.fixture(scope="module")
def server():
    """Its URL, with the password."""
    with start_postgresql() as url:
        yield url


def test_a_search_in_postgresql_survives_its_driver(server, tmp_path, monkeypatch):
    config = Config(epochs=2, alpha=2.0, search=SearchConfig(trials=4, grace_epochs=1))
    plan = plan_search(config)

    def driver(place):
        study = open_study(place, config)
        enqueue(study, plan)
        close_finished(study, config.epochs)
        return study, StudySearcher(study, config, place, {"data_fingerprint": "f"})

    def run(searcher, name, value):
        searcher.suggest(name)
        for epoch in (1, 2):
            result = {"epoch": epoch, "map_11pt": value * epoch, "machine": "here"}
            stop = searcher.report(name, result)
            searcher.keep(name, str(tmp_path), result)
            if stop:
                break
        searcher.on_trial_complete(name, {})
        assert searcher.failure is None

    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        record_place(folder, new_place(folder, server))
        assert "s3cr" not in (folder / "study.json").read_text()
    first, second = (existing_place(folder, server) for folder in folders)
    _, searcher = driver(first)
    run(searcher, "a", 0.4)
    searcher.suggest("b")  # and the driver is killed
    driver(second)

    study, searcher = driver(existing_place(folders[0], server))
    for name, value in (("b", 0.3), ("c", 0.2), ("d", 0.45)):
        run(searcher, name, value)
    assert [t.number for t in trial_records(study)] == [0, 1, 2, 3]
    assert [t.state.name for t in study.trials][:2] == ["COMPLETE", "PRUNED"]
    assert study.trials[0].user_attrs["ray_trial_id"] == "a"
    assert len(load_study(second).trials) == len(plan.points)
    assert len(optuna.get_all_study_names(open_storage(first))) == 2

    without_password = existing_place(folders[0])
    with pytest.raises(StudyStorageError, match="no password is kept: give it by") as caught:
        open_study(without_password, config)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert len(open_study(without_password, config).trials) == 4
