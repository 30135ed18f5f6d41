"""A real Chromium, driven by chromedriver in the words of the WebDriver standard: https://www.w3.org/TR/webdriver2/."""

import base64
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from needs import needs, needs_localhost
from ports import free_port

PATIENCE = 30.0
PHONE = {"width": 375, "height": 740, "pixelRatio": 2.0}


class Browser:
    """One window."""

    def __init__(self, client: httpx.Client, capabilities: dict[str, Any]) -> None:
        self._client = client
        self._path = ""
        made = self._do("POST", "session", {"capabilities": {"alwaysMatch": capabilities}})
        self._path = f"session/{made['sessionId']}/"

    def _do(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        path = (self._path + path).rstrip("/")
        answer = self._client.request(method, path, json=body if method == "POST" else None)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def open(self, url: str) -> None:
        self._do("POST", "url", {"url": url})

    def run(self, script: str, *arguments: str) -> Any:
        """The result of a function with this body. The driver runs it, even on pages that may run no script."""
        return self._do("POST", "execute/sync", {"script": script, "args": arguments})

    def find(self, selector: str) -> list[str]:
        found = self._do("POST", "elements", {"using": "css selector", "value": selector})
        return [next(iter(element.values())) for element in found]

    def text(self, selector: str) -> str:
        """The text that a person reads there; empty if there is no such element, for example between two pages.

        It is found and read in one step, because the page replaces its parts in the meantime.
        """
        texts = self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())", selector)
        assert len(texts) <= 1, f"{selector} is not one place"
        return "".join(texts)

    def click(self, selector: str) -> None:
        (element,) = self.find(selector)
        self._do("POST", f"element/{element}/click", {})

    def fill(self, selector: str, text: str) -> None:
        (element,) = self.find(selector)
        self._do("POST", f"element/{element}/value", {"text": text})

    def developer(self, command: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools protocol."""
        return self._do("POST", "goog/cdp/execute", {"cmd": command, "params": parameters})

    def color_scheme(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.developer("Emulation.setEmulatedMedia", features=features)

    def console(self) -> list[str]:
        """The browser's log since the last call: errors, violations of the page's policy, failed loads."""
        return [entry["message"] for entry in self._do("POST", "se/log", {"type": "browser"})]

    def picture(self, file: Path, *, height: int | None = None) -> None:
        """A screenshot from the top of the page, of the whole page or of so many pixels, as PNG or WebP."""
        size = self.developer("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        kind = file.suffix.removeprefix(".")
        made = self.developer("Page.captureScreenshot", captureBeyondViewport=True, format=kind, clip=clip)
        file.write_bytes(base64.b64decode(made["data"]))

    def wait(self, condition: Any, what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < end, f"{what} did not come within {PATIENCE:g} s"
            time.sleep(0.05)
        return value

    def close(self) -> None:
        self._do("DELETE", "")


class Driver:
    """chromedriver, and the windows that it opens."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    @contextlib.contextmanager
    def window(self, *, phone: bool = False, javascript: bool = True) -> Iterator[Browser]:
        options: dict[str, Any] = {
            "args": [
                "--headless=new",
                "--no-sandbox",  # tests may run as root
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--hide-scrollbars",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--window-size=1280,900",
            ]
        }
        if phone:
            options["mobileEmulation"] = {"deviceMetrics": PHONE}
        if not javascript:
            options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
        browser = Browser(
            self._client,
            {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}},
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def driver() -> Iterator[Driver]:
    """A running chromedriver, on its own port."""
    needs("chromium")
    needs_localhost()
    program = needs("chromedriver")
    port = free_port()
    process = subprocess.Popen(
        [program, f"--port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/", timeout=60.0, trust_env=False) as client:
            end = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("status").json()["value"]["ready"]:
                        break
                assert process.poll() is None, "chromedriver ended"
                assert time.monotonic() < end, "chromedriver did not begin"
                time.sleep(0.05)
            yield Driver(client)
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # this also ends windows that could not be closed
        process.wait()
