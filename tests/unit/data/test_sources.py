"""Data sets by URL, from a server on this machine: whole, or not there at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from formats import SPLITS, WRITE

from ssd_dist.config import Config
from ssd_dist.data import download as download_module
from ssd_dist.data import sources, unpack
from ssd_dist.data.__main__ import run
from ssd_dist.data.readers import open_split
from ssd_dist.experiment import anchored


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        content = server.files.get(self.path)
        server.requests.append(dict(self.headers))
        if content is None:
            self.send_error(404)
            return
        tag = '"' + hashlib.md5(content).hexdigest() + '"'
        start = 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.headers.get("If-Range") == tag and server.knows_ranges:
            start = int(asked[1])
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", tag)
        self.end_headers()
        part = content[start:]
        if server.cut_after:
            part = part[: server.cut_after.pop(0)]
        self.wfile.write(part)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves `files` (path → content) at `url`; cuts answers off after the bytes in `cut_after`."""
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download_module, "_FIRST_PAUSE_S", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.files, server.requests, server.cut_after = {}, [], []
        server.knows_ranges = True
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root/VOCdevkit/mine"
    WRITE["voc"](folder, SPLITS)
    return tmp_path / "root"


def packed(root, kind):
    """The folder's content as an archive."""
    base = root.parent / f"packed-{kind}"
    return open(shutil.make_archive(str(base), kind, root), "rb").read()  # noqa: PTH123


def left(tmp_path):
    """What is in the cache, but for locks."""
    folder = tmp_path / "cache/datasets"
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def sha256(content):
    return "sha256=" + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar"])
def test_archives_of_every_kind(server, root, tmp_path, kind):
    content = packed(root, kind)
    server.files["/d/data.bin"] = content
    data = f"{server.url}/d/data.bin#{sha256(content)}"
    opened = open_split(data, "train")
    local = open_split(root / "VOCdevkit/mine", "train")
    assert len(opened.annotations) == len(local.annotations) == 4
    assert (opened.read_image(0) == local.read_image(0)).all()
    assert len(server.requests) == 1
    assert open_split(data, "val").annotations  # from the cache
    assert len(server.requests) == 1
    assert len(left(tmp_path)) == 1


def test_every_machine_gives_the_same_fingerprint(server, root, monkeypatch, tmp_path):
    server.files["/d.zip"] = packed(root, "zip")
    first = open_split(f"{server.url}/d.zip", "train").fingerprint
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "elsewhere"))
    assert open_split(f"{server.url}/d.zip", "train").fingerprint == first


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_checksum_that_differs(server, root, tmp_path, kind):
    server.files["/d.zip"] = packed(root, "zip")
    wrong = "0" * (64 if kind == "sha256" else 32)
    with pytest.raises(ValueError, match=rf"d\.zip: its {kind} is [0-9a-f]+, not 0+: it is") as e:
        open_split(f"{server.url}/d.zip#{kind}={wrong}", "train")
    assert "\n" not in str(e.value)
    assert left(tmp_path) == []


def test_checksum_that_is_none(server):
    with pytest.raises(ValueError, match="what follows # must be a checksum"):
        open_split(f"{server.url}/d.zip#sha256=12", "train")
    assert server.requests == []


def test_without_a_checksum_the_right_one_is_told(server, root, caplog):
    server.files["/d.zip"] = packed(root, "zip")
    open_split(f"{server.url}/d.zip", "train")
    assert sha256(server.files["/d.zip"]) in caplog.text


def test_connection_that_ends_early_is_taken_up(server, root):
    content = server.files["/d.tar"] = packed(root, "tar")
    server.cut_after = [1000, 5000]
    assert open_split(f"{server.url}/d.tar#{sha256(content)}", "train").annotations
    assert [each.get("Range") for each in server.requests] == [None, "bytes=1000-", "bytes=6000-"]


def test_a_call_that_was_cut_off_is_taken_up(server, root, tmp_path):
    content = server.files["/d.tar"] = packed(root, "tar")
    server.cut_after = [100] * 5
    data = f"{server.url}/d.tar#{sha256(content)}"
    with pytest.raises(OSError, match=r"in 5 attempts: the connection ended after 500 of .* kept"):
        open_split(data, "train")
    assert any(name.endswith(".part") for name in left(tmp_path))
    assert open_split(data, "train").annotations
    assert server.requests[-1]["Range"] == "bytes=500-"
    assert len(left(tmp_path)) == 1


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server, root, knows_ranges):
    old, new = packed(root, "gztar"), packed(root, "tar")
    data = f"{server.url}/d#{sha256(new)}"
    server.files["/d"] = old
    server.cut_after = [50] * 5
    with pytest.raises(OSError, match=r"not to be fetched.*; the [1-9][\d,]* bytes .* are kept"):
        open_split(data, "train")
    server.files["/d"], server.knows_ranges = new, knows_ranges
    assert open_split(data, "train").annotations


