"""Providers' published examples through `sidecar explain`, each written down as the capture that somebody would have of it."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sidecar.cli.main import main

FILE = Path(__file__).parents[1] / "vectors" / "vectors.json"
FILES = (FILE, FILE.with_name("messages.json"))
VECTORS: list[dict[str, Any]] = [
    vector for file in FILES for vector in json.loads(file.read_text(encoding="utf-8"))["vectors"]
]
#: The app key beside the secret is only known to a configuration: `verify: {preset: pusher, require: {X-Pusher-Key: ...}}`.
CONFIGURED = {"pusher-03"}
#: Signed for a URL without a path, which no request has.
PATHLESS = {"plivo-v2-01"}
#: Where the vector names no clock, because the official code was run without one.
SIGNED_AT = {"paddle-05": 1696195954}


@pytest.mark.parametrize("bare", [False, True], ids=["CR LF", "LF"])
@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["id"] not in CONFIGURED | PATHLESS], ids=lambda v: str(v["id"])
)
def test_explain_gives_the_verdict(
    vector: dict[str, Any],
    bare: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = urlsplit(vector["url"])
    target = url.path + ("?" + url.query if url.query else "")
    head = [f"{vector['method']} {target} HTTP/1.1", f"Host: {url.netloc}"]
    head += [f"{name}: {value}" for name, value in vector["headers"]]
    file = tmp_path / "request.http"
    file.write_bytes(("\n" if bare else "\r\n").join([*head, "", ""]).encode() + vector["body"].encode())
    arguments = ["--preset", vector["provider"], "--public-url", vector["url"] if bare else f"https://{url.netloc}"]
    for number, secret in enumerate(vector["secrets"]):
        monkeypatch.setenv(f"S{number}", secret)
        arguments += ["--secret", f"env:S{number}"]
    if (now := vector["now"] or SIGNED_AT.get(vector["id"])) is not None:
        arguments += ["--now", str(now)]
    status = main(["explain", *arguments, "--json", str(file)])
    said = json.loads(capsys.readouterr().out)
    assert (status, said["verdict"]) == ((0, "accepted") if vector["expected"] == "valid" else (1, "rejected")), said
    assert (said["secret"] is not None) == (status == 0)
