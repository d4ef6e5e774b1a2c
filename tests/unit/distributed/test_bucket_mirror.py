import json
import re
import shutil
import sqlite3
import time

import pytest

from ssd_dist.distributed import mirror
from ssd_dist.distributed.buckets import BucketError, below, names_in, open_location
from ssd_dist.distributed.mirror import mirrored, place_at, place_in, pull
from ssd_dist.experiment import write_json


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The machine on which the mirror lies."""
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Goes on on a machine: `cache`, where the test begins, or another."""
    return lambda name: monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / name))


@pytest.fixture
def other_machine(machine):
    """Goes on on another machine, which has nothing but the bucket."""
    return lambda: machine("other")


def names_there(bucket):
    return set(names_in(*open_location(bucket)))


def content_of(place, name):
    filesystem, path = open_location(place.bucket)
    with filesystem.open_input_stream(f"{path}/{name}") as stream:
        return stream.read().decode()


def put(place, name, content):
    """As another machine does."""
    filesystem, path = open_location(place.bucket)
    with filesystem.open_output_stream(f"{path}/{name}") as stream:
        stream.write(content.encode())


def test_a_folder_is_only_itself(tmp_path):
    place = place_in(str(tmp_path), "a")
    assert place.folder == tmp_path / "a"
    assert place.bucket is None
    assert place.location == str(tmp_path / "a")
    with mirrored(place):
        pass
    assert not place.folder.exists()


@pytest.mark.parametrize("name", ["run#1", "run?1", "run 1", "50%", "Größe", "../a", "a//b", "a/."])
def test_names_that_no_uri_takes_are_refused(name, tmp_path):
    """run#1 and run#2 would both be `run`."""
    with pytest.raises(ValueError, match=f"--name {re.escape(repr(name))} can't be part of a buc"):
        place_in("s3://bucket/runs", name)
    assert place_in(str(tmp_path), name).folder == (tmp_path / name).resolve()


def test_names_that_a_uri_takes_mean_the_same_in_the_bucket(bucket):
    place = place_in(bucket, "team/a_b-1.2,lr=0.1+(x)")
    assert open_location(place.bucket)[1].endswith("/runs/team/a_b-1.2,lr=0.1+(x)")
    assert place.folder.name == "a_b-1.2,lr=0.1+(x)"


def test_what_a_job_leaves_is_in_the_bucket(bucket, other_machine):
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "experiment.json", {"kind": "train"})
        (place.folder / "best_checkpoint").mkdir()
        (place.folder / "best_checkpoint" / "weights").write_bytes(b"w")
        (place.folder / ".best.json.1234").write_text("half")
        (place.folder / "ray").mkdir()
        (place.folder / "ray" / "x").write_text("Ray's")
    whole = {"experiment.json", "best_checkpoint/weights", "mirror.id"}
    assert names_there(place.bucket) == whole
    other_machine()
    folder = pull(place.bucket)
    assert folder != place.folder
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == whole - {"mirror.id"}


def test_a_job_that_was_refused_leaves_nothing(bucket):
    place = place_in(bucket, "a")
    with pytest.raises(ValueError, match="no such data"), mirrored(place):
        raise ValueError("no such data")
    assert names_there(place.bucket) == set()
    assert not place.folder.exists()


def test_a_job_that_was_refused_takes_nothing_from_the_one_at_work(bucket, machine):
    """As when somebody forgets --resume on another machine, and looks at the experiment later."""
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "trials.json", [1])
        mirror._Mirror(place.folder, place.bucket).push()
        owner = content_of(place, "mirror.id")
        machine("other")
        with pytest.raises(FileExistsError), mirrored(place_at(place.bucket)):
            raise FileExistsError
        assert content_of(place, "mirror.id") == owner
        machine("cache")
        write_json(place.folder / "trials.json", [1, 2])
    machine("other")
    with mirrored(place_at(place.bucket), writes=False):
        seen = json.loads((place_at(place.bucket).folder / "trials.json").read_text())
    assert seen == json.loads(content_of(place, "trials.json")) == [1, 2]


def test_a_job_that_was_refused_leaves_a_note_that_came_after_its_own(bucket, machine):
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "trials.json", [1])
    machine("other")

    def refused():
        with mirrored(place_at(place.bucket)):
            put(place, "mirror.id", "a third machine's")
            raise FileExistsError

    with pytest.raises(FileExistsError):
        refused()
    assert content_of(place, "mirror.id") == "a third machine's"


def test_a_job_that_wrote_before_it_failed_is_the_last_that_did(bucket, machine):
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "trials.json", [1])
    machine("other")
    other = place_at(place.bucket)

    def failed():
        with mirrored(other):
            write_json(other.folder / "trials.json", [1, 2])
            raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        failed()
    assert json.loads(content_of(place, "trials.json")) == [1, 2]
    machine("cache")
    assert json.loads((pull(place.bucket) / "trials.json").read_text()) == [1, 2]


