"""A headless Chromium, driven over a pipe by the DevTools protocol."""

import base64
import contextlib
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"


class Page:
    """One page of a browser; `events` are those that came so far, in their order."""

    def __init__(self, read: int, write: int):
        self._read, self._write, self._count, self._rest = read, write, 0, b""
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    _session = None

    def call(self, method: str, seconds: float = 120, **parameters) -> dict:
        """Send a command and wait for its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda event: event.get("id") == self._count, seconds)
        assert "error" not in answer, f"{method}: {answer}"
        return answer["result"]

    def _wait(self, wanted, seconds: float) -> dict:
        deadline = time.monotonic() + seconds
        while True:
            while b"\0" not in self._rest:
                ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
                assert ready, f"the browser did not answer within {seconds} s"
                chunk = os.read(self._read, 1 << 20)
                assert chunk, "the browser has ended"
                self._rest += chunk
            message, _, self._rest = self._rest.partition(b"\0")
            event = json.loads(message)
            if "method" in event:
                self.events.append(event)
            if wanted(event):
                return event

    def open(self, path: Path, width: int, height: int) -> None:
        """Load a file in a window of so many CSS pixels, as on a phone where it is narrow."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )  # fmt: skip
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self._wait(lambda event: event.get("method") == "Page.loadEventFired", 120)

    def evaluate(self, expression: str):
        """The JSON value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser(profile: Path):
    """A page of a browser of its own, whose profile is in an empty folder."""
    to_browser, from_browser = os.pipe(), os.pipe()
    words = shlex.join([CHROMIUM, *OPTIONS.split(), f"--user-data-dir={profile}"])
    command = f"exec {words} 3<&{to_browser[0]} 4>&{from_browser[1]}"
    process = subprocess.Popen(
        ["bash", "-c", command], pass_fds=(to_browser[0], from_browser[1]), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_browser[0]), os.close(from_browser[1])
    try:
        yield Page(from_browser[0], to_browser[1])
    finally:
        process.terminate()
        process.wait(30)
        os.close(to_browser[1]), os.close(from_browser[0])
