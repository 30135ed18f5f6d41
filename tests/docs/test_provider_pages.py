"""The pages of providers: each has a configuration that works, and a command whose delivery that configuration accepts."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import provider_list_page
import provider_page
import providers_page
import pytest
from pages import ROOT, fences, read, rows
from ports import free_ports
from published_store import brings_certificates
from walking import answer, environment, running

from sidecar.cli.main import build_parser
from sidecar.cli.signing import make_sender
from sidecar.config.loader import load_config
from sidecar.config.presets import load_preset, preset_names
from sidecar.config.ranges import range_names
from sidecar.http1.head import make_head
from sidecar.verify.scheme import Evidence, Scheme

#: For the presets that sign nothing but their provider's own events.
EVENTS = {
    "myfatoorah": b'{"Event":{"Name":"BALANCE_TRANSFERRED"},"Data":{"Deposit":'
    b'{"Reference":"2023000186","ValueInBaseCurrency":"15.5","NumberOfTransactions":2}}}'
}


def block(page: str, kind: str) -> str:
    """The first block of a kind."""
    return next(fence.text for fence in fences(page) if fence.kind == kind)


def command(page: str) -> list[str] | None:
    """The words of `sidecar send` on a page."""
    found = re.search(r"^\$ (sidecar send .*)", block(page, "console").replace("\\\n", ""), re.M)
    return shlex.split(found[1]) if found else None


@pytest.mark.parametrize("name", preset_names())
def test_the_configuration_of_a_page_accepts_what_its_command_sends(
    name: str,
    tmp_path: Path,
    key_pair: Callable[[Scheme], tuple[bytes, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, scheme = provider_page.page(name), load_preset(name)
    private, public = key_pair(scheme)
    shown = re.findall(r"^\$ export (\w+)=", block(page, "console"), re.M)
    assert set(re.findall(r"env: (\w+)", block(page, "yaml"))) == set(shown)
    file = tmp_path / "sidecar.yaml"
    file.write_text(block(page, "yaml"))
    config = load_config(str(file), dict.fromkeys(shown, public.decode()))
    (route,) = config.routes.routes
    assert route.verifier is not None
    words = command(page)
    assert (words is None) == (scheme.published or brings_certificates(scheme))
    if words is None:
        assert "can't" in page
        return
    (tmp_path / "test-key.pem").write_bytes(private)
    assert ("event.json" in words) == (name in EVENTS)
    (tmp_path / "event.json").write_bytes(EVENTS.get(name, b""))
    monkeypatch.chdir(tmp_path)
    for variable in shown:
        monkeypatch.setenv(variable, private.decode())
    given = build_parser().parse_args(words[1:])
    now = 1_700_000_000
    delivery = make_sender(given, given.url, given.public_url).sign(now)
    target = delivery.url.removeprefix("http://127.0.0.1:8080").encode()
    assert config.routes.find(target.partition(b"?")[0]) is route
    headers = [(b"Host", b"127.0.0.1:8080"), *((name.encode(), value.encode()) for name, value in delivery.headers)]
    head = make_head("POST", target, headers, None)
    assert route.verifier.verify(route.verifier.read_claim(head, now), head, [delivery.body]).secret_id == "current"


@pytest.mark.parametrize("name", preset_names())
def test_a_page_is_short_and_has_its_parts(name: str) -> None:
    page, scheme = provider_page.page(name), load_preset(name)
    assert page.count("\n") < 130
    assert re.findall(r"^## (.*)", page, re.M) == [
        "Configuration",
        "Try it",
        "If a delivery fails",
        "What is verified",
        "The preset",
    ]
    assert scheme.docs in page
    assert ("mode: shadow" in block(page, "yaml")) == (scheme.evidence == Evidence.SECOND_HAND)
    assert (f"preset:{name}" in block(page, "yaml")) == (name in range_names())
    assert ("**The body is not signed.**" in page) == (not scheme.binds_body)


@pytest.mark.parametrize("name", ["stripe", "docker-hub"])
def test_a_page_can_be_followed_with_a_real_sidecar(name: str, tmp_path: Path) -> None:
    """All other pages are followed by the test above, without sockets."""
    page = provider_page.page(name)
    ports = dict(zip(("3000", "8080", "9090"), free_ports(3), strict=True))

    def here(text: str) -> str:
        return re.sub(r"\b(3000|8080|9090)\b", lambda match: str(ports[match[1]]), text)

    (tmp_path / "sidecar.yaml").write_text(
        here(f"listen: 127.0.0.1:8080\nadmin: 127.0.0.1:9090\n{block(page, 'yaml')}")
    )
    lines = re.findall(r"^\$ (.*)", block(page, "console").replace("\\\n", ""), re.M)
    exported, check, serve, send = map(here, lines)
    made = environment(**{exported.removeprefix("export ").partition("=")[0]: "a-secret-of-the-page"})

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, env=made, capture_output=True, text=True, check=False)

    assert run(check).returncode == 0
    (tmp_path / "receiver.py").write_text(here((ROOT / "config/quick-start/receiver.py").read_text(encoding="utf-8")))
    with running(f"{sys.executable} receiver.py", tmp_path), running(serve, tmp_path, made):
        answer(f"http://127.0.0.1:{ports['9090']}/readyz")
        assert run(send).stdout.startswith("200 OK\n")
        (forged,) = re.findall(r"`(--forged --expect [0-9]+)`", page)
        assert run(f"{send} {forged}").returncode == 0


def test_a_page_says_what_the_preset_knows_of_its_secret() -> None:
    assert "**The secret.** The secret is the HMAC key in hex." in provider_page.page("adyen-item")
    assert "a colon, and the key in PEM: PUB_KEY_ID_...:-----BEGIN PUBLIC KEY-----. [" in provider_page.page(
        "wechat-pay"
    )
    made = provider_page.page("azure-container-registry").partition("**The secret.** ")[2]
    assert made.startswith("Make a long random token, and register the URL that ends in it,")
    assert "as the provider shows it" not in made.partition("\n")[0]
    assert "documentation](https://docs.github.com/" in provider_page.page("github").partition("**The secret.**")[2]


def test_the_list_has_every_preset_with_its_facts() -> None:
    page = provider_list_page.page()
    found = re.findall(r'<tr data-words="(\S+) [^"]*" data-family="([^"]+)" data-evidence="([\w -]+)"', page)
    assert [name for name, _, _ in found] == list(preset_names())
    assert {name: evidence.split()[0] for name, _, evidence in found} == {
        name: load_preset(name).evidence for name in preset_names()
    }
    families = {family for _, family, _ in found}
    assert families >= set(provider_page.FAMILIES.values())
    assert re.findall(r'<option value="([^"]+)">', page.partition('name="family"')[2].partition("</select>")[0]) == [
        *dict.fromkeys(provider_page.FAMILIES.values()),
        *sorted(families - set(provider_page.FAMILIES.values())),
    ]
    assert re.findall(r'href="providers/(\S+)\.html"', page) == list(preset_names())


def test_the_page_of_providers_is_what_the_presets_say() -> None:
    assert read("docs/providers.md") == providers_page.page(), "docs/providers.md is out of date: run `make docs`"


def test_what_is_known_of_failed_deliveries_is_on_the_page_once() -> None:
    part = read("docs/providers.md").partition("\n## Failed deliveries\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?m)(?:^|· )`([\w-]+)`", part.partition("**These never resend**")[2])
    known = [name for name in preset_names() if load_preset(name).delivery.source]
    assert sorted(found) == sorted(known)
    assert len(rows(read("docs/providers.md"), "## Evidence")) == len(Evidence)