def test_who_only_adds_to_its_own_mirror_overwrites_nothing_either(bucket):
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "trials.json", [1])
    put(place, "trials.json", "[1, 2]")
    with mirrored(place, writes=False):
        write_json(place.folder / "report" / "report.json", {})
    assert content_of(place, "trials.json") == "[1, 2]"
    assert "report/report.json" in names_there(place.bucket)


def test_after_a_kill_the_same_machine_knows_best(bucket):
    """The driver died before its last files were copied."""
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "trials.json", [1])
    write_json(place.folder / "trials.json", [1, 2])
    with mirrored(place):
        assert (place.folder / "trials.json").read_text().split() == ["[", "1,", "2", "]"]
    assert (pull(place.bucket) / "trials.json").read_text().split() == ["[", "1,", "2", "]"]


def test_another_machine_goes_on_and_the_first_one_learns_of_it(bucket, other_machine, monkeypatch):
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "trials.json", [1])
        write_json(place.folder / "old.json", [1])
    first = mirror.default_cache_dir()
    other_machine()
    second = place_at(place.bucket)
    with mirrored(second):
        assert (second.folder / "trials.json").is_file()
        write_json(second.folder / "trials.json", [1, 2, 3])
    monkeypatch.setenv("SSD_DIST_CACHE", str(first))
    with mirrored(place):
        assert "3" in (place.folder / "trials.json").read_text()


def test_who_only_adds_a_report_overwrites_nothing(bucket, other_machine):
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "trials.json", [1])
        other_machine()
        with mirrored(place_at(place.bucket), writes=False):
            pass  # nothing pushed yet: nothing to read
        mirror._Mirror(place.folder, place.bucket).push()
        reader = place_at(place.bucket)
        with mirrored(reader, writes=False):
            write_json(place.folder / "trials.json", [1, 2])
            mirror._Mirror(place.folder, place.bucket).push()
            (reader.folder / "report").mkdir()
            write_json(reader.folder / "report" / "report.json", {})
    assert names_there(place.bucket) >= {"trials.json", "report/report.json"}
    assert "2" in content_of(place, "trials.json")


def test_a_database_in_use_is_copied_whole(bucket, other_machine):
    place = place_in(bucket, "a")
    with mirrored(place):
        file = place.folder / "study.db"
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE trials (n)")
        connection.execute("INSERT INTO trials VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO trials VALUES (2)")  # a transaction under way
    connection.close()
    other_machine()
    with sqlite3.connect(pull(place.bucket) / "study.db") as copy:
        assert copy.execute("SELECT n FROM trials").fetchall() == [(1,)]


def test_it_is_copied_while_the_job_runs(bucket, monkeypatch):
    monkeypatch.setattr(mirror, "PUSH_INTERVAL_S", 0.05)
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "experiment.json", {})
        end = time.monotonic() + 20
        while "experiment.json" not in names_there(place.bucket):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_rays_folder_is_not_copied_but_known(bucket, other_machine):
    """That it is there tells a resumed search that trials were started."""
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "experiment.json", {})
        filesystem, path = open_location(below(place.bucket, "ray"))
        with filesystem.open_output_stream(f"{path}/trial/checkpoint") as stream:
            stream.write(b"large")
    other_machine()
    folder = pull(place.bucket)
    assert (folder / "ray").is_dir()
    assert not list((folder / "ray").iterdir())


def test_an_emptied_bucket_empties_the_mirror(bucket):
    place = place_in(bucket, "a")
    with mirrored(place):
        write_json(place.folder / "experiment.json", {})
    filesystem, path = open_location(place.bucket)
    filesystem.delete_dir(path)
    assert not pull(place.bucket).exists()


def test_a_bucket_that_is_not_there(bucket):
    absent = bucket.replace(bucket.removeprefix("s3://").split("/")[0], "absent-bucket")
    with (
        pytest.raises(BucketError, match=r"absent-bucket.*can't be used: AWS Error NO_SUCH_BUCKET"),
        mirrored(place_in(absent, "a")),
    ):
        pytest.fail("the job was started")


def test_a_bucket_lost_meanwhile_costs_nothing(bucket, monkeypatch):
    place = place_in(bucket, "a")

    def full(self, name, content):
        raise OSError("AWS Error ACCESS_DENIED during PutObject operation: quota")

    def job():
        with mirrored(place):
            write_json(place.folder / "best.json", {"x": 1})
            monkeypatch.setattr(mirror._Mirror, "_write", full)

    with pytest.raises(BucketError, match=r"ACCESS_DENIED.*what it lacks lies in "):
        job()
    monkeypatch.undo()
    assert (place.folder / "best.json").is_file()
    shutil.rmtree(place.folder)
