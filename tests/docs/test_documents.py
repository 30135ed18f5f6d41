"""What the pages say is what the program has."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.cli.main import main
from sidecar.config.fields.mapping import Section
from sidecar.config.handshake_keys import HANDSHAKE
from sidecar.config.presets import preset_names
from sidecar.config.scheme_keys import SCHEME
from sidecar.diagnosis.diagnose import REMEDIES
from sidecar.outcomes import HandshakeResult, Hint
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.encoding import Encoding
from sidecar.verify.keys import KeyForm
from sidecar.verify.kinds import KINDS
from sidecar.verify.scheme import Unit
from sidecar.verify.template import Piece

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("hint", Hint)
def test_every_hint_has_its_remedy(hint: Hint) -> None:
    assert REMEDIES[hint]


@pytest.mark.parametrize("result", HandshakeResult)
def test_every_result_of_a_handshake_is_explained(result: HandshakeResult) -> None:
    assert f"`{result}`" in page("metrics.md")


def test_what_stays_out_has_no_preset_and_says_what_would_let_it_in() -> None:
    groups = yaml.safe_load(page("unsupported.yaml"))
    assert all(group["why"] and group["lets_in"] and group["providers"] for group in groups)
    names = [provider["name"] for group in groups for provider in group["providers"]]
    assert len(names) == len(set(names))
    assert not set(names) & set(preset_names())


@pytest.mark.parametrize("section", [SCHEME, HANDSHAKE], ids=["scheme", "handshake"])
def test_every_key_of_a_scheme_is_explained(section: Section[Any]) -> None:
    text = page("scheme-keys.md") + page("own-scheme.md")
    for name, key in section.keys.items():
        assert f"`{name}`" in text or f"`{name}." in text or f"`{name}:`" in text, name
        if isinstance(key.type, Section):
            for below in key.type.keys:
                assert f"`{below}`" in text or f"`{name}.{below}`" in text or f"`{below}: " in text, f"{name}.{below}"
    words = [word.value for listed in (Piece, KeyForm, Unit, Encoding, Algorithm) for word in listed]
    for word in [*words, *KINDS]:
        assert f"`{word}`" in text or f"`{{{word}}}`" in text or f"`{word}`," in text, word


def test_the_readme_shows_what_explain_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- made by a test -->\n```console\n\$ sidecar (explain .*)\n([^`]*)```", readme)
    assert block is not None
    body = b'{"action":"opened","number":1}'
    mac = hmac.digest(b"a secret that GitHub has as well", body, "sha256").hex()
    head = f"POST /webhooks/github HTTP/1.1\r\nHost: a\r\nX-Hub-Signature-256: sha256={mac}\r\n\r\n".encode()
    (tmp_path / "request.http").write_bytes(head + body.replace(b":", b": ").replace(b",", b", "))
    monkeypatch.setenv("GITHUB_SECRET", "a secret that GitHub has as well")
    monkeypatch.chdir(tmp_path)
    assert main(block[1].split()) == 1
    assert capsys.readouterr().out == block[2]


@pytest.mark.parametrize("name", ["../README.md", "quick-start.md", "comparison.md"])
def test_there_are_as_many_presets_as_a_page_says(name: str) -> None:
    """A round number, so that a preset more changes no page."""
    said = re.search(r"\b[Oo]ver (\d+) (?:presets|providers' schemes)", page(name))
    assert said is not None
    assert len(preset_names()) > int(said[1])


# -- the worked examples of own-scheme.md --

EXAMPLES = {
    name: (scheme, secret)
    for name, secret, scheme in re.findall(
        r"<!-- example (\w+)\.yaml, secret (\S+) -->\n```yaml\n(.*?)```", page("own-scheme.md"), re.DOTALL
    )
}
BODY = b'{"event":"paid","amount":7}'
NOW = 1795579411


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`run("acme", "sign", ...)`: what the command prints, with the example's scheme and secret."""

    def ran(name: str, *arguments: str, expect: int = 0) -> str:
        scheme, secret = EXAMPLES[name]
        (tmp_path / f"{name}.yaml").write_text(scheme)
        monkeypatch.setenv("SECRET", secret)
        command, *rest = arguments
        status = main([command, "--preset", str(tmp_path / f"{name}.yaml"), "--secret", "env:SECRET", *rest])
        printed = capsys.readouterr()
        assert status == expect, printed
        return printed.out

    return ran


def signed(run: Callable[..., str], tmp_path: Path, name: str, *url: str) -> dict[str, str]:
    """The headers that `sign` makes; `explain` accepts them, and not with another body."""
    (tmp_path / "body").write_bytes(BODY)
    headers = run(name, "sign", "--body", str(tmp_path / "body"), "--timestamp", str(NOW), *url)
    head = b"POST /crane?a=1 HTTP/1.1\nHost: hooks.example.com\n" + headers.encode() + b"\n"
    (tmp_path / "good").write_bytes(head + BODY)
    (tmp_path / "bad").write_bytes(head + BODY.replace(b"7", b"8"))
    public = ["--public-url", "https://hooks.example.com"] if url else []
    assert "accepted" in run(name, "explain", "--now", str(NOW + 60), *public, str(tmp_path / "good"))
    assert "hint: unknown" in run(name, "explain", "--now", str(NOW), *public, str(tmp_path / "bad"), expect=1)
    return dict(line.split(": ", 1) for line in headers.splitlines())


def test_every_worked_example_is_tried() -> None:
    assert list(EXAMPLES) == ["acme", "bolt", "crane", "dune", "golf"]


