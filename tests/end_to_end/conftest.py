"""Fixtures that read as sentences. Whatever a test starts ends with it; the fixture sees to it that nothing is left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import AnotherUser, Home, Session, need_root
from playwright.sync_api import Browser, Page, expect, sync_playwright

PAGE_WITHIN_MS = 30_000
"""A browser beside other tests may take long to show what is there."""


@pytest.fixture
def a_home(tmp_path: Path) -> Iterator[Callable[..., Home]]:
    """Makes a home; its settings are HPCLAB_… variables."""
    made: list[Home] = []

    def make(**settings: str) -> Home:
        home = Home(tmp_path / str(len(made)), {f"HPCLAB_{name.upper()}": value for name, value in settings.items()})
        made.append(home)
        return home

    yield make
    for home in made:
        home.clear()


@pytest.fixture(scope="module")
def a_running_session() -> Iterator[Session]:
    """One for all tests of a module that leave it as they found it.

    Its home stands where everybody may look for it: only its own modes keep others out.
    """
    with tempfile.TemporaryDirectory(prefix="hpclab-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        home = Home(path, {"HPCLAB_DRAIN": "4s"})
        try:
            yield home.start("--name", "shared")
        finally:
            home.clear()


@pytest.fixture
def a_worker_job(a_running_session: Session) -> Iterator[str]:
    """The id of a worker job that has joined; gone again after the test."""
    job_id = a_running_session.add_worker()
    yield job_id
    a_running_session.home.ok("remove-worker", job_id, "--session", a_running_session.name)


@pytest.fixture
def another_user() -> AnotherUser:
    need_root()
    return AnotherUser()


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("there is no chromium")
    return found


# not for the whole run: as long as it is open, its event loop counts as running, and tests with one of their own fail
@pytest.fixture(scope="module")
def a_browser(chromium: str) -> Iterator[Browser]:
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
    expect.set_options(timeout=PAGE_WITHIN_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--no-first-run", "--no-proxy-server", *(f"--disable-{what}" for what in quiet)],
        )
        yield browser
        browser.close()


@pytest.fixture
def a_browser_page(a_browser: Browser) -> Iterator[Page]:
    """Of a browser that knows nothing yet: no cookie, no cache."""
    with a_browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        context.set_default_timeout(PAGE_WITHIN_MS)
        yield context.new_page()
