"""Captured requests of a running sidecar, for `sidecar explain --from`."""

import re
import time
from typing import Any, NamedTuple

from sidecar.cli.arguments import read_secrets
from sidecar.cli.errors import describe, unusable
from sidecar.routing.receiver_headers import ReceiverHeaders, SetHeader

#: Seconds.
TIMEOUT = 10.0
_LENGTH = re.compile(rb"^(?:content-length|transfer-encoding):[^\n]*\n", re.IGNORECASE | re.MULTILINE)


class TakenCapture(NamedTuple):
    """A captured request, with where it came from and when."""

    raw: bytes
    peer: str
    at: float  #: unix time


def list_captures(admin: str, token: str) -> str:
    """A line for each captured request, the newest first."""
    captures: list[dict[str, Any]] = _get(admin, token, "/-/captures").json()["captures"]
    lines = [
        f"{each['id']}  {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(each['at']))}Z  {each['route']}  {each['reason']}"
        for each in captures
    ]
    return "\n".join(lines) or "no captured requests; they need `capture:` on the route"


def take_capture(admin: str, token: str, ident: str) -> TakenCapture:
    """One captured request. If its body was not read, the fields that announce the body are left out."""
    response = _get(admin, token, f"/-/captures/{ident}")
    raw: bytes = response.content
    if response.headers.get("x-capture-complete") != "True":
        head, _, body = raw.partition(b"\r\n\r\n")
        raw = _LENGTH.sub(b"", head + b"\r\n") + b"\r\n" + body
    return TakenCapture(
        raw, response.headers.get("x-capture-peer", ""), float(response.headers.get("x-capture-at", "0"))
    )


def _get(admin: str, token: str, path: str) -> Any:
    import httpx  # noqa: PLC0415 - most explanations need none

    (secret,) = read_secrets([token])
    try:
        line = ReceiverHeaders([SetHeader("Authorization", "Bearer ", secret)], ()).lines(vouched=True)
    except ValueError as problem:
        unusable(f"the token {token} {problem}")
    authorization = line.decode().removeprefix("Authorization: ").rstrip()
    url = admin.rstrip("/")
    try:
        with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
            response = client.get(url + path, headers={"Authorization": authorization})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        unusable(f"no response from {url}: {describe(error)}; give the URL of the admin listener")
    if response.status_code != 200:
        try:
            detail = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = "this is not the admin listener; give its URL"
        unusable(f"{url}{path}: status {response.status_code}: {detail}")
    return response
