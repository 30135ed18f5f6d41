"""For every preset: what `sidecar sign` prints, put together as a request, `sidecar explain` accepts."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sidecar.cli import main
from sidecar.schema import load_preset, preset_names

URL = "https://hooks.example.com/hook?a=1"


@pytest.mark.parametrize("preset", preset_names())
def test_what_sign_prints_is_a_delivery(
    preset: str,
    key_pair: Callable[..., tuple[bytes, bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    private, public = key_pair(load_preset(preset))
    (tmp_path / "private").write_bytes(private)
    (tmp_path / "public").write_bytes(public)
    sign = ["sign", "--preset", preset, "--secret", f"file:{tmp_path / 'private'}", "--url", URL]
    if not load_preset(preset).signature.field and "form" not in load_preset(preset).signed:
        (tmp_path / "body").write_bytes(b'{"event":"paid"}')
        sign += ["--body", str(tmp_path / "body")]
    assert main(sign) == 0
    printed = capsys.readouterr()
    headers, _, body = ("\n" + printed.out).partition("\n\n")
    told = dict(
        re.findall(r"^sidecar sign: (call|without --body this one was signed:) (.*)$", printed.err, re.MULTILINE)
    )
    url = told.get("call", URL)
    if body:  # the scheme stands in it
        content = body.removesuffix("\n").encode()
    elif "--body" in sign:
        content = (tmp_path / "body").read_bytes()
    else:
        content = told["without --body this one was signed:"].encode()
    assert main([*sign, "--curl"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert (words[0], words[-1].partition("?")[0]) == ("curl", URL.partition("?")[0])
    parts = urlsplit(url)
    head = f"POST {parts.path}?{parts.query} HTTP/1.1\nHost: {parts.netloc}\n{headers.strip()}\n\n"
    (tmp_path / "request.http").write_bytes(head.encode() + content)
    explain = ["explain", "--preset", preset, "--secret", f"file:{tmp_path / 'public'}", "--json"]
    assert main([*explain, "--public-url", "https://hooks.example.com", str(tmp_path / "request.http")]) == 0, (
        capsys.readouterr().out
    )
    assert json.loads(capsys.readouterr().out)["secret"] == "public"
