"""The status page in a real Chromium: it lives, keeps its own policy, and is whole without JavaScript and on a phone."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browser import Browser, Driver, driver
from craft import Craft
from sidecar_process import Sidecar

WIDE = b"/" + b"very-long-path-without-a-place-to-break" * 20 + b"<script>alert(1)</script>"
TOKEN = "CANARY-SECRET-admin-token-83bd"
ENV = {"ADMIN_TOKEN": TOKEN}
CONFIG = {
    "admin_token": {"env": "ADMIN_TOKEN"},
    "delivery_test": {
        "accounts": [
            {"id": "<b>bold</b>", "api_key": {"env": "OTHER_API_KEY"}, "webhook_url": "http://127.0.0.1:1/" + "x" * 200}
        ]
    },
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Driver]:
    with driver() as running:
        yield running


@pytest.fixture(scope="module")
def window(chromium: Driver) -> Iterator[Browser]:
    with chromium.window() as browser:
        yield browser


@pytest.fixture
def url(sidecar: Sidecar) -> str:
    return f"http://{sidecar.admin_address}/"


def scrolls_sideways(browser: Browser) -> Any:
    return browser.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth")


def hostile(sidecar: Sidecar, craft: type[Craft]) -> None:
    """What an attacker would leave behind on the page."""
    sidecar.ask(craft.request(WIDE))
    sidecar.ask(
        craft.begini(headers=[(b"X-Forwarded-For", b'"><img src=x onerror=alert(1)><script>alert(2)</script>')]),
        source=craft.trusted,
    )


def test_what_happens_is_seen_without_looking_again_and_the_console_stays_silent(
    window: Browser, sidecar: Sidecar, url: str, craft: type[Craft]
) -> None:
    hostile(sidecar, craft)
    window.open(url)
    window.wait(lambda: window.text("#live") == "Live", "the event stream")
    before = window.text("#route-0")
    assert sidecar.ask(craft.begini()).status == 200
    window.wait(lambda: window.text("#route-0") != before, "the accepted delivery")
    assert sidecar.ask(craft.request(b"/an-unheard-of-path")).status == 404
    window.wait(lambda: "/an-unheard-of-path" in window.text("#refusals"), "the refusal")
    warnings = window.text("#problems")
    sidecar.write(json.dumps(sidecar.config, indent=1).replace('"mode": "shadow"', '"mode": "<script>"'))
    window.wait(lambda: "routes[2].mode: '<script>' is not valid" in window.text("#problems"), "the failed reload")
    sidecar.write(sidecar.config)
    window.wait(lambda: window.text("#problems") == warnings, "the reload")
    assert window.console() == []


def test_what_a_sender_wrote_is_read_and_not_run(
    window: Browser, sidecar: Sidecar, url: str, craft: type[Craft]
) -> None:
    hostile(sidecar, craft)
    window.open(url)
    window.wait(lambda: window.text("#live") == "Live", "the event stream")
    assert sidecar.ask(craft.request(b"/<script>alert(3)</script>")).status == 404
    window.wait(lambda: "<script>alert(3)</script>" in window.text("#refusals"), "the refusal")
    assert len(window.find("script")) == 1
    assert window.find("img, #refusals b, option b, iframe") == []
    assert window.console() == []


def test_the_policy_stops_what_would_have_got_through(window: Browser, sidecar: Sidecar, url: str) -> None:
    window.open(url)
    window.run("const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s)")
    window.run("const i = new Image(); i.src = 'http://127.0.0.1:1/x'; document.body.append(i)")
    assert window.run("return window.ran === undefined")
    window.wait(lambda: len([text for text in window.console() if "Content Security Policy" in text]) >= 1, "a refusal")


def test_the_form_sends_a_test_and_says_what_became_of_it(window: Browser, sidecar: Sidecar, url: str) -> None:
    window.open(url)
    window.fill("input[name=token]", "wrong")
    window.click("#test button")
    window.wait(lambda: window.find("#test [role=status]"), "the refusal")
    assert window.text("#test [role=status]") == "401 admin_token is wrong"
    window.fill("input[name=token]", TOKEN)
    window.click("#test button")
    window.wait(lambda: window.text("#test [role=status]").startswith("503"), "the result")
    assert window.text("#test [role=status]") == "503 <b>bold</b>: Cannot connect to host 127.0.0.1"
    window.console()  # the 401 was logged there


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_told_from_what_is_behind_it(
    window: Browser, sidecar: Sidecar, url: str, craft: type[Craft], scheme: str
) -> None:
    """At least 4.5 to 1, as WCAG 2.2 asks (1.4.3), in either scheme."""
    hostile(sidecar, craft)
    window.color_scheme(scheme)
    window.open(url)
    paper = {"light": "rgb(246, 247, 248)", "dark": "rgb(20, 23, 26)"}[scheme]
    assert window.run("return getComputedStyle(document.body).backgroundColor") == paper
    weak = window.run(CONTRAST)
    window.color_scheme("light")
    assert weak == []


CONTRAST = """
const parts = (color) => color.match(/[0-9.]+/g).map(Number);
const light = (color) => {
  const [r, g, b] = parts(color).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (parts(color)[3] !== 0) return color;
  }
  return "rgb(255, 255, 255)";
};
const weak = [];
for (const element of document.querySelectorAll("body *:not(option):not(select):not(button):not(input)")) {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) weak.push(element.outerHTML.slice(0, 100));
}
return weak;
"""


def test_without_javascript_the_page_is_whole_and_the_form_works(
    chromium: Driver, sidecar: Sidecar, url: str, craft: type[Craft]
) -> None:
    with chromium.window(javascript=False) as browser:
        sidecar.ask(craft.request(b"/seen-without-a-script"))
        browser.open(url)
        assert "Reload" in browser.text("#live")
        assert "/seen-without-a-script" in browser.text("#refusals")
        assert "accepted" in browser.text("#route-0")
        browser.fill("input[name=token]", TOKEN)
        browser.click("#test button")
        browser.wait(lambda: browser.find("#test [role=status]"), "the result")
        browser.click("#live a")
        browser.wait(lambda: not browser.find("#test [role=status]"), "another look")
        assert browser.console() == []


def test_on_a_phone_nothing_scrolls_sideways(chromium: Driver, sidecar: Sidecar, url: str, craft: type[Craft]) -> None:
    with chromium.window(phone=True) as browser:
        hostile(sidecar, craft)
        mark = sidecar.mark()
        sidecar.write(json.dumps(sidecar.config, indent=1).replace('"mode": "shadow"', f'"mode": "{"x" * 400}"'))
        sidecar.line(mark, event="config_reload_failed")
        browser.open(url)
        browser.wait(lambda: browser.text("#live") == "Live", "the event stream")
        assert browser.find("#problems .alert")
        assert browser.run("return innerWidth") == 375
        assert not scrolls_sideways(browser)
        outside = """
            return [...document.querySelectorAll("#routes td, #refusals td, dd, form *")]
              .filter((e) => e.getBoundingClientRect().right > innerWidth - 16).map((e) => e.outerHTML.slice(0, 100))"""
        assert browser.run(outside) == []
        assert browser.console() == []
    sidecar.write(sidecar.config)
    assert sidecar.admin("/-/reload", method="POST", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
