"""What two say at once, the script of a run hears once."""

from __future__ import annotations

import signal
import subprocess
import sys


def test_a_script_hears_once_what_is_said_by_two_and_again_what_is_said_later():
    program = (
        "import os, signal\n"
        "from hpclab.inside import once\n"
        "once.say_it_once()\n"
        "def hear(*_):\n"
        "    print('begins')\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('ends')\n"
        "assert signal.signal(signal.SIGTERM, hear) is signal.SIG_DFL\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "once.AGAIN_S = 0\n"
        "assert signal.signal(signal.SIGTERM, lambda *_: print('other')) is hear\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-uc", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "begins\nends\nother\nother\n"), done.stderr
