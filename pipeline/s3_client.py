"""The S3 client underneath `pipeline.s3`: how to reach a bucket, and what its failures mean in plain words.

Credentials, region and endpoint come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
AWS_REGION, AWS_ENDPOINT_URL), else from boto3 where it is installed (profiles, SSO), else from the machine's role.
"""

from __future__ import annotations

import errno
import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store as Client

from pipeline.errors import InputError

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_ROLE_SERVER = "169.254.169.254"  # where machines of a cloud ask for the credentials of their role
_BACKOFF: BackoffConfig = {
    "init_backoff": timedelta(seconds=0.2),
    "max_backoff": timedelta(seconds=10),
    "base": 3,
}
# Requests are tried again on 5xx and broken connections. A store that has answered is waited for; one that never did
# is more likely a wrong address than an outage, and whoever typed it should not wait to be told.
_PATIENT: RetryConfig = {"max_retries": 60, "retry_timeout": timedelta(seconds=120), "backoff": _BACKOFF}
_HASTY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=10), "backoff": _BACKOFF}


_LIMIT_S, _FIRST_LIMIT_S = 60, 15  # of one request; one that hangs is a failed one


def connect(bucket: str, prefix: str) -> tuple[Client, Client]:
    """Clients for the objects below a prefix: one that gives up soon, one that sits an outage out. Asks nothing yet."""
    endpoint = endpoint_url()
    given: dict[str, Any] = {"prefix": prefix or None}
    if endpoint:
        given["endpoint"] = endpoint
        if not os.environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
            given["virtual_hosted_style_request"] = False
    given |= _identity()
    hasty = Client(bucket, retry_config=_HASTY, client_options=_options(endpoint, _FIRST_LIMIT_S), **given)
    return hasty, Client(bucket, retry_config=_PATIENT, client_options=_options(endpoint, _LIMIT_S), **given)


def _options(endpoint: str, limit_s: float) -> ClientConfig:
    return {
        "timeout": timedelta(seconds=limit_s),
        "connect_timeout": timedelta(seconds=5),
        "allow_http": endpoint.startswith("http://"),  # on the own network
    }


def endpoint_url() -> str:
    """The endpoint that the environment names; empty for AWS."""
    name = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if name is None:
        return ""
    endpoint = os.environ[name]
    if not re.match(r"https?://[^/]", endpoint):
        raise InputError(f"{name}={endpoint}: give a URL, such as https://minio.example.org:9000")
    return endpoint


def endpoint_name() -> str:
    """The endpoint for people."""
    return endpoint_url() or "AWS"


def _identity() -> dict[str, Any]:
    """Region and credentials; none of the latter where the client finds them by itself."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    found: dict[str, Any] = {}
    if not (os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE")):
        try:
            import boto3
            from obstore.auth.boto3 import Boto3CredentialProvider
        except ImportError:
            pass
        else:
            session = boto3.Session()
            region = region or session.region_name
            if session.get_credentials():
                found["credential_provider"] = Boto3CredentialProvider(session)
    return found | {"region": region or "us-east-1"}


class BeyondEndError(OSError):
    """A range begins where the object has ended."""


class NoAnswerError(OSError):
    """The client has tried for as long as it does, and the store said nothing, or only that it cannot now."""


_NO_ANSWER = re.compile(r"\bafter \d+ retries\b|kind: (?:Connect|Timeout)\b")  # in the client's account


def explained(error: Exception, place: str, key: str) -> Exception:
    """The OSError that a disk would raise where the client raised `error`; an InputError where the setting is wrong."""
    text, where = str(error), f"{place}/{key}"
    bucket = place.removeprefix("s3://").partition("/")[0]
    if "<Code>NoSuchBucket</Code>" in text:
        return InputError(f"s3://{bucket}: there is no such bucket at {endpoint_name()}. Make it, or mend the name")
    if _ROLE_SERVER in text:
        return InputError(
            f"{place}: no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; or AWS_PROFILE, with boto3 "
            "installed; or run on a machine whose role may use the bucket"
        )
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such object", where)
    if isinstance(error, AlreadyExistsError):
        return FileExistsError(errno.EEXIST, "the object exists", where)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return PermissionError(errno.EACCES, f"access denied: {_reason(text)}", where)
    if isinstance(error, PreconditionError):
        return OSError(errno.ESTALE, "replaced since it was opened; open it again", where)
    if "status code: 416" in text:
        return BeyondEndError(errno.EINVAL, "the range is beyond the object's end", where)
    kind = NoAnswerError if _NO_ANSWER.search(text) else OSError
    return kind(errno.EIO, _reason(text), where)


def _reason(text: str) -> str:
    """What the client's account of a failed request, of many lines, says in a few words."""
    answer = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL)
    if answer:
        return f"{answer[2]} ({answer[1]})"
    status = re.search(r"status code: (\d+[\w ]*)", text)
    if status:
        return f"the object store answers {status[1].strip()}"
    cause = re.search(r'kind: Connect.*?(?:message|error): "(.*?)"', text, re.DOTALL)
    if cause:
        return f"{endpoint_name()} cannot be reached: {cause[1]}"
    if _NO_ANSWER.search(text):
        return f"{endpoint_name()} {'does not answer' if 'kind: Timeout' in text else 'breaks connections off'}"
    first = next((line.strip() for line in text.splitlines() if line.strip()), "the request failed")
    return first.removeprefix("Generic S3 error: ")[:300]
