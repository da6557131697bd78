"""How the scheduler tells of its workers, on a disk that may be full."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

from hpclab.folder import SessionFolder
from hpclab.inside import roster as module
from hpclab.inside.roster import Roster

WORKER = SimpleNamespace(
    name="2-0",
    address="tls://10.0.0.7:9",
    nthreads=4,
    memory_limit=2**30,
    processing={"x": 1},
    metrics={"cpu": 93, "memory": 2**27},
    last_seen=9e9,
)


def test_what_could_not_be_written_is_told_later_and_no_word_of_it_in_the_log(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    folder, tries = SessionFolder(str(tmp_path)), []

    def announce(path: str, text: str) -> None:
        tries.append(path)
        if tries.count(path) == 1:
            raise OSError(28, "No space left on device")
        Path(path).write_text(text)

    async def told() -> None:
        roster = Roster(folder, SimpleNamespace(workers={WORKER.address: WORKER}))
        while not Path(folder.roster).exists():
            await asyncio.sleep(0.01)
        await roster.close()

    monkeypatch.setattr(module, "announce", announce)
    asyncio.run(asyncio.wait_for(told(), 20))
    (worker,) = json.loads(Path(folder.roster).read_text())["workers"]
    assert (worker["name"], worker["tasks"], worker["cpu_percent"]) == ("2-0", 1, 95)
    assert tries.count(folder.roster) == 2
    assert "".join(capfd.readouterr()) == ""
