"""What a search or a training must have left, whatever befell it."""

from pathlib import Path

from running import read_json

from ssd_dist.checkpoint import load_checkpoint


def checkpoints(folder: Path) -> list[Path]:
    """Folders of the checkpoints that an experiment's trainings have stored so far."""
    return sorted(path.parent for path in (folder / "ray").rglob("checkpoint_*/checkpoint.json"))


def last_history(folder: Path) -> list[dict[str, float]]:
    """Epochs of a training as its last checkpoint knows them."""
    kept = [load_checkpoint(path) for path in checkpoints(folder)]
    return max(kept, key=lambda checkpoint: checkpoint.epoch).history


def check_search(folder: Path, num_trials: int, num_epochs: int) -> None:
    """All trials are there once, whole, and the best of them is the result."""
    trials = read_json(folder / "trials.json")
    assert sorted(trial["number"] for trial in trials) == list(range(num_trials))
    for trial in trials:
        assert trial["state"] in ("complete", "pruned"), trial
        assert len(trial["curve"]) == trial["epochs"], trial
        assert trial["state"] == "pruned" or trial["epochs"] == num_epochs
        if trial["checkpoint"] is not None:
            checkpoint = load_checkpoint(folder / trial["checkpoint"])
            epochs = [epoch["epoch"] for epoch in checkpoint.history]
            assert epochs == list(range(1, checkpoint.epoch + 1))
    best = read_json(folder / "best.json")
    assert best["map_11pt"] == trials[0]["map_11pt"] == max(t["map_11pt"] for t in trials)
    assert load_checkpoint(folder / "best_checkpoint").metrics["map_11pt"] == best["map_11pt"]
