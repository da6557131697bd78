"""Nobody comes in without having logged in, by any route that there is; and no other page changes anything."""

from __future__ import annotations

import pytest

from hpclab.server.desk import Desk
from hpclab.server.routes import handlers

from .a_server import TOKEN

METHODS = ("get", "head", "post", "put", "patch", "delete")
ROUTES = [
    (method.upper(), pattern.replace("(/.*)?", "/status").replace("([^/]+)", "1").lstrip("/"))
    for pattern, route, _ in handlers("/", Desk(root_dir="/"))
    for method in METHODS
    if method in {name for cls in route.__mro__ if cls.__module__.startswith("hpclab.") for name in vars(cls)}
]
"""Of the extension itself, so that none can be forgotten."""
each = pytest.mark.parametrize(("method", "path"), ROUTES)
changing = pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[0] not in ("GET", "HEAD")])
BODY = {"count": 1, "request": "x"}


def test_the_routes_are_those_of_the_contract():
    assert {f"{method} {path}" for method, path in ROUTES} == {
        "GET hpclab/session",
        "POST hpclab/workers",
        "DELETE hpclab/workers/1",
        "POST hpclab/scale",
        "GET hpclab/jobs/1/why",
        "GET hpclab/jobs/1/log",
        "POST hpclab/stop",
        "POST hpclab/start",
        "GET proxy/hpclab/status",
        "HEAD proxy/hpclab/status",
    }


def is_shut(answer) -> bool:
    return answer.status_code in (401, 403) or (answer.status_code == 302 and "/login" in answer.headers["Location"])


@each
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "token wrong"}, {"Authorization": f"token {TOKEN[:-1]}"}, {"Cookie": "_xsrf=2|a|b|1"}],
    ids=["nothing", "a wrong token", "a part of the token", "a cookie of nobody"],
)
def test_without_a_login_every_route_is_shut(a_plain_server, method, path, headers):
    answer = a_plain_server.ask(method, path, BODY, headers=headers)
    assert is_shut(answer), (answer.status_code, answer.text)


@each
def test_with_the_token_it_is_open(a_plain_server, method, path):
    answer = a_plain_server.ask(method, path, None if method in ("GET", "HEAD") else {"what": 1})
    assert not is_shut(answer)
    # there is no session; a body that says nothing sensible comes first
    assert answer.status_code == (503 if path.startswith("proxy") else 200 if path == "hpclab/session" else 404) or (
        method == "POST" and answer.status_code == 400
    )


@changing
def test_a_page_elsewhere_cannot_use_a_browsers_cookies(a_plain_server, method, path):
    browser = a_plain_server.a_browser()
    for headers in ({}, {"X-XSRFToken": "2|a|b|1"}, {"Origin": "http://evil.example"}):
        answer = browser.request(method, a_plain_server.url + path, json=BODY, headers=headers, timeout=60)
        assert answer.status_code in (403, 404), headers
        assert answer.json()["error"] in ("Forbidden", "NotFound")


@changing
def test_the_page_itself_can(a_plain_server, method, path):
    browser = a_plain_server.a_browser()
    xsrf = next(cookie.value for cookie in browser.cookies if cookie.name == "_xsrf")
    answer = browser.request(
        method, a_plain_server.url + path, json={"what": 1}, headers={"X-XSRFToken": xsrf}, timeout=60
    )
    assert answer.json()["error"] in ("ConfigError", "NoSuchSession")


def test_another_page_may_not_even_read(a_plain_server):
    browser = a_plain_server.a_browser()
    answer = browser.get(a_plain_server.url + "hpclab/session", headers={"Origin": "http://evil.example"}, timeout=60)
    assert answer.status_code == 404
    assert "Access-Control-Allow-Origin" not in answer.headers
