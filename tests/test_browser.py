"""The user's browser gets its page, and nobody who lists processes gets the token."""

from __future__ import annotations

import html
import importlib
import re
import urllib.parse
import webbrowser
from pathlib import Path

import pytest

from hpclab import browser
from hpclab.browser import has_browser, open_page
from hpclab.hosts.local import LocalHost

URL = "http://127.0.0.1:8888/lab?token=5ec2e7&it=\"'<x>"


@pytest.fixture
def host(tmp_path) -> LocalHost:
    return LocalHost({"HPCLAB_HOME": str(tmp_path / "a home")})


@pytest.fixture
def a_browser(tmp_path, monkeypatch):
    """a_browser("exit 1") is what $BROWSER does; it writes down how it was called."""

    def _a_browser(text: str = "") -> Path:
        program = tmp_path / "browser"
        program.write_text(f"#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/cmdline >> {tmp_path}/called\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setenv("BROWSER", str(program))
        monkeypatch.delenv("DISPLAY", raising=False)
        importlib.reload(webbrowser)
        return tmp_path / "called"

    yield _a_browser
    monkeypatch.undo()
    importlib.reload(webbrowser)


def page_of(called: Path) -> Path:
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(called.read_text().splitlines()[-1]).path))


def test_the_browser_is_led_on_by_a_file_and_its_argv_has_no_token(host, a_browser):
    called = a_browser()
    assert open_page(host, URL, "calm-otter")
    assert "5ec2e7" not in called.read_text()
    text = page_of(called).read_text()
    assert html.unescape(re.search(r'content="0; url=([^"]*)"', text)[1]) == URL
    assert html.unescape(re.search(r'href="([^"]*)"', text)[1]) == URL


def test_the_file_is_the_users_alone(host, a_browser):
    called = a_browser()
    open_page(host, URL, "calm-otter")
    assert page_of(called).stat().st_mode & 0o077 == 0
    assert page_of(called).parent.stat().st_mode & 0o077 == 0


def test_a_newer_page_takes_the_older_ones_place(host, a_browser):
    called = a_browser()
    for token in ("old", "new"):
        assert open_page(host, f"http://127.0.0.1/?token={token}", "calm-otter")
    assert "token=new" in page_of(called).read_text()
    assert len(list(page_of(called).parent.iterdir())) == 1


def test_a_browser_that_cannot_is_told(host, a_browser):
    a_browser("exit 1")
    assert not open_page(host, URL, "calm-otter")


def test_a_browser_that_returns_when_it_is_closed_keeps_nobody_waiting(host, a_browser, tmp_path, monkeypatch):
    monkeypatch.setattr(browser, "AT_ONCE_S", 0.1)
    a_browser(f"touch {tmp_path}/open\nwhile [ ! -e {tmp_path}/closed ]; do sleep 0.02; done")
    assert open_page(host, URL, "calm-otter")
    (tmp_path / "closed").touch()


def test_where_nothing_can_be_written_there_is_no_page(tmp_path, a_browser):
    called = a_browser()
    (tmp_path / "file").touch()
    assert not open_page(LocalHost({"HPCLAB_HOME": str(tmp_path / "file")}), URL, "calm-otter")
    assert not called.exists()


def test_a_home_may_be_relative(a_browser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = a_browser()
    assert open_page(LocalHost({"HPCLAB_HOME": "here"}), URL, "calm-otter")
    assert page_of(called).is_file()


@pytest.mark.parametrize(
    ("platform", "env", "has"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"BROWSER": "lynx"}, True),
        ("linux", {"DISPLAY": ""}, False),
        ("darwin", {}, True),
        ("darwin", {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, False),
        ("win32", {}, True),
    ],
)
def test_who_sits_in_front_of_a_screen(monkeypatch, platform, env, has):
    monkeypatch.setattr("sys.platform", platform)
    assert has_browser(env) is has
