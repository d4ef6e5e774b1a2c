"""What is refused before a search starts, and what a search leaves when it ends; without Ray."""

import dataclasses

import pytest
from searching import SPACE, Driver, make_config

from ssd_dist.config import Range
from ssd_dist.distributed import search, tuner
from ssd_dist.distributed.search import run_search
from ssd_dist.distributed.study_storage import (
    STORAGE_VARIABLE,
    StudyStorageError,
    existing_place,
    new_place,
    record_place,
)
from ssd_dist.experiment import TrialRecord, read_json, start_experiment
from ssd_dist.terminal import JobFailedError, Terminal


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """Whoever comes as far as the preparation, before Ray is started, was not refused."""

    def reached(*arguments):
        pytest.fail("it was not refused")

    monkeypatch.setattr(search, "prepare", reached)
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)


@pytest.fixture
def begun(tmp_path, place):
    """A search that was cut off after a trial."""
    config = make_config()
    folder = tmp_path / "experiment"
    start_experiment(folder, "tune", config, "synthetic")
    record_place(folder, place)
    (folder / "ray").mkdir()
    Driver(config, place).run("a", lambda _: 0.5, tmp_path)
    return folder


def resume(folder, config=None, **arguments):
    run_search(config or make_config(), "synthetic", folder, Terminal(), resume=True, **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"study_storage": "nonsense"}, "not a URL"),
        ({"study_storage": "postgresql://me:s3cret@127.0.0.1:1/db"}, "can't be used: connection"),
        ({"warm_start": "absent"}, "no experiment"),
    ],
)
def test_a_new_search_that_can_not_be_leaves_nothing(arguments, words, tmp_path):
    if "warm_start" in arguments:
        arguments = {"warm_start": tmp_path / "absent"}
    with pytest.raises((ValueError, OSError), match=words) as caught:
        run_search(make_config(), "synthetic", tmp_path / "new", Terminal(), **arguments)
    assert "s3cret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_study_that_is_gone(begun):
    (begun / "study.db").rename(begun / "kept.db")
    with pytest.raises(FileNotFoundError, match="say where it is by --study-storage") as caught:
        resume(begun)
    assert "\n" not in str(caught.value)
    assert not (begun / "study.db").exists()
    # Where it was moved to, it is found, and so the search would go on.
    with pytest.raises(pytest.fail.Exception, match="it was not refused"):
        resume(begun, study_storage=f"sqlite:///{begun / 'kept.db'}")


def test_a_study_of_another_space(begun):
    """As when another experiment's files were put in the place of these."""
    other = make_config(space={**SPACE, "alpha": Range(low=1, high=2)})
    (begun / "experiment.json").unlink()
    start_experiment(begun, "tune", other, "synthetic")
    before = (begun / "study.db").read_bytes()
    with pytest.raises(ValueError, match=r"another space \(alpha was .*--name$"):
        resume(begun, other)
    assert (begun / "study.db").read_bytes() == before


def test_another_space_than_the_experiments(begun):
    with pytest.raises(ValueError, match=r"search\.space\.alpha\.low was 0\.1, now 0\.2"):
        resume(begun, make_config(space={**SPACE, "alpha": Range(low=0.2, high=10, log=True)}))


def test_another_start_than_the_first(begun, tmp_path):
    with pytest.raises(ValueError, match="was started without one; resume it without the flag"):
        resume(begun, warm_start=tmp_path / "other")
    record_place(begun, dataclasses.replace(existing_place(begun), warm_start=tmp_path / "x"))
    with pytest.raises(ValueError, match=f"was started from {tmp_path / 'x'}"):
        resume(begun, warm_start=tmp_path / "other")


def test_a_search_killed_before_its_study_was_made_is_begun(tmp_path):
    folder = tmp_path / "experiment"
    start_experiment(folder, "tune", make_config(), "synthetic")
    for _ in range(2):  # the second time study.json is there
        with pytest.raises(pytest.fail.Exception, match="it was not refused"):
            resume(folder)
        record_place(folder, new_place(folder, None))


def test_batches_that_can_not_be_made():
    space = {"global_batch_size": Range(choices=(4, 64))}
    config = make_config(space=space)
    search._check_batches(config, 64, workers_per_trial=4)
    search._check_batches(make_config(), 8, workers_per_trial=1)
    with pytest.raises(ValueError, match="admits 64: with 63 training pictures"):
        search._check_batches(config, 63, workers_per_trial=1)
    with pytest.raises(ValueError, match=r"admits 4: .* must lie between 5 and 64"):
        search._check_batches(config, 64, workers_per_trial=5)


class Tuner:
    """Ray Tune's, as far as it is seen from here."""

    def __init__(self, error=None):
        self.error = error

    def fit(self):
        if self.error is not None:
            raise self.error


def test_a_storage_that_is_lost_meanwhile_ends_the_search_in_a_sentence(place):
    searcher = Driver(make_config(), place).searcher
    tuner.fit(Tuner(), searcher)
    with pytest.raises(JobFailedError, match="No space left on device; nothing that was") as caught:
        tuner.fit(Tuner(OSError(28, "No space left on device")), searcher)
    assert "\n" not in str(caught.value)
    with pytest.raises(ZeroDivisionError):
        tuner.fit(Tuner(ZeroDivisionError()), searcher)
    searcher.failure = "the study in x can't be used: gone"
    with pytest.raises(JobFailedError, match="go on by --resume"):
        tuner.fit(Tuner(), searcher)


def test_the_best_of_two_objectives_is_the_fastest_of_the_most_accurate(tmp_path):
    def record(number, map_11pt, milliseconds, pareto):
        folder = tmp_path / f"checkpoint_{number}"
        folder.mkdir()
        return TrialRecord(
            number=number,
            state="complete",
            parameters={"alpha": 1.0 + number},
            map_11pt=map_11pt,
            epochs=3,
            seconds=1.0,
            curve=(map_11pt,),
            checkpoint=str(folder),
            ms_per_image=milliseconds,
            pareto=pareto,
        )

    trials = [record(0, 0.9, 9.0, False), record(1, 0.9, 5.0, True), record(2, 0.4, 1.0, True)]
    (tmp_path / "experiment").mkdir()
    best = search._best_trial(trials)
    outcome = search._finish(make_config(), tmp_path / "experiment", trials, best)
    assert read_json(outcome.best)["config"]["alpha"] == 2.0
    assert "repeats" not in read_json(outcome.best)


def test_errors_of_the_storage_are_the_users():
    assert issubclass(StudyStorageError, OSError)  # told in a line, without a trace
