"""Training and search on Ray.

Ray reads its environment when it is imported, so what this package wants of it is said here, before
any of its modules can import it. What the environment says already is left as it is.
"""

import os

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # How often Ray Train looks for a worker's report: by default every two seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # How long Ray Train waits for room for its workers before it looks anew how many there is room
    # for; it looks again and again, so that a machine that takes longer to come is not missed.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    # A trial's failure is a line of our own; Ray Tune keeps the trace in the trial's error.txt.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Each CPU worker sees only its own core; hiding the GPUs from it as well only prints a warning.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def names_no_ray() -> bool:
    """Whether RAY_ADDRESS names no Ray to join: it is unset, empty, or `local`."""
    return os.environ.get("RAY_ADDRESS", "") in ("", "local")


if names_no_ray():
    # Looks for nodes that are about to go: here there is one, and each worker looks itself.
    _ENVIRONMENT["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    # Whoever reaches this machine could otherwise run code in a Ray started here.
    _ENVIRONMENT["RAY_AUTH_MODE"] = "token"
    # A Ray started here listens on loopback, as it always does on macOS and Windows: this is how.
    _ENVIRONMENT["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
