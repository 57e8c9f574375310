"""A headless Chromium, driven through two pipes by its own protocol: no package, and no port that others reach."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--no-default-browser-check",
)  # fmt: skip
PATIENCE = 20.0
"""Seconds to wait for an answer: far more than an idle machine needs."""


def found() -> str | None:
    """Return a Chromium of this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of one browser. What it says on its console, and what it raises, is kept in ``said``.

    Args:
        program: the browser.
    """

    def __init__(self, program: str) -> None:
        self.home = tempfile.mkdtemp(prefix="se-browser-")
        (read, theirs), (mine, write) = os.pipe(), os.pipe()
        ours = {3: read, 4: write}

        def place() -> None:  # the browser reads from 3 and writes to 4
            high = {name: os.dup2(end, 60 + name) for name, end in ours.items()}
            for name, end in high.items():
                os.dup2(end, name)
                os.set_inheritable(name, True)

        command = [program, *QUIET, f"--user-data-dir={self.home}", "about:blank"]
        quiet: Any = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, stdin=quiet, stdout=quiet, stderr=quiet, preexec_fn=place, close_fds=False
        )
        os.close(read), os.close(write)
        self.to, self.back = theirs, mine
        self.rest, self.number, self.said, self.requested = b"", 0, [], []
        self.session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            RuntimeError: the browser refuses it, or has ended.
        """
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                result: dict[str, Any] = found["result"]
                return result
            self._note(found)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            if not select.select([self.back], [], [], max(0.0, end - time.monotonic()))[0]:
                raise RuntimeError("the browser does not answer")
            part = os.read(self.back, 2**20)
            if not part:
                raise RuntimeError("the browser has ended")
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        method, content = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.said.append(json.dumps(content["exceptionDetails"])[:600])
        elif method == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning", "assert"):
            self.said.append(" ".join(str(a.get("value", a.get("description"))) for a in content["args"])[:600])
        elif method == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            self.said.append(content["entry"]["text"] + " " + content["entry"].get("url", ""))
        elif method == "Network.requestWillBeSent":
            self.requested.append(content["request"]["url"])

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        """Load a page and wait until its script has run."""
        self.size(width, height)
        self.ask("Page.navigate", url=address)
        self.until("document.documentElement && document.documentElement.dataset.ready === 'true'")

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        """Set the size of the window in CSS pixels."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def media(self, scheme: str = "light", kind: str = "screen") -> None:
        """Set the scheme of colours (light, dark) and the medium (screen, print)."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=kind, features=features)

    def get(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page.

        Raises:
            RuntimeError: it raises.
        """
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {json.dumps(found['exceptionDetails'])[:600]}")
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true.

        Raises:
            TimeoutError: it does not come true.
        """
        end = time.monotonic() + PATIENCE
        while not self.get(f"Boolean({expression})"):
            if time.monotonic() > end:
                raise TimeoutError(expression)
            time.sleep(0.02)

    def put(self, selector: str, value: object, event: str = "change") -> None:
        """Set the value of a control and tell the page."""
        act = "(e => { e.value = %s; e.dispatchEvent(new Event('%s', {bubbles: true})); })(document.querySelector(%s))"
        self.get(act % (json.dumps(value), event, json.dumps(selector)))

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key."""
        same = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **same, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **same)

    def drag(self, x: float, y: float, to: float) -> None:
        """Press the mouse at a place of the window, move it along a line and let it go."""
        button: dict[str, Any] = {"button": "left", "clickCount": 1}
        self.ask("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **button)
        for k in range(1, 6):
            self.ask(
                "Input.dispatchMouseEvent", type="mouseMoved", x=x + (to - x) * k / 5, y=y, button="left", buttons=1
            )
        self.ask("Input.dispatchMouseEvent", type="mouseReleased", x=to, y=y, **button)

    def shot(self, file: Path, whole: bool = False) -> None:
        """Write a picture of what is seen, or of the whole page."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the browser and remove what it wrote."""
        try:
            self.session = None
            self.ask("Browser.close")
        except (RuntimeError, OSError):
            self.process.kill()
        self.process.wait()
        os.close(self.to), os.close(self.back)
        shutil.rmtree(self.home, ignore_errors=True)
