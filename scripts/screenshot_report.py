"""A picture of a report, taken by a real browser: `screenshot_report.py REPORT.html OUT.png [--width 1280] [--dark]`.

Needs Chromium (Debian: `apt-get install chromium`). The browser gets an empty profile and no network.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    # Nothing but the file itself is reachable: a page that needed the network would show it by being broken.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def find_browser() -> str | None:
    """The path of an installed Chromium, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def browse(page: Path, *options: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Open `page` in a headless browser with a fresh profile; what it printed. Raises `RuntimeError` without one."""
    browser = find_browser()
    if browser is None:
        raise RuntimeError(f"no Chromium found (looked for {', '.join(BROWSERS)})")
    with tempfile.TemporaryDirectory(prefix="reglaj-browser-", ignore_cleanup_errors=True) as profile:
        command = [browser, *FLAGS, f"--user-data-dir={profile}", *options, page.resolve().as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def screenshot(page: Path, picture: Path, *, width: int, height: int, dark: bool) -> None:
    """Write `picture`, a PNG of the first `height` pixels of `page`."""
    theme = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    done = browse(page, f"--screenshot={picture.resolve()}", f"--window-size={width},{height}", *theme)
    if not picture.is_file():
        raise RuntimeError(f"the browser wrote no picture:\n{done.stderr[-2000:]}")


def main() -> int:
    """Parse the command line, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=1600, help="of the window, and so of the picture")
    parser.add_argument("--dark", action="store_true", help="as a reader with a dark theme sees it")
    given = parser.parse_args()
    try:
        screenshot(given.report, given.picture, width=given.width, height=given.height, dark=given.dark)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 4
    print(given.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
