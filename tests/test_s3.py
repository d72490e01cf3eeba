"""The S3 store when things go wrong: lost answers, outages, wrong settings, abandoned uploads."""

from __future__ import annotations

import errno
import multiprocessing
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import Connection

import boto3
import pytest

from pipeline import s3_client
from pipeline.errors import InputError
from pipeline.s3 import S3Store
from pipeline.s3_client import NoAnswerError
from pipeline.s3_pulse import PULSE
from tests.command import run
from tests.faulty_proxy import FaultyProxy, faulty_proxy, retry_at_once
from tests.s3_server import BUCKET, S3Server


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between all clients and the server; pauses between tries are as good as none."""
    retry_at_once(monkeypatch)
    with faulty_proxy(s3.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


@pytest.fixture
def store(proxy: FaultyProxy, s3_url: str) -> S3Store:
    """A store that has answered before, and whose endpoint is known to honour conditions."""
    store = S3Store(s3_url)
    assert store.create("first", b"")
    proxy.requests.clear()
    return store


def uploads(prefix: str) -> list[str]:
    listing = boto3.client("s3").list_multipart_uploads(Bucket=BUCKET)
    return [upload["Key"] for upload in listing.get("Uploads", []) if prefix in upload["Key"]]


# ---- the commit ----

FAULTS = [
    [503],
    [500, 503, 500],
    ["drop"],
    ["lose"],
    ["lose", "lose"],
    [503, "lose", 500],
    [409],
    ["drop", 409, "lose"],
]


@pytest.mark.parametrize("faults", FAULTS, ids=lambda faults: "-".join(map(str, faults)))
def test_a_create_survives_faults_and_happens_once(proxy: FaultyProxy, store: S3Store, faults: list[int | str]) -> None:
    proxy.script("PUT", "commit", *faults)
    assert store.create("commit", b"mine")
    assert proxy.used_up
    assert not store.create("commit", b"another's")
    assert store.read("commit") == b"mine"


def test_a_create_loses_to_one_that_came_while_its_answers_were_lost(
    proxy: FaultyProxy, store: S3Store, s3_url: str
) -> None:
    assert S3Store(s3_url).create("commit", b"another's")
    proxy.script("PUT", "commit", 500, "lose", 409)
    assert not store.create("commit", b"mine")
    assert store.read("commit") == b"another's"


def test_one_of_many_creates_while_answers_are_lost(proxy: FaultyProxy, s3_url: str) -> None:
    stores = [S3Store(s3_url) for _ in range(6)]
    for one in stores:
        one.exists("x")
    proxy.script("PUT", "commit", "lose", 500, "drop", "lose", 503)
    won: dict[int, bool] = {}
    threads = [
        threading.Thread(target=lambda k=k, one=one: won.update({k: one.create("commit", b"%d" % k)}))
        for k, one in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = int(stores[0].read("commit"))
    assert won == {k: k == winner for k in range(6)}


def test_an_endpoint_that_ignores_the_condition_is_refused(proxy: FaultyProxy, s3_url: str) -> None:
    proxy.script("PUT", "commit", "blind", "blind")
    with pytest.raises(InputError, match="If-None-Match"):
        S3Store(s3_url).create("commit", b"mine")


def test_the_condition_is_tried_out_once(proxy: FaultyProxy, s3_url: str) -> None:
    store = S3Store(s3_url)
    for k in range(3):
        store.create(f"commit-{k}", b"")
    assert proxy.count("PUT") == 4


# ---- faults of everything else ----


@pytest.mark.parametrize("fault", [500, 503, "drop", "lose"])
def test_every_operation_survives_a_fault(proxy: FaultyProxy, store: S3Store, fault: int | str) -> None:
    for method, part in (("PUT", "/a"), ("GET", "/a"), ("HEAD", "/a"), ("POST", "delete"), ("GET", "list-type")):
        proxy.script(method, part, fault)
    store.replace("a", b"0123")
    assert store.read("a") == b"0123"
    assert store.size("a") == 4
    store.remove(["a"])
    assert [entry.key for entry in store.entries()] == ["first"]
    assert proxy.used_up


@pytest.mark.parametrize("fault", [500, "drop", "lose"])
def test_an_upload_in_parts_survives_faults(proxy: FaultyProxy, store: S3Store, fault: int | str) -> None:
    proxy.script("POST", "uploads", fault)
    proxy.script("PUT", "partNumber=2", fault)
    proxy.script("POST", "uploadId", fault)
    writer = store.writer("object")
    pieces = [bytes([k]) * 5_000_000 for k in range(4)]
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    assert proxy.used_up
    assert store.read("object") == b"".join(pieces)


def test_a_download_that_breaks_off_goes_on(proxy: FaultyProxy, store: S3Store) -> None:
    data = bytes(range(256)) * 4096
    store.replace("object", data)
    proxy.script("GET", "object", "cut", "cut")
    assert store.read("object") == data
    assert proxy.used_up


def test_answers_that_are_cut_short_are_asked_for_again(proxy: FaultyProxy, store: S3Store) -> None:
    proxy.script("GET", "list-type", "cut", "cut")
    assert [entry.key for entry in store.entries()] == ["first"]
    proxy.script("GET", "delimiter", "cut")
    assert store.groups("a") == []
    proxy.script("POST", "delete", "cut")
    store.remove(["first"])
    assert proxy.used_up
    assert list(store.entries()) == []


def test_a_request_that_hangs_is_tried_again(proxy: FaultyProxy, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "_LIMIT_S", 0.5)
    store = S3Store(s3_url)
    store.create("a", b"x")
    proxy.script("GET", "/a", "hang")
    assert store.read("a") == b"x"


def test_an_outage_ends_in_an_error_of_the_disk_kind(
    proxy: FaultyProxy, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "_PATIENT", s3_client._PATIENT | {"max_retries": 3})
    store = S3Store(s3_url)
    store.create("a", b"x")
    proxy.script("GET", "/a", *[503] * 20)
    with pytest.raises(OSError, match="answers 503") as raised:
        store.read("a")
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, f"{s3_url}/a")


def test_a_store_that_was_waited_for_in_vain_is_not_waited_for_again_before_it_answers(
    proxy: FaultyProxy, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "_PATIENT", s3_client._PATIENT | {"max_retries": 20})
    store = S3Store(s3_url)
    store.create("a", b"x")
    asked = []
    for _ in range(2):
        proxy.requests.clear()
        proxy.faults[:] = [("GET", "/a", [503] * 100)]
        with pytest.raises(NoAnswerError, match="answers 503"):
            store.read("a")
        asked.append(proxy.count("GET"))
        assert PULSE.silence_s() > 0
    assert asked[0] > 20
    assert asked[1] <= 4
    proxy.faults.clear()
    assert store.read("a") == b"x"
    assert PULSE.silence_s() == 0
    proxy.script("GET", "/a", *[503] * 10)
    assert store.read("a") == b"x"  # waited for again


@pytest.mark.parametrize(("fault", "kind"), [(400, OSError), (403, PermissionError)])
def test_a_no_is_an_answer(proxy: FaultyProxy, store: S3Store, fault: int, kind: type[OSError]) -> None:
    proxy.script("GET", "/first", fault)
    with pytest.raises(kind) as raised:
        store.read("first")
    assert not isinstance(raised.value, NoAnswerError)
    assert PULSE.silence_s() == 0


def test_an_open_object_that_is_replaced_is_not_read_on(store: S3Store) -> None:
    store.replace("table", bytes(10_000_000))
    with store.open("table") as file:
        assert len(file.read(100)) == 100
        store.replace("table", bytes(10_000_001))
        file.seek(9_000_000)
        with pytest.raises(OSError, match="replaced since it was opened"):
            file.read(1)


def test_an_outage_is_not_sat_out_again_and_again(
    proxy: FaultyProxy, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.s3._OUTAGE_S", -1.0)
    proxy.script("PUT", "commit", 409)
    with pytest.raises(OSError, match="not created") as raised:
        store.create("commit", b"mine")
    assert raised.value.errno == errno.EIO
    assert proxy.count("PUT") == 1


# ---- uploads ----


def test_an_abandoned_upload_is_taken_back(store: S3Store, s3_url: str) -> None:
    writer = store.writer("object")
    for _ in range(3):
        writer.write(bytes(6_000_000))
    prefix = s3_url.rpartition("/")[2]
    assert uploads(prefix) == [f"{prefix}/object"]
    writer.abandon()
    assert uploads(prefix) == []
    assert not store.exists("object")


def test_abandoning_during_an_outage_says_nothing(proxy: FaultyProxy, store: S3Store) -> None:
    writer = store.writer("object")
    writer.write(bytes(9_000_000))
    proxy.script("DELETE", "uploadId", 403)
    writer.abandon()
    assert not store.exists("object")


# ---- places and settings ----


def test_keys_are_what_other_tools_see(s3: S3Server) -> None:
    place = f"{s3.new_url()}/two words/ü+1%20~#"
    store = S3Store(place)
    store.create("cases/a.b_c-1.zarr/ct/c/0", b"x")
    key = place.removeprefix(f"s3://{BUCKET}/") + "/cases/a.b_c-1.zarr/ct/c/0"
    assert boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"x"
    assert [entry.key for entry in store.entries()] == ["cases/a.b_c-1.zarr/ct/c/0"]
    assert store.groups("cases") == ["a.b_c-1.zarr"]


@pytest.mark.parametrize("url", ["s3:///prefix", "s3://bucket/../x", "s3://bucket/a//b", "s3://bucket/a/./b"])
def test_a_place_is_a_bucket_and_a_prefix(s3: S3Server, url: str) -> None:
    with pytest.raises(InputError, match="give s3://bucket/prefix"):
        S3Store(url)


def test_slashes_at_the_end_do_not_matter(s3_url: str) -> None:
    assert S3Store(f"{s3_url}//").url == s3_url
    assert S3Store("s3://bucket/").url == "s3://bucket"


def test_a_missing_bucket_is_named(s3: S3Server) -> None:
    store = S3Store("s3://nobucket/x")
    for access in (lambda: store.read("a"), lambda: list(store.entries()), lambda: store.create("a", b"")):
        with pytest.raises(InputError, match="s3://nobucket: there is no such bucket at http"):
            access()


@pytest.mark.parametrize("status", [401, 403])
def test_denied_access_is_said(proxy: FaultyProxy, store: S3Store, status: int) -> None:
    proxy.script("GET", "", status)
    with pytest.raises(PermissionError, match=rf"access denied: the object store answers {status}"):
        store.read("first")
    assert proxy.count("GET") == 1


def test_an_endpoint_is_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL_S3=minio:9000: give a URL"):
        S3Store("s3://bucket/x")


def test_credentials_of_a_profile_are_used_where_boto3_is(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("aws")
    (home / "credentials").write_text("[lab]\naws_access_key_id = profile-key\naws_secret_access_key = secret\n")
    (home / "config").write_text("[profile lab]\nregion = eu-central-1\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "config"))
    identity = s3_client._identity()
    assert identity["region"] == "eu-central-1"
    assert identity["credential_provider"]()["access_key_id"] == "profile-key"
    assert S3Store(s3_url).create("a", b"x")


# ---- other processes ----


def tell_what_is_read(store: S3Store, teller: Connection) -> None:
    try:
        teller.send(store.read("a"))
    except InputError as error:
        teller.send(str(error))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_forked_process_is_refused_at_once_and_a_spawned_one_is_not(s3_url: str, start: str) -> None:
    store = S3Store(s3_url)
    store.create("a", b"x")
    listener, teller = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context(start).Process(target=tell_what_is_read, args=(store, teller))
    process.start()
    try:
        assert listener.poll(5 if start == "fork" else 60), "it hangs"
        said = listener.recv()
    finally:
        process.kill()
        process.join()
    if start == "spawn":
        assert said == b"x"
    else:
        assert said.startswith(f"{s3_url}: this process was forked from one that used S3")
        assert "multiprocessing_context='spawn'" in said


# ---- what a user reads ----


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("verb", ["inspect", "status", "verify"])
def test_a_verb_says_in_one_line_that_there_is_no_bucket(
    s3: S3Server, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    code, out, error = run(capsys, verb, "s3://nobucket/x")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "s3://nobucket: there is no such bucket" in error


def test_a_verb_says_in_one_line_and_soon_that_the_endpoint_is_away(
    s3: S3Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    code, out, error = run(capsys, "inspect", "s3://bucket/x")
    assert (code in (1, 2), out, error.count("\n")) == (True, "", 1)
    assert f"{endpoint} cannot be reached: Connection refused" in error


def test_a_verb_says_in_one_line_that_credentials_are_missing(
    s3: S3Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy("http://127.0.0.1:1") as role_server:  # in the place of the machine's metadata service
        role_server.script("PUT", "", 403)
        monkeypatch.setattr(s3_client, "_ROLE_SERVER", role_server.endpoint)
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", role_server.endpoint)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        code, out, error = run(capsys, "inspect", "s3://bucket/x")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "no credentials. Set AWS_ACCESS_KEY_ID" in error


def test_an_endpoint_that_never_answered_is_not_waited_for(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_client._HASTY["retry_timeout"] <= timedelta(seconds=10) < s3_client._PATIENT["retry_timeout"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = S3Store("s3://bucket/x")
    with pytest.raises(OSError, match="cannot be reached"):
        store.create("a", b"x")
    with pytest.raises(OSError, match="cannot be reached"):
        store.remove(["a"])
