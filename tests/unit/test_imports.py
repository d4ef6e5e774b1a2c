"""The house's rule: imports run downwards, and only distributed/ and jobs/ know Ray and Optuna."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ssd_dist"
# What may be imported from where, lowest first; a module imports its own level and those below.
LEVELS = [
    {
        "allocator",
        "config",
        "durable",
        "importing",
        "loopback",
        "nested_state",
        "search_config",
        "structures",
    },
    {"ops"},
    {
        "checkpoint",
        "data",
        "evaluation",
        "experiment",
        "model",
        "provenance",
        "repeated",
        "sole_job",
    },
    {"divergence", "engine", "exchange", "interruption", "optimizer"},
    {"training", "validation"},
    {"analysis", "terminal"},
    {"export", "report"},
    {"distributed"},
    {"__main__"},
]
FILES = sorted(PACKAGE.rglob("*.py"))


def level(part: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if part in names)


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        assert not imported(path)
        return
    # `python -m ssd_dist.<package>` is an entry point like those in jobs/: it may use everything.
    own = level("__main__" if parts[-1] == "__main__" else parts[0])
    for module in imported(path):
        name, *rest = module.split(".")
        if name == "ssd_dist" and rest:
            assert level(rest[0]) <= own, f"{path.name} imports {module} from above"
        if name in ("ray", "optuna"):
            assert parts[0] == "distributed", f"{path.name} imports {module}"


def test_files_stay_readable():
    long = {
        str(path.relative_to(PACKAGE)): count
        for path in FILES
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 320
    }
    assert not long
