"""deploy/requirements.lock: what pyproject.toml asks for, by version and checksum."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "deploy/requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
ASKED = [
    *PROJECT["project"]["dependencies"],
    *EXTRAS["pretrained"],
    *EXTRAS["postgresql"],
    *PROJECT["build-system"]["requires"],
]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", LOCK, re.MULTILINE))


@pytest.mark.parametrize("asked", ASKED)
def test_the_lock_has_what_is_asked_for(asked, pinned):
    requirement = Requirement(asked)
    assert requirement.specifier.contains(pinned[normalised(requirement.name)])


def test_everything_has_its_checksums(pinned):
    entry = r"^([a-z0-9-]+)==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert [found[1] for found in re.finditer(entry, LOCK, re.MULTILINE)] == list(pinned)
    lines = [line for line in LOCK.splitlines() if not line.lstrip().startswith(("#", "--hash="))]
    assert len(lines) == len(pinned) > len(ASKED)


def test_it_names_no_place_to_download_from():
    assert "://" not in LOCK
    assert not re.search(r"^\s*--(?!hash=)", LOCK, re.MULTILINE)


def test_the_image_installs_nothing_else():
    docker = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    locked, own = re.findall(r"^RUN pip install (.*)$", docker, re.MULTILINE)
    assert "--require-hashes --requirement /tmp/requirements.lock" in locked
    assert "COPY deploy/requirements.lock /tmp/requirements.lock" in docker
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(own.split())
    image = re.search(r"^FROM rayproject/ray:([\d.]+)-py311-", docker, re.MULTILINE)
    assert f"ray=={image[1]} " in LOCK
