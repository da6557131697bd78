"""ada at work: a session from her laptop, its notebook and its panel open in her browser."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from jupyterlab_page import NotebookPage
from laptop import Foreground, Laptop
from panel_page import PanelPage
from playwright.sync_api import Page, expect
from sites import Site

COMPUTE = """from dask.distributed import Client
client = Client()
sum(client.gather(client.map(lambda i: i, range(100), pure=False)))"""
COMPUTED = "4950"
SLOWLY_MS = 60_000


@dataclass(frozen=True)
class AtWork:
    """Her session is called x."""

    site: Site
    laptop: Laptop
    begun: Foreground
    notebook: NotebookPage
    panel: PanelPage
    node: str

    @staticmethod
    def begin(site: Site, laptop: Laptop, page: Page, *cells: str) -> AtWork:
        begun = laptop.begin("hpclab", "start", "--host", "ada@login", "--queue", site.system, "--name", "x", "--json")
        described = begun.described()
        home = site.cluster.on("login").file("/home/ada")
        notebook = NotebookPage.open(page, described["jupyter_url"], home, *(cells or (COMPUTE,)))
        panel = PanelPage(page)
        panel.show()
        expect(panel.title).to_have_text("x")
        return AtWork(site, laptop, begun, notebook, panel, described["node"].partition(".")[0])

    def add_worker(self) -> str:
        """That joins."""
        (job_id,) = self.panel.add_workers(1)
        expect(self.panel.state_of(job_id)).to_have_text("joined", timeout=SLOWLY_MS)
        return job_id

    def kill_scheduler(self) -> None:
        address = json.loads(self.site.file("x", "connection.json").read_text())["scheduler_address"]
        root = self.site.cluster.on(self.node, user="root")
        listening = root.says(f"ss -Hltnp sport = :{address.rpartition(':')[2]}")
        root.run(["kill", "-KILL", *re.findall(r"pid=(\d+)", listening)])

    def ended(self, words: str) -> None:
        """Her hpclab has, and says why; nothing is left on the laptop or of the session."""
        assert self.begun.wait(within_s=60) == 0
        assert words in self.begun.said.splitlines()[-1]
        self.laptop.nothing_is_left()
