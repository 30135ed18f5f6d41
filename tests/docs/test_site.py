"""The documentation builds as a site: strictly, with no link that leads nowhere and nothing loaded from elsewhere."""

import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import site_of_docs as site
from browser import Browser, Driver, driver
from needs import needs
from pages import ROOT
from provider_page import facts

from sidecar.config.presets import load_preset, preset_names
from sidecar.verify.scheme import PROVEN, Scheme


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a fault."""
    zensical = needs(ROOT / ".venv/site/bin/zensical")
    root = tmp_path_factory.mktemp("site")
    for name in ("docs", "config", "helm", "kustomize", "plugins", "tests/chart/parent", "tools", "sidecar/presets"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    for name in ("zensical.toml", *(each for each in site.OUTER if "/" not in each)):
        shutil.copy(ROOT / name, root)
    assert site.build(root, Path(zensical)) == 0, "the problems are in the captured output"
    return root / "build/site"


@pytest.fixture(scope="module")
def url(built: Path) -> Iterator[str]:
    """Where the built site is served."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(built))

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium(url: str) -> Iterator[Driver]:
    with driver() as running:
        yield running


@pytest.fixture(scope="module")
def browser(chromium: Driver) -> Iterator[Browser]:
    """One window for all tests, because a start of Chromium takes longer than any of them."""
    with chromium.window() as window:
        yield window


@pytest.fixture(scope="module")
def phone(chromium: Driver) -> Iterator[Browser]:
    with chromium.window(phone=True) as window:
        yield window


def shown(browser: Browser) -> list[str]:
    """The presets that a reader sees."""
    names: list[str] = browser.run(
        "return [...document.querySelectorAll('table.providers tbody tr')].filter(e => e.offsetHeight > 0)"
        ".map(e => e.querySelector('code').innerText)"
    )
    return names


def test_the_site_builds_and_loads_nothing_from_elsewhere(built: Path) -> None:
    made = site.Links((built / "reasons.html").read_text(encoding="utf-8"))
    assert {"reasons", "hints"} <= made.ids
    assert "troubleshooting.html#hints" in {link.removeprefix("./") for link in made.links}
    about = site.Links((built / "providers.html").read_text(encoding="utf-8"))
    links = {link.removeprefix("./") for link in about.links}
    assert {"provider-list.html", *(f"providers/{name}.html" for name in preset_names())} <= links


def test_every_provider_has_its_page(built: Path) -> None:
    listed = site.Links((built / "provider-list.html").read_text(encoding="utf-8")).links
    for name in preset_names():
        page = (built / f"providers/{name}.html").read_text(encoding="utf-8")
        assert f"<code>{name}</code>" in page
        assert f"providers/{name}.html" in listed


def test_the_list_of_providers_is_searched_and_filtered(browser: Browser, url: str) -> None:
    browser.open(f"{url}/provider-list.html")
    assert shown(browser) == list(preset_names())
    browser.fill("form.providers [name=q]", "messenger")  # another name of a preset
    assert shown(browser) == ["meta"]
    assert browser.text("form.providers [role=status]") == f"1 of {len(preset_names())}"
    assert browser.run("return location.search") == "?q=messenger"
    browser.fill("form.providers [name=q]", "-there-is-no-such-provider")
    assert shown(browser) == []
    assert "Clear a filter" in browser.text("form.providers [role=status]")
    browser.click("form.providers [type=reset]")
    browser.wait(lambda: len(shown(browser)) == len(preset_names()), "the whole list")
    assert browser.run("return location.search") == ""


