"""What `ray job submit --working-dir .` sends: packed as Ray does it, without starting one."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed

ROOT = Path(__file__).parents[2]
MOST_BYTES = 2_000_000
PLANTED = [
    ".git/objects/pack/pack-1.pack",
    ".venv/lib/libtorch.so",
    "runs/search/study.db",
    "runs/search/ray/checkpoint_000001/model.safetensors",
    "ssd_dist.egg-info/SOURCES.txt",
    "ssd_dist/__pycache__/config.cpython-311.pyc",
    ".mypy_cache/3.11/cache.db",
    ".hypothesis/examples/one",
    "build/lib/ssd_dist/config.py",
]


def project_files():
    """Those of a clone, and new ones that git would take."""
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no checkout")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone in which work was done: a virtual environment, caches, experiments."""
    folder = tmp_path_factory.mktemp("clone")
    for name in project_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    for name in PLANTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(MOST_BYTES))  # can't be compressed
    return folder


@pytest.mark.parametrize("with_gitignore", [True, False])
def test_the_upload_is_small_and_whole(with_gitignore, clone, tmp_path):
    """.rayignore alone is enough: Ray can be told to leave .gitignore aside."""
    package = tmp_path / "package.zip"

    def upload(working_dir, excludes):
        create_package(working_dir, package, include_gitignore=with_gitignore, excludes=excludes)

    upload_working_dir_if_needed(
        {"working_dir": str(clone)}, include_gitignore=with_gitignore, upload_fn=upload
    )
    with zipfile.ZipFile(package) as archive:
        sent = {name for name in archive.namelist() if not name.endswith("/")}
    assert package.stat().st_size < MOST_BYTES
    assert sent.isdisjoint(PLANTED)
    folders = ("ssd_dist/", "jobs/", "configs/")
    assert {name for name in project_files() if name.startswith(folders)} <= sent
    assert not [
        name for name in sent if name.startswith(("tests/", "docs/", "benchmarks/", "deploy/"))
    ]