def test_server_that_does_not_have_it(server, tmp_path):
    with pytest.raises(OSError, match=r"no\.zip: the server answers 404 Not Found"):
        open_split(f"{server.url}/no.zip", "train")
    assert left(tmp_path) == []


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download_module, "_FIRST_PAUSE_S", 0.0)
    # Nothing has come, so nothing is said to be kept.
    with pytest.raises(OSError, match=r"not to be fetched in 5 attempts: .*refused$"):
        open_split("http://127.0.0.1:9/d.zip", "train")


def zip_of(*members):
    """(name or ZipInfo, content) of each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(*members):
    """(name, content) of each, or a TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def zip_link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def tar_entry(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


BAD = {
    "zip ..": (zip_of(("a/../../x", b"1")), r"'a/\.\./\.\./x' in it, which leads out"),
    "zip absolute": (zip_of(("/etc/x", b"1")), "'/etc/x' in it, which leads out"),
    "zip backslash": (zip_of(("..\\x", b"1")), "leads out"),
    "zip drive": (zip_of(("C:/x", b"1")), "leads out"),
    "zip folder": (zip_of(("../x/", b"")), "leads out"),
    "zip link": (zip_of((zip_link("l"), b"/etc")), "has a link or a device in it, 'l'"),
    "tar ..": (tar_of(("../x", b"1")), r"'\.\./x' in it, which leads out"),
    "tar absolute": (tar_of(("/x", b"1")), "leads out"),
    "tar folder": (tar_of(tar_entry("../x", tarfile.DIRTYPE)), "leads out"),
    "tar link": (tar_of(tar_entry("l", tarfile.SYMTYPE, "/etc")), "has a link"),
    "tar inner link": (tar_of(("a", b"1"), tar_entry("l", tarfile.LNKTYPE, "a")), "has a link"),
    "tar device": (tar_of(tar_entry("d", tarfile.CHRTYPE)), "has a link or a device"),
    "tar pipe": (tar_of(tar_entry("p", tarfile.FIFOTYPE)), "has a link or a device"),
    "file and folder": (tar_of(("a", b"1"), ("a/b", b"1")), "as a file and as a folder"),
    "cut zip": (zip_of(("a", b"1" * 999))[:-30], "not a whole zip or tar"),
    "cut gzip": (gzip.compress(tar_of(("a", os.urandom(9999))))[:-900], "not a whole zip or tar"),
    "cut tar": (tar_of(("a", b"1" * 9999))[:5000], "not a whole zip or tar|is cut short"),
    "no archive": (b"<html>sign in</html>" * 99, "not a whole zip or tar"),
    "nothing": (b"", "not a whole zip or tar"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_archive_leaves_nothing(server, tmp_path, name):
    server.files["/d"], message = BAD[name]
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=rf"/d: .*(?:{message})") as error:
        open_split(f"{server.url}/d", "train")
    assert "\n" not in str(error.value)
    assert left(tmp_path) == []
    new = {path.name for path in set(tmp_path.rglob("*")) - before}
    assert not new & {"x", "l", "a", "b"}


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "_ALWAYS_ALLOWED", 10_000_000)
    zeros = bytes(50_000_000)
    monkeypatch.setattr(unpack, "MAX_RATIO", 100)
    for i, content in enumerate((zip_of(("a", zeros)), gzip.compress(tar_of(("a", zeros))))):
        path = tmp_path / str(i)
        path.write_bytes(content)
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="swells to more than"):
            unpack.unpack(path, tmp_path / "out", "bomb")
        assert not list((tmp_path / "out").iterdir())


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    """A name of 50 MB, which shrinks to nothing."""
    info = tarfile.TarInfo("a")
    info.pax_headers = {"path": "a" * 50_000_000}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(buffer.getvalue()))
    with pytest.raises(ValueError, match="a header of gigabytes"):
        unpack.unpack(path, tmp_path, "bomb")


