"""In place of ssh: `python -m hpclab.mpi.agent SOCKET HOST COMMAND…`, called by an MPI launcher (see `launch`)."""

from __future__ import annotations

import json
import socket
import sys


def main() -> int:
    path, host, *command = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(json.dumps({"host": host, "command": " ".join(command)}).encode() + b"\n")
        answer = line.makefile().readline()
    if not answer:
        return 255
    told = json.loads(answer)
    sys.stderr.write(told["said"])
    return int(told["exit_status"])


if __name__ == "__main__":
    sys.exit(main())
