"""Who may ask a local page for what."""

from __future__ import annotations

import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pipeline.errors import InputError
from pipeline.pages.nifti import dense_labels, nifti_bytes
from pipeline.pages.security import check_host
from pipeline.pages.server import bound, page_routes
from tests.pages import PORT, TOKEN, client


def secret(_: Request) -> Response:
    return PlainTextResponse("the secret")


ROUTES = [Route("/", secret), Route("/answer", secret, methods=["POST"])]


def test_the_token_of_the_address_becomes_a_cookie_that_scripts_cannot_read() -> None:
    with client(ROUTES, token=None) as browser:
        assert browser.get("/").status_code == 403
        welcome = browser.get(f"/?token={TOKEN}&a=b")
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/?a=b")
        assert "HttpOnly" in welcome.headers["set-cookie"]
        assert browser.get("/").text == "the secret"


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", TOKEN[:-1], "ü"])
def test_a_wrong_token_opens_nothing(token: str) -> None:
    answer = client(ROUTES, token=None).get("/", params={"token": token})
    assert (answer.status_code, "secret" in answer.text, "set-cookie" in answer.headers) == (403, False, False)


def test_a_redirect_never_leaves_the_machine() -> None:
    answer = client(ROUTES, token=None).get(f"http://127.0.0.1:{PORT}//evil.example/?token={TOKEN}")
    assert answer.headers["location"] == "/evil.example/"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": f"localhost:{PORT}"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": f"127.0.0.1.evil.example:{PORT}"}, 421),
        ({"origin": f"http://127.0.0.1:{PORT}"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
    ],
)
def test_hosts_and_origins(headers: dict[str, str], status: int) -> None:
    assert client(ROUTES).get("/", headers=headers).status_code == status


def test_only_named_paths_take_writes_and_only_short_ones() -> None:
    assert client(ROUTES).post("/answer", content=b"1").status_code == 405
    allowed = client(ROUTES, writes=("/answer",))
    assert allowed.post("/answer", content=b"1").status_code == 200
    assert allowed.post("/answer", content=b"1" * 100_000).status_code == 413
    assert allowed.post("/answer", content=b"1", headers={"origin": "http://evil.example"}).status_code == 403
    assert allowed.put("/answer", content=b"1").status_code == 405
    unsaid = {"content-length": "1", "transfer-encoding": "chunked"}
    assert allowed.post("/answer", content=b"1", headers=unsaid).status_code == 413


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("192.168.1.7:80", 200), ("[fe80::1]:80", 200)])
def test_a_page_for_others_goes_by_numbers_and_its_own_names(host: str, status: int) -> None:
    answer = client(ROUTES, host="0.0.0.0").get("/", headers={"host": host})
    assert answer.status_code == status


def test_every_answer_forbids_foreign_content() -> None:
    for token in (TOKEN, "wrong"):
        headers = client(ROUTES, token=token).get("/").headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert not any(word in policy for word in ("unsafe", "http:", "https:", "*"))
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e/server.py", "/shared/..%2f__init__.py"])
def test_static_files_stay_in_their_folder(path: str, tmp_path: object) -> None:
    from pipeline.pages.server import SHARED_FILES

    page = SHARED_FILES / "niivue.LICENSE.txt"
    asked = client(page_routes(page, SHARED_FILES))
    assert asked.get("/static/niivue.LICENSE.txt").status_code == 200
    assert asked.get(path).status_code == 404


@pytest.mark.parametrize(
    ("host", "i_know", "fine"),
    [
        ("127.0.0.1", False, True),
        ("localhost", False, True),
        ("::1", False, True),
        ("0.0.0.0", False, False),
        ("192.168.0.5", False, False),
        ("0.0.0.0", True, True),
    ],
)
def test_other_addresses_need_a_word(host: str, i_know: bool, fine: bool) -> None:
    if fine:
        check_host(host, i_know)
    else:
        with pytest.raises(InputError, match="--i-know"):
            check_host(host, i_know)


def test_a_taken_port_is_named() -> None:
    with bound("127.0.0.1", 0) as first, pytest.raises(InputError, match="another --port"):
        bound("127.0.0.1", first.getsockname()[1])


def test_labels_are_numbered_without_gaps() -> None:
    label = np.array([0, 6, 2, 6, 5], np.uint8).reshape(5, 1, 1)
    dense, classes = dense_labels(label)
    assert classes == [0, 2, 5, 6]
    np.testing.assert_array_equal(np.array(classes)[dense], label)


def test_nifti_bytes_hold_array_and_affine() -> None:
    import gzip

    import nibabel as nib

    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 1000
    affine = np.array([[1.5, 0, 0, -7], [0, 2, 0, 3], [0, 0, 3, 11], [0, 0, 0, 1]])
    image = nib.Nifti1Image.from_bytes(gzip.decompress(nifti_bytes(data, affine, compress=True)))
    np.testing.assert_array_equal(np.asarray(image.dataobj), data)
    np.testing.assert_allclose(image.affine, affine)
    assert nifti_bytes(data, affine) == nifti_bytes(data, affine)
