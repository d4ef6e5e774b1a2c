"""A search without Ray: what Ray Tune would tell it, and trainings that only tell numbers."""

from pathlib import Path

import optuna

from ssd_dist.config import Config, Range, SearchConfig
from ssd_dist.distributed.first_points import Plan, plan_search
from ssd_dist.distributed.searcher import StudySearcher
from ssd_dist.distributed.study import close_finished, enqueue, open_study
from ssd_dist.distributed.study_storage import StudyPlace

SPACE = {
    "alpha": Range(low=0.1, high=10, log=True),
    "global_batch_size": Range(low=2, high=8, integer=True),
    "model.norm": Range(choices=("batch", "none")),
}


def make_config(*, epochs=3, seed=0, alpha=1.0, space=None, **search) -> Config:
    """A configuration whose own values lie in the space, and are not the SSD paper's."""
    settings = {"trials": 6, "grace_epochs": 1, "reduction_factor": 2, **search}
    return Config(
        alpha=alpha,
        epochs=epochs,
        seed=seed,
        global_batch_size=4,
        search=SearchConfig(space=SPACE if space is None else space, **settings),
    )


class Driver:
    """A search as Ray Tune leads it, one report after the other."""

    def __init__(
        self,
        config: Config,
        place: StudyPlace,
        study: optuna.Study | None = None,
        plan: Plan | None = None,
    ):
        """Takes up the study at `place`, or `study`, with the search's plan, or `plan`."""
        self.config, self.place = config, place
        self.study = open_study(place, config) if study is None else study
        enqueue(self.study, plan or plan_search(config))
        close_finished(self.study, config.epochs, place.artifacts)
        self.searcher = StudySearcher(self.study, config, place, {"git_commit": "c0ffee"})

    def start(self, ray_id: str) -> dict:
        """Parameters and number of the next trial."""
        suggestion = self.searcher.suggest(ray_id)
        assert self.searcher.failure is None, self.searcher.failure
        return suggestion

    def epoch(self, ray_id: str, epoch: int, map_11pt: float, folder: Path, **more) -> bool:
        """An epoch and its checkpoint; True if the trial is to stop."""
        folder.mkdir(exist_ok=True, parents=True)
        result = {"epoch": epoch, "map_11pt": map_11pt, **more}
        stop = self.searcher.report(ray_id, result)
        self.searcher.keep(ray_id, str(folder), result)
        return stop

    def run(self, ray_id: str, value_of, tmp_path: Path, **more) -> dict:
        """A whole trial whose mAP rises to `value_of(parameters)`; its parameters."""
        parameters = self.start(ray_id)["parameters"]
        for epoch in range(1, self.config.epochs + 1):
            value = value_of(parameters) * epoch / self.config.epochs
            if self.epoch(ray_id, epoch, value, tmp_path / ray_id, **more):
                break
        self.searcher.on_trial_complete(ray_id, {})
        assert self.searcher.failure is None, self.searcher.failure
        return parameters
