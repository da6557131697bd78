"""Which login node a command is for."""

from __future__ import annotations

import pytest
from fixtures import settings

from hpclab import place
from hpclab.bookmarks import Bookmark
from hpclab.errors import NoSuchSession
from hpclab.place import place_of

LOGIN, ELSEWHERE = "ada@login", "bob@elsewhere"


def bookmark(name: str = "calm-otter", destination: str = LOGIN, **more) -> Bookmark:
    return Bookmark(name=name, destination=destination, **more)


def remembered(name: str, here: list[str], bookmarks: list[Bookmark], *, held: str = "") -> Bookmark | None:
    """`held` is the session whose tunnel is open."""
    return place.remembered(name, here, bookmarks, is_held=lambda bookmark: bookmark.name == held)


# said or configured


def test_a_host_that_is_said_is_reached_as_the_settings_say():
    said = settings(host=LOGIN, ssh="openssh", remote_python="~/env/bin/python", remote_prologue=("module load x",))
    there = place_of(said, "calm-otter", [])
    assert there == bookmark(ssh="openssh", python="~/env/bin/python", prologue=("module load x",))


def test_a_known_session_has_its_node_and_ports_again():
    known = bookmark(address="10.0.0.1", jupyter_port=8889, dashboard_port=8788, ssh="openssh")
    there = place_of(settings(host=LOGIN), "calm-otter", [bookmark("bold-heron", address="10.9.9.9"), known])
    assert (there.address, there.jupyter_port, there.dashboard_port) == ("10.0.0.1", 8889, 8788)
    assert there.ssh == "auto"


@pytest.mark.parametrize(("name", "host"), [("", LOGIN), ("calm-otter", ELSEWHERE), ("bold-heron", LOGIN)])
def test_what_is_known_of_another_session_is_not_taken(name, host):
    there = place_of(settings(host=host), name, [bookmark(address="10.0.0.1", jupyter_port=8889)])
    assert there == bookmark(name, host)


# not said


def test_without_any_bookmark_it_is_this_machine():
    assert remembered("", [], []) is None
    assert remembered("calm-otter", [], []) is None


def test_a_named_session_is_where_it_was_started():
    assert remembered("calm-otter", [], [bookmark(), bookmark("bold-heron", ELSEWHERE)]) == bookmark()


def test_a_name_that_is_not_known_is_looked_for_here():
    assert remembered("bold-heron", [], [bookmark()]) is None


def test_of_two_with_one_name_the_one_on_this_machine_is_meant():
    assert remembered("calm-otter", ["calm-otter"], [bookmark()]) is None


def test_one_name_on_two_hosts_must_be_told_apart():
    with pytest.raises(NoSuchSession, match=r"calm-otter on ada@login, bob@elsewhere\nsay which one: --host HOST"):
        remembered("calm-otter", [], [bookmark(), bookmark(destination=ELSEWHERE)])


def test_without_a_name_the_only_host_is_asked_which_one_is_meant():
    assert remembered("", [], [bookmark(), bookmark("bold-heron", address="10.0.0.1")]) == bookmark(
        "", address="10.0.0.1"
    )


@pytest.mark.parametrize(
    ("here", "bookmarks", "words"),
    [
        (["bold-heron"], [bookmark()], "bold-heron on this machine, calm-otter on ada@login"),
        ([], [bookmark(), bookmark("x", ELSEWHERE)], "calm-otter on ada@login, x on bob@elsewhere"),
    ],
)
def test_several_that_may_be_meant_must_be_told_apart(here, bookmarks, words):
    with pytest.raises(NoSuchSession, match=words):
        remembered("", here, bookmarks)


def test_without_a_name_the_one_whose_tunnel_is_open_is_meant():
    known = [bookmark("x", ELSEWHERE), bookmark()]
    assert remembered("", [], known, held="x") == bookmark("", ELSEWHERE)


def test_a_name_counts_more_than_an_open_tunnel():
    assert remembered("calm-otter", [], [bookmark(), bookmark("x", ELSEWHERE)], held="x") == bookmark()
