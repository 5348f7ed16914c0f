"""The console's picture in the docs: a dataset's page of the demo, as a browser shows it.

``make demo``, then ``python -m tests.docs.console_picture demo-out docs/console.png``. It needs Debian's chromium.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright

from audit.console.app import create_app
from audit.verification.sources import parse_trust

WIDTH, HEIGHT = 1120, 782


@contextmanager
def served(home: Path, trust: str) -> Iterator[str]:
    """The console of a home, on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(str(home), trust=parse_trust(trust))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def take_picture(demo: Path, dataset: str, out: Path) -> None:
    """Write a picture of a dataset's page, from the coordinator's copy of a demo."""
    with (
        served(demo / "coordinator", str(demo / "genesis.leaf")) as address,
        sync_playwright() as p,
    ):
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB")
        page.goto(f"{address}/datasets/{dataset}")
        page.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("demo", type=Path, help="the demo's folder")
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--dataset", default="basel-cells")
    given = parser.parse_args()
    take_picture(given.demo, given.dataset, given.out)
