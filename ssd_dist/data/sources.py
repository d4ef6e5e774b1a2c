"""Data sets that are fetched: by the URL of a zip or tar, or by a name that stands for one.

What was fetched lies unpacked in `datasets` in the cache's folder, under a name that stands for its
URL and checksum; every machine fetches it once, whichever process of it needs it first.
"""

from __future__ import annotations

import hashlib
import logging
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from ssd_dist.data.cache_folder import default_cache_dir
from ssd_dist.data.download import OnBytes, download
from ssd_dist.data.screen import Screen
from ssd_dist.data.signed_urls import publishable, unsigned
from ssd_dist.data.unpack import unpack
from ssd_dist.durable import new_folder

logger = logging.getLogger(__name__)

_CHECKSUM = re.compile(r"(?:sha256=[0-9a-fA-F]{64}|md5=[0-9a-fA-F]{32})")


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip or tar."""

    url: str
    checksum: str | None
    """`sha256=…` or `md5=…`; None: not known."""

    @property
    def shown(self) -> str:
        """What it is called in messages."""
        return publishable(self.url)


@dataclass(frozen=True, slots=True)
class Source:
    """Archives that together are a data set, unpacked into one folder."""

    archives: tuple[Archive, ...]
    git_trees: Mapping[str, str] | None = None
    """Folder in what is unpacked → the id that git gives to its content, whatever packed it."""

    @property
    def key(self) -> str:
        """Names the folder in the cache."""
        archives = tuple(replace(archive, url=unsigned(archive.url)) for archive in self.archives)
        digest = hashlib.blake2b(repr(archives).encode(), digest_size=6).hexdigest()
        name = Path(urllib.parse.urlsplit(self.archives[0].url).path).name
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name.partition(".")[0]).strip("-")
        return f"{stem[:40] or 'data'}-{digest}"


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_BCCD_COMMIT = "d272fb14cdff6e473fafeeeba32aba5f560e9e43"
NAMED: Mapping[str, Source] = {
    "VOC2007": Source(
        (
            Archive(
                f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
                "md5=c52e279531787c972589f7e41ab4ae64",
            ),
            Archive(
                f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar",
                "md5=b6e924de25625d8de591ea690078ad9f",
            ),
        )
    ),
    "VOC2012": Source(
        (
            Archive(
                f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
                "md5=6cd6e144f989b92b3379bac3b3de84fd",
            ),
        )
    ),
    # GitHub packs a commit anew when it is asked for, so its bytes are no constant; its files are.
    "BCCD": Source(
        (Archive(f"https://github.com/Shenggan/BCCD_Dataset/archive/{_BCCD_COMMIT}.zip", None),),
        git_trees={f"BCCD_Dataset-{_BCCD_COMMIT}/BCCD": "e4ad516b612329e16143e94f47a478d5832395d3"},
    ),
}
"""Data sets that have a name. VOC's checksums are those of torchvision."""


def is_remote(data: str) -> bool:
    """Whether `--data` names something to be fetched. A folder of that name comes first."""
    if data.startswith(("http://", "https://")):
        return True
    return data in NAMED and not Path(data).exists()


def source_of(data: str) -> Source:
    """What to fetch for `--data` that `is_remote`.

    Raises ValueError for a URL whose fragment is no checksum, one with a name or password, or with
    a space.
    """
    if data in NAMED:
        return NAMED[data]
    url, fragment = urllib.parse.urldefrag(data)
    parts = urllib.parse.urlsplit(url)
    if parts.username is not None:
        raise ValueError(
            f"a URL of {parts.hostname} with a name or password before @ can't be fetched: give a "
            "signed one, or a folder"
        )
    if any(character.isspace() for character in url):
        raise ValueError(f"{publishable(data)}: a URL has no spaces: write %20")
    if fragment and not _CHECKSUM.fullmatch(fragment):
        raise ValueError(
            f"{publishable(data)}: what follows # must be a checksum, sha256= and 64 hexadecimal "
            "digits or md5= and 32"
        )
    return Source((Archive(url, fragment or None),))


def local_folder(data: str, on_bytes: OnBytes | None = None) -> Path:
    """The folder with what `data` names, fetched and unpacked if it is not here yet.

    The folder appears when all is well; a fetch that was cut off goes on from where it was.

    Args:
        data: for which `is_remote` holds.
        on_bytes: progress of the downloads.

    Raises ValueError for a checksum that differs or an archive that is refused (see `unpack`),
    OSError where the network or the disk does not do it.
    """
    source = source_of(data)
    folder = _folder(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            _fetch(source, folder, on_bytes)
    return folder


def fetched_folder(data: str) -> Path | None:
    """The folder that :func:`local_folder` gives, if it is here already. Raises as `source_of`."""
    folder = _folder(source_of(data))
    return folder if folder.is_dir() else None


def _folder(source: Source) -> Path:
    return default_cache_dir() / "datasets" / source.key


def fetch_shown(data: str, screen: Screen) -> None:
    """Fetches what `--data` names, with a bar; nothing if it is here already, or a folder.

    Raises as `local_folder`.
    """
    if is_remote(data):
        with screen.bar("download"):
            local_folder(data, screen.advance)


def _fetch(source: Source, folder: Path, on_bytes: OnBytes | None) -> None:
    files = [folder.with_name(f"{folder.name}.{i}") for i in range(len(source.archives))]
    for file, archive in zip(files, source.archives, strict=True):
        if file.exists():  # whole: an earlier call ended after it
            continue
        sha256 = download(archive.url, file, archive.checksum, on_bytes)
        if archive.checksum is None and source.git_trees is None:
            logger.warning(
                "%s came without a checksum; to be sure that it is always the same, say "
                "%s#sha256=%s",
                archive.shown,
                archive.shown,
                sha256,
            )
    try:
        with new_folder(folder) as scratch:
            for file, archive in zip(files, source.archives, strict=True):
                unpack(file, scratch, archive.shown)
            for name, expected in (source.git_trees or {}).items():
                found = _git_tree(scratch / name) if (scratch / name).is_dir() else "not there"
                if found != expected:
                    url = source.archives[0].url
                    raise ValueError(
                        f"{url}: the content of {name} is {found} to git, not {expected}: it is "
                        "not what was asked for; nothing of it is kept"
                    )
    finally:
        # Whole or refused, they are of no more use; what was half unpacked is gone, too.
        for file in files:
            file.unlink(missing_ok=True)


def _git_tree(folder: Path) -> str:
    """The id of a folder's content in git, all of whose files are plain."""
    entries = []
    for path in folder.iterdir():
        if path.is_dir():
            entries.append((path.name.encode() + b"/", b"40000", _git_tree(path)))
        else:
            entries.append((path.name.encode(), b"100644", _git_id(b"blob", path.read_bytes())))
    lines = [
        mode + b" " + name.rstrip(b"/") + b"\0" + bytes.fromhex(identity)
        for name, mode, identity in sorted(entries)
    ]
    return _git_id(b"tree", b"".join(lines))


def _git_id(kind: bytes, content: bytes) -> str:
    header = kind + b" " + str(len(content)).encode() + b"\0"
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