@pytest.mark.parametrize(
    ("field", "value", "fits"),
    [
        ("family", "Ed25519", lambda scheme: scheme.signature.kind.name == "ed25519"),
        ("evidence", "proven", lambda scheme: scheme.evidence in PROVEN),
        ("evidence", "second-hand", lambda scheme: scheme.evidence == "second-hand"),
        ("resends", "never", lambda scheme: not scheme.delivery.resends),
        ("handshake", "sidecar", lambda scheme: facts(scheme).handshake == "sidecar"),
    ],
)
def test_a_filter_leaves_what_fits_and_its_address_can_be_sent_to_somebody(
    browser: Browser, url: str, field: str, value: str, fits: Callable[[Scheme], bool]
) -> None:
    expected = [name for name in preset_names() if fits(load_preset(name))]
    assert 0 < len(expected) < len(preset_names())
    browser.open(f"{url}/provider-list.html")
    browser.run(
        "const e = document.querySelector(`form.providers [name=${arguments[0]}]`);"
        "e.value = arguments[1]; e.dispatchEvent(new Event('input', {bubbles: true}))",
        field,
        value,
    )
    assert shown(browser) == expected
    browser.open(browser.run("return location.href"))
    assert shown(browser) == expected
    assert browser.run(f"return document.querySelector('form.providers [name={field}]').value") == value


def test_without_javascript_the_list_is_whole_and_promises_no_search(chromium: Driver, url: str) -> None:
    with chromium.window(javascript=False) as browser:
        browser.open(f"{url}/provider-list.html?q=stripe")
        assert shown(browser) == list(preset_names())
        assert browser.run("return document.querySelector('form.providers').offsetHeight") == 0


@pytest.mark.parametrize("page", ["provider-list.html", "providers/stripe.html", "providers/paypal.html"])
def test_on_a_phone_nothing_is_cut_off(phone: Browser, url: str, page: str) -> None:
    phone.open(f"{url}/{page}")
    outside = """
        const parts = "article p, article li, article h1, table.providers :is(th, td), form.providers *";
        return [...document.querySelectorAll(parts)]
          .filter((e) => e.getBoundingClientRect().right > innerWidth).map((e) => e.outerHTML.slice(0, 100))"""
    assert phone.run(outside) == []
    assert phone.run("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("page", "found"),
    [
        (
            '<script src="https://cdn.example/a.js"></script>',
            ["a.html loads https://cdn.example/a.js, which is external"],
        ),
        (
            '<link rel="stylesheet" href="//fonts.example/a.css">',
            ["a.html loads //fonts.example/a.css, which is external"],
        ),
        ('<a href="b.html">', ["a.html links to b.html, which does not exist"]),
        ('<a href="#b">', ["a.html links to #b, but the page has no such anchor"]),
        ('<p id="b"><a href="#b"><a href="https://example.com/"><img src="a.html">', []),
    ],
)
def test_a_page_with_a_fault_is_found(tmp_path: Path, page: str, found: list[str]) -> None:
    (tmp_path / "a.html").write_text(page)
    assert [*site.problems(tmp_path)][: len(found) or None] == found


def test_a_style_that_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@font-face{src:url(https://fonts.example/a.woff)}")
    assert [*site.problems(tmp_path)] == ["a.css loads https://fonts.example/a.woff, which is external"]


def test_links_out_of_docs_become_pages(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "config").mkdir()
    (root / "config/a.yaml").write_text("a: 1\n")
    (root / "README.md").write_text("[d](docs/d.md#x) [all](config) `[code](config/no.yaml)`\n")
    (root / "docs/d.md").write_text("[up](../README.md) [file](../config/a.yaml)\n")
    site.lay_out(root, tmp_path / "pages")
    assert (tmp_path / "pages/index.md").read_text() == "[d](d.md#x) [all](files/config.md) `[code](config/no.yaml)`\n"
    assert (tmp_path / "pages/d.md").read_text() == "[up](index.md) [file](files/config/a.yaml.md)\n"
    assert "a: 1" in (tmp_path / "pages/files/config/a.yaml.md").read_text()
    assert "a: 1" in (tmp_path / "pages/files/config.md").read_text()


def test_a_page_that_the_navigation_does_not_have_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").touch()
    (tmp_path / "docs/b.md").touch()
    (tmp_path / "zensical.toml").write_text('nav = [{ "A" = "a.md" }]\n')
    assert site.missing_from_navigation(tmp_path) == {"b.md"}