def test_the_first_example_signs_as_its_provider_says(run: Callable[..., str], tmp_path: Path) -> None:
    made = signed(run, tmp_path, "acme")
    key = bytes.fromhex(EXAMPLES["acme"][1])
    assert made["X-Acme-Hmac"] == "sha512=" + base64.b64encode(hmac.digest(key, BODY, "sha512")).decode()
    assert "X-Acme-Delivery" in made


def test_the_second_example_signs_as_its_provider_says(run: Callable[..., str], tmp_path: Path) -> None:
    made = signed(run, tmp_path, "bolt")
    mac = hmac.digest(EXAMPLES["bolt"][1].encode(), b"%d." % NOW + BODY, "sha256").hex()
    assert made == {"Bolt-Signature": f"t={NOW},v1={mac}"}
    (tmp_path / "two").write_bytes(
        f"POST / HTTP/1.1\nBolt-Signature: t={NOW},v1={'0' * 64},v1={mac}\n\n".encode() + BODY
    )
    assert "accepted" in run("bolt", "explain", "--now", str(NOW), str(tmp_path / "two"))


def test_the_third_example_signs_and_answers_as_its_provider_says(
    run: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://hooks.example.com/crane?a=1"
    made = signed(run, tmp_path, "crane", "--url", url)
    message = f"POST\n{url}\n{NOW}000\n".encode() + BODY
    mac = hmac.digest(EXAMPLES["crane"][1].encode(), message, "sha256").hex()
    assert made == {"X-Crane-Signature": mac, "X-Crane-Time": f"{NOW}000"}
    monkeypatch.setenv("CRANE_TOKEN", "the-token-that-was-chosen")
    route = {"path": "/crane", "verify": yaml.safe_load(EXAMPLES["crane"][0]), "secrets": [{"env": "SECRET"}]}
    route["verify_token"] = {"env": "CRANE_TOKEN"}
    config = {"upstream": "http://127.0.0.1:3000", "public_url": "https://hooks.example.com", "routes": [route]}
    (tmp_path / "sidecar.yaml").write_text(yaml.safe_dump(config))
    for token, status in (("the-token-that-was-chosen", 0), ("another", 1)):
        (tmp_path / "asked").write_text(f"GET /crane?challenge=c1&token={token} HTTP/1.1\nHost: a\n\n")
        assert main(["explain", "--config", str(tmp_path / "sidecar.yaml"), str(tmp_path / "asked")]) == status
        shown = capsys.readouterr().out
        assert ("handshake answered" in shown, "token_mismatch" in shown) == (status == 0, status == 1)


def test_the_token_of_the_fourth_example_says_what_its_provider_says(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(BODY)
    sent = run("dune", "sign", "--body", str(tmp_path / "body"), "--timestamp", str(NOW))
    payload = sent.removeprefix("Dune-Signature: ").split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert (claims["iss"], claims["iat"]) == ("dune", NOW)
    assert claims["request_body_sha256"] == hashlib.sha256(BODY).hexdigest()
    for body, status, word in ((BODY, 0, "accepted"), (BODY.replace(b"7", b"8"), 1, "claim_mismatch")):
        (tmp_path / "request").write_bytes(b"POST / HTTP/1.1\nHost: a\n" + sent.encode() + b"\n" + body)
        assert word in run("dune", "explain", "--now", str(NOW + 60), str(tmp_path / "request"), expect=status)


def test_the_fifth_example_signs_what_rfc_9421_says(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(BODY)
    url = "https://hooks.example.com/golf?a=1"
    sent = run("golf", "sign", "--body", str(tmp_path / "body"), "--timestamp", str(NOW), "--url", url)
    made = dict(line.split(": ", 1) for line in sent.splitlines())
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    assert made["Content-Digest"] == f"sha-256=:{digest}:"
    parameters = made["Signature-Input"].removeprefix("sig1=")
    base = (
        '"@method": POST\n"@authority": hooks.example.com\n"@path": /golf\n"@query": ?a=1\n'
        f'"content-digest": sha-256=:{digest}:\n"@signature-params": {parameters}'
    )
    mac = base64.b64encode(hmac.digest(EXAMPLES["golf"][1].encode(), base.encode(), "sha256")).decode()
    assert made["Signature"] == f"sig1=:{mac}:"
    head = b"POST /golf?a=1 HTTP/1.1\nHost: hooks.example.com\n" + sent.encode() + b"\n"
    for body, status, word in ((BODY, 0, "accepted"), (BODY.replace(b"7", b"8"), 1, "hint: digest_mismatch")):
        (tmp_path / "request").write_bytes(head + body)
        shown = run("golf", "explain", "--now", str(NOW + 60), str(tmp_path / "request"), expect=status)
        assert word in shown
        assert "covers     sig1: @method, @authority, @path, @query, content-digest; created=" in shown
        assert mac not in shown


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("signature: {header: X-A, algoritm: sha1}", "scheme.yaml:1: signature.algoritm: unknown key; did you mean"),
        ("signature: {header: X-A}\nsigned: '{nothing}'", "scheme.yaml:2: signed: has the unknown placeholder"),
        ("- a", "scheme.yaml:1: holds no scheme; begin with signature"),
        ("a: [", "scheme.yaml:"),
    ],
)
def test_mistakes_in_a_scheme_are_told_with_their_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scheme: str, message: str
) -> None:
    (tmp_path / "scheme.yaml").write_text(scheme)
    assert main(["sign", "--preset", str(tmp_path / "scheme.yaml"), "--secret", "env:X"]) == 2
    assert message in capsys.readouterr().err
