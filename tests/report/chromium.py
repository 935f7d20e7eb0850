"""A real browser for tests of pages: Chromium without a window, driven by its command line alone.

What a page looks like is read in two ways: as a picture, and as what the browser measured of its elements, which a script that is put into
a copy of the page writes down (the pages themselves have no scripts and forbid them).
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1"]
SECONDS = 120

MEASURE = """<script>addEventListener("load", () => {
  const box = element => { const b = element.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; };
  const nodes = [...document.querySelectorAll(".node")].map(node => ({turn: node.dataset.turn, box: box(node),
    shown: node.checkVisibility(), edge: getComputedStyle(node).borderLeftColor, text: node.innerText}));
  const spots = [...document.querySelectorAll(".spot")].map(spot => ({link: spot.parentNode.getAttribute("href"), box: box(spot)}));
  const page = document.documentElement;
  const found = {nodes, spots, wide: page.scrollWidth, window: page.clientWidth, high: page.scrollHeight};
  const written = document.createElement("pre"); written.id = "measured"; written.textContent = JSON.stringify(found);
  page.append(written);
})</script>"""


def find() -> str:
    """The browser's command; skips the test where there is none."""
    command = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if command is None:
        pytest.skip(f"no browser to look at pages with: none of {', '.join(NAMES)} is installed and CHROMIUM is not set")
    return command


def screenshot(page: Path, picture: Path, *, width: int, height: int) -> None:
    """Write a picture of the page as a window of that size shows it."""
    _run(page.as_uri(), picture.parent, f"--window-size={width},{height}", f"--screenshot={picture}")


def measure(page: Path, *, width: int, place: str = "") -> dict[str, Any]:
    """What the browser measured in a window of that width, after it went to `place` on the page: see `MEASURE`."""
    text, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', lambda _: MEASURE, page.read_text())
    assert count == 1, "the page does not forbid scripts"
    copy = page.with_name(f"measured-{page.name}")
    copy.write_text(text)
    found = _run(f"{copy.as_uri()}#{place}", page.parent, f"--window-size={width},900", "--dump-dom")
    written = re.search(r'<pre id="measured">(.*?)</pre>', found, re.DOTALL)
    assert written, f"the browser measured nothing: {found[-500:]}"
    measured: dict[str, Any] = json.loads(html.unescape(written.group(1)))
    return measured


def _run(address: str, folder: Path, *arguments: str) -> str:
    profile = folder / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    command = [find(), *FLAGS, f"--user-data-dir={profile}", *arguments, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
