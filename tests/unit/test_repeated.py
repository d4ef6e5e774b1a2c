"""repeats.json: what was trained again comes back, also from a folder that was moved."""

import json

from ssd_dist.config import Config
from ssd_dist.experiment import TrialRecord, finish_experiment, start_experiment
from ssd_dist.repeated import Repeated, read_repeats, write_repeats


def repeated(folder):
    runs = tuple(
        TrialRecord(
            number=2 * seed,
            state="complete",
            parameters={"alpha": 2.0, "seed": seed},
            map_11pt=0.5 + seed / 10,
            epochs=2,
            seconds=1.5,
            curve=(0.1, 0.5 + seed / 10),
            checkpoint=str(folder / "ray" / f"checkpoint_{seed}"),
        )
        for seed in (1, 2, 3)
    )
    return Repeated(parameters={"alpha": 2.0}, trial=4, is_paper=False, runs=runs)


def test_repeats_come_back_with_their_figures(tmp_path):
    folder = tmp_path / "a"
    start_experiment(folder, "tune", Config(), "synthetic")
    assert read_repeats(folder) is None
    one = repeated(folder)
    write_repeats(folder, [one])
    (folder / "ray" / "checkpoint_3").mkdir(parents=True)
    best = finish_experiment(
        folder, Config(), 0.8, folder / "ray" / "checkpoint_3", repeats=one.summary()
    )
    assert read_repeats(folder) == [one]
    [stored] = json.loads((folder / "repeats.json").read_text())
    assert (stored["seeds"], stored["values"]) == ([1, 2, 3], [0.6, 0.7, 0.8])
    assert json.loads(best.read_text())["repeats"]["mean"] == one.mean

    moved = folder.rename(tmp_path / "b")
    [found] = read_repeats(moved)
    assert found.runs[2].checkpoint == str(moved / "ray" / "checkpoint_3")
    assert found.values == one.values