def test_git_trees_stand_in_for_a_checksum(server, root, monkeypatch, tmp_path):
    """As for BCCD: the files of a commit, however its zip was packed."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("no git")
    folder = root / "VOCdevkit"
    index = {**os.environ, "GIT_DIR": str(tmp_path / "git")}
    for command in (["init", "-q"], ["--work-tree", str(folder), "add", "-A"]):
        subprocess.run([git, *command], env=index, cwd=folder, check=True, capture_output=True)
    tree = subprocess.run(
        [git, "write-tree"], env=index, check=True, capture_output=True, text=True
    ).stdout.strip()
    server.files["/d.zip"] = packed(root, "zip")
    archives = (sources.Archive(f"{server.url}/d.zip", None),)
    named = {
        "RIGHT": sources.Source(archives, {"VOCdevkit": tree}),
        "WRONG": sources.Source(archives, {"VOCdevkit": "0" * 40}),
        "ABSENT": sources.Source(archives, {"other": tree}),
    }
    monkeypatch.setattr(sources, "NAMED", named)
    for name in ("WRONG", "ABSENT"):
        with pytest.raises(ValueError, match="it is not what was asked for; nothing of it is kept"):
            open_split(name, "train")
        assert left(tmp_path) == []
    assert open_split("RIGHT", "train").annotations


def test_two_archives_make_one_data_set(server, root, tmp_path, monkeypatch):
    """As those of VOC2007."""
    test = tmp_path / "test"
    WRITE["voc"](test / "VOCdevkit/mine", {"test": {"t": [("bee", 1, 1, 5, 5)]}})
    contents = packed(root, "tar"), shutil.make_archive(str(tmp_path / "test"), "tar", test)
    server.files["/a"] = contents[0]
    server.files["/b"] = (tmp_path / "test.tar").read_bytes()
    archives = tuple(sources.Archive(f"{server.url}/{name}", None) for name in "ab")
    monkeypatch.setattr(sources, "NAMED", {"TWO": sources.Source(archives)})
    assert open_split("TWO", "test").class_names == ("ant", "bee")
    assert len(open_split("TWO", "train").annotations) == 4


def test_names_are_known_and_have_checksums():
    assert set(sources.NAMED) == {"VOC2007", "VOC2012", "BCCD"}
    for source in sources.NAMED.values():
        assert source.git_trees or all(archive.checksum for archive in source.archives)
        for archive in source.archives:
            assert archive.checksum is None or sources._CHECKSUM.fullmatch(archive.checksum)
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    known = {f"md5={each['md5']}" for each in DATASET_YEAR_DICT.values()}
    for name in ("VOC2007", "VOC2012"):
        assert {archive.checksum for archive in sources.NAMED[name].archives} <= known


def test_a_folder_of_that_name_comes_first(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root / "VOCdevkit/mine", tmp_path / "BCCD")
    assert len(open_split("BCCD", "train").annotations) == 4
    assert anchored(Config(), "BCCD")[1] == str(tmp_path / "BCCD")
    shutil.rmtree(tmp_path / "BCCD")
    for data in ("BCCD", "https://host/d.zip#md5=1", "synthetic"):
        assert anchored(Config(), data)[1] == data


def test_commands_take_urls(server, root, capsys):
    content = server.files["/d.zip"] = packed(root, "zip")
    assert run(["check", f"{server.url}/d.zip#{sha256(content)}", "--no-coverage"]) == 0
    assert "no problems" in capsys.readouterr().out
    assert run(["check", f"{server.url}/e.zip", "--no-coverage"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_archive_without_a_data_set(server, tmp_path):
    server.files["/d.zip"] = zip_of(("readme.txt", b"no data"))
    with pytest.raises(ValueError, match="holds no data set"):
        open_split(f"{server.url}/d.zip", "train")


def test_signed_url_is_fetched_once_and_its_signature_told_nowhere(server, root, caplog):
    signed = ["?X-Amz-Signature=5e5e", "?X-Amz-Signature=6f6f"]
    for query in signed:
        server.files[f"/d.zip{query}"] = packed(root, "zip")
        assert len(open_split(f"{server.url}/d.zip{query}", "train").annotations) == 4
    assert len(server.requests) == 1
    with pytest.raises(OSError, match="404") as error:
        open_split(f"{server.url}/e.zip{signed[0]}", "train")
    assert "5e5e" not in str(error.value) + caplog.text


def test_a_check_tells_no_signature(server, root, tmp_path, capsys):
    query = "?X-Amz-Signature=5e5e"
    server.files[f"/d.zip{query}"] = packed(root, "zip")
    written = tmp_path / "check.json"
    url = f"{server.url}/d.zip"
    assert run(["check", url + query, "--no-coverage", "--json", str(written)]) == 0
    assert f"{url}\n" in capsys.readouterr().out
    assert json.loads(written.read_text(encoding="utf-8"))["data"] == url
