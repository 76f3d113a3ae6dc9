"""A headless Chromium, driven through chromedriver's WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's key of an element's id
KEYS = {"Tab": "\ue004", "End": "\ue010", "Home": "\ue011", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014"}
KEYS["Down"] = "\ue015"
OFFLINE = ("background-networking", "component-update", "sync", "quic", "gpu")
STARTED = re.compile(r"started successfully on port (\d+)")


class Browser:
    """One window. Methods raise `urllib.error.HTTPError` where the protocol reports an error."""

    def __init__(self, port: int, options: dict[str, Any]):
        self.address, self.session = f"http://127.0.0.1:{port}", "/session"
        logs = {"browser": "ALL", "performance": "ALL"}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
        self.session = f"/session/{self.call('', capabilities={'alwaysMatch': wanted})['sessionId']}"

    def call(self, path: str, method: str = "POST", **values: Any) -> Any:
        body = json.dumps(values).encode() if method == "POST" else None
        request = urllib.request.Request(f"{self.address}{self.session}{path}", body, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=300) as response:
            return json.load(response)["value"]

    def open(self, page: Path) -> None:
        self.call("/url", url=page.as_uri())

    def script(self, code: str, *values: Any) -> Any:
        """What JavaScript returns; `arguments` are the values."""
        return self.call("/execute/sync", script=code, args=list(values))

    def element(self, selector: str) -> dict[str, str]:
        return self.call("/element", using="css selector", value=selector)

    def text(self, selector: str) -> str:
        """The text of an element as it shows, "" if it does not."""
        return self.call(f"/element/{self.element(selector)[ELEMENT]}/text", "GET")

    def point(self, selector: str) -> None:
        """Move the mouse to the middle of an element, which is scrolled to: outside the window there is no mouse."""
        self.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        move = {"type": "pointerMove", "origin": self.element(selector), "x": 0, "y": 0}
        self.call("/actions", actions=[{"type": "pointer", "id": "mouse", "actions": [move]}])

    def press(self, *keys: str) -> None:
        """Press keys one after the other, by their names in `KEYS`, or characters."""
        presses = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("/actions", actions=[{"type": "key", "id": "keyboard", "actions": presses}])

    def messages(self) -> list[str]:
        """The messages of the console since the last call, errors and refusals of the page's policy among them."""
        return [entry["message"] for entry in self.call("/se/log", type="browser")]

    def errors(self) -> list[str]:
        """The errors in the console since the last call."""
        return [entry["message"] for entry in self.call("/se/log", type="browser") if entry["level"] == "SEVERE"]

    def requests(self, page: Path) -> list[str]:
        """The addresses that a page has asked for since the last call, its own first."""
        events = [json.loads(entry["message"])["message"] for entry in self.call("/se/log", type="performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [request["request"]["url"] for request in sent if request["documentURL"] == page.as_uri()]

    def emulate(self, **features: str) -> None:
        """Set features of media, such as `prefers_color_scheme="dark"`."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("/goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": named})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("/screenshot", "GET")))


@contextmanager
def browser(width: int = 1280, height: int = 900, phone: bool = False) -> Iterator[Browser]:
    """A browser with a new profile; the test is skipped where Debian's chromium and chromium-driver are not."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium on this machine: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["headless", "no-first-run", f"user-data-dir={profile}", f"window-size={width},{height}"]
        flags += [f"disable-{part}" for part in OFFLINE] + ["no-sandbox"] * (os.geteuid() == 0)
        options: dict[str, Any] = {"binary": chromium, "args": [f"--{flag}" for flag in flags]}
        if phone:
            options["mobileEmulation"] = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 2}}
        with running([driver, "--port=0"]) as port:
            made = Browser(port, options)
            try:
                yield made
            finally:
                made.call("", "DELETE")


@contextmanager
def running(command: Sequence[str]) -> Iterator[int]:
    """The port of a driver that runs meanwhile."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if started := STARTED.search(line):
                    break
            else:
                pytest.fail("".join(lines))
            yield int(started[1])
        finally:
            process.terminate()
