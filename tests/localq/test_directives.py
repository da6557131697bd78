"""What a script may ask for in its head."""

from __future__ import annotations

import pytest

from hpclab.localq.directives import OPTIONS, parse_directives
from hpclab.localq.record import Job


@pytest.mark.parametrize(
    "directive",
    [
        "--colour=red",
        "--cores=0",
        "--cores=many",
        "--cores=1_0",
        "--memory=4G",
        "--walltime",
        "--job-name='unfinished",
        "--job-name=two words",
        "--cores=1 --memory=1",
        "",
    ],
)
def test_a_malformed_directive_is_named(a_queue, directive):
    text = f"#!/bin/bash\n\n# hello\n#HPCLAB {directive}\ntrue\n"
    done = a_queue.run("submit", "-", stdin=text)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("localq: line 4: ")
    assert repr(f"#HPCLAB {directive}".strip()) in done.stderr


def test_only_the_head_of_the_script_holds_directives(a_queue):
    head = "#!/bin/bash\n#HPCLAB --job-name='a b'\n#HPCLABELS are no directives\n\n#HPCLAB --cores=2\n"
    a_queue.submit(head + "true\n#HPCLAB --nonsense\n")
    job = a_queue.end_of("1")
    assert (job["name"], job["cores"], job["state"]) == ("a b", 2, "COMPLETED")


def test_every_option_has_its_field():
    head = """
        #HPCLAB --cores=2
        #HPCLAB --memory=3
        #HPCLAB --walltime=4
        #HPCLAB --slots=5
        #HPCLAB --grace=0
        #HPCLAB --output='a b.%j'
        #HPCLAB --job-name="it's"
        #HPCLAB --cores=1"""
    asked = parse_directives(head)
    assert asked == {
        "cores": 1,  # the last one counts
        "memory_bytes": 3,
        "walltime_s": 4,
        "slots": 5,
        "grace_s": 0,
        "output": "a b.%j",
        "name": "it's",
    }
    assert len(asked) == len(OPTIONS)
    assert set(asked) <= set(Job._fields)
