"""What a user is told of an error that Ray wrapped."""

from __future__ import annotations

from ray.exceptions import OutOfMemoryError


def root_cause(error: BaseException, less_memory: str) -> str:
    """The user's part of an error that Ray wrapped: its innermost cause, without the trace.

    Of several workers' errors a plain one tells more than the broken connections of the others.

    Args:
        error: what Ray raised.
        less_memory: what helps where a machine's memory was full.
    """
    while True:
        inner = (
            getattr(error, "cause", None)
            or getattr(error, "controller_failure", None)
            or getattr(error, "health_check_failure", None)
            or error.__cause__
        )
        failures = getattr(error, "worker_failures", None)
        if failures:
            inner = min(failures.values(), key=lambda failure: "onnection" in str(failure))
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    if isinstance(error, OutOfMemoryError):  # what Ray says of it fills a page
        return (
            "OutOfMemoryError: the machine's memory was full, and Ray ended a process of it: "
            f"{less_memory}, or let less run on it at once"
        )
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else 'no message'}"
