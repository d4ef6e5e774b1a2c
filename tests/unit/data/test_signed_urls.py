"""URLs with the right to fetch in them: no file has it, and it is no part of the name."""

from __future__ import annotations

import json
import logging

import pytest

from ssd_dist.config import Config
from ssd_dist.data.signed_urls import publishable, unsigned
from ssd_dist.data.sources import fetched_folder, source_of
from ssd_dist.experiment import check_start, start_experiment

URL = "https://host/d/data.zip"
SIGNED = {
    "s3": "?X-Amz-Algorithm=A&X-Amz-Credential=me%2F1&X-Amz-Expires=60&X-Amz-Signature=5e",
    "s3, version 2": "?AWSAccessKeyId=me&Signature=5e%3D&Expires=1700000000",
    "cloudfront": "?Expires=17&Signature=5e&Key-Pair-Id=me&Policy=any",
    "gcs": "?X-Goog-Algorithm=A&X-Goog-Credential=me&X-Goog-Signature=5e",
    "azure": "?sv=2024-11-04&se=2026-12-01&sr=b&sp=r&skoid=1&saoid=2&sig=5e%3D",
    "oss": "?OSSAccessKeyId=me&Expires=17&Signature=5e&security-token=any",
    "oss, version 4": "?x-oss-credential=me&x-oss-signature=5e&x-oss-expires=60",
    "escaped": "?X%2DAmz%2DSignature=5e",
}
PLAIN = [
    "", "?download=1", "?id=5&se=1", "?id=5#sha256=" + 64 * "a", "?empty=&x",
    "?policy=a&expires=never", "?x-oss-process=zip,a",
]  # fmt: skip
SECRET = [
    "token", "access_token", "api_key", "apikey", "password", "rlkey", "key", "Authorization",
    "tempauth", "hdnts", "q-signature", "jwt", "access_key",
]  # fmt: skip


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
@pytest.mark.parametrize("fragment", ["", "#sha256=" + 64 * "a"])
def test_a_signature_is_no_part_of_the_name(query, fragment):
    assert unsigned(URL + query + fragment) == publishable(URL + query + fragment) == URL + fragment
    kept = URL + "?id=5&" + query[1:]
    assert unsigned(kept) == URL + "?id=5"
    assert source_of(URL + query + fragment).key == source_of(URL + fragment).key


@pytest.mark.parametrize("query", PLAIN)
def test_all_else_stays(query):
    assert unsigned(URL + query) == publishable(URL + query) == URL + query


@pytest.mark.parametrize("data", ["/data/a?token=5", "BCCD", "synthetic", "a.zip?sig=1"])
def test_what_is_no_url_stays(data):
    assert unsigned(data) == publishable(data) == data


@pytest.mark.parametrize("name", SECRET)
def test_other_secrets_are_not_written_but_may_tell_files_apart(name):
    one, other = f"{URL}?{name}=one", f"{URL}?{name}=other"
    assert publishable(one) == publishable(other) == URL
    assert source_of(one).key != source_of(other).key


def test_an_experiment_goes_on_with_a_new_signature(tmp_path):
    start_experiment(tmp_path, "train", Config(), URL + SIGNED["s3"])
    written = json.loads((tmp_path / "experiment.json").read_text(encoding="utf-8"))
    assert written["data"] == URL
    again = URL + SIGNED["s3"].replace("5e", "6f")
    check_start(tmp_path, "train", Config(), again, resume=True)
    with pytest.raises(ValueError, match="started otherwise"):
        check_start(tmp_path, "train", Config(), "https://host/other.zip", resume=True)


def test_messages_have_no_signature(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="checksum") as error, caplog.at_level(logging.WARNING):
        source_of(f"{URL}{SIGNED['s3']}#sha256=5")
    assert "Signature" not in str(error.value)
    assert fetched_folder(URL + SIGNED["s3"]) is None


@pytest.mark.parametrize("before", ["me:hunter2@", "hunter2@", ":hunter2@"])
def test_a_password_is_refused_and_not_told(before):
    with pytest.raises(ValueError, match="name or password before @") as error:
        source_of(f"https://{before}host/data.zip")
    assert "hunter2" not in str(error.value)


def test_a_space_is_refused_before_anything_is_fetched():
    with pytest.raises(ValueError, match="write %20") as error:
        source_of("https://host/my data.zip" + SIGNED["s3"])
    assert "5e" not in str(error.value)
