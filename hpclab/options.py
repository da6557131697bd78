"""The command line's options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

name = click.argument("name", required=False)
of_session = click.option("-s", "--session", "name", metavar="NAME", help="The session; needed if several are running.")
host = click.option("--host", metavar="[USER@]HOST", help="The login node that it is on, as ssh knows it.")
json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
profile = click.option("--profile", metavar="NAME", help="Use [profile.NAME] of your config.")


def options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def list_option(name: str, key: str, *, metavar: str, help: str) -> Callable[[Any], Any]:
    """One that may be given several times; not given, it is None, and the config's list stands."""
    return click.option(
        name, key, metavar=metavar, multiple=True, help=help, callback=lambda _, __, value: list(value) or None
    )


queue = click.option(
    "-q", "--queue", metavar="SYSTEM[:QUEUE]", help="The batch system, and a queue of it. [default: auto]"
)
of_each_worker = options(
    click.option("-c", "--cores", metavar="N", help="Cores of each worker."),
    click.option("-m", "--memory", metavar="SIZE", help="Memory of each worker, such as 4G."),
    click.option("-G", "--gpus", metavar="N", help="GPUs of each worker."),
)
of_site = options(
    click.option("-A", "--account", metavar="NAME", help="Whom the time is charged to."),
    click.option("--qos", metavar="NAME", help="Quality of service."),
    click.option("--constraint", metavar="TEXT", help="What the nodes must have, in the batch system's words."),
    click.option("--interface", metavar="NAME", help="The network for Dask, such as ib0."),
)
resources = options(
    queue,
    click.option("-N", "--nodes", metavar="N", help="Nodes of the main job."),
    click.option("-w", "--workers", metavar="N", help="Dask workers in the main job."),
    of_each_worker,
    click.option("-t", "--walltime", metavar="TIME", help="How long the session may run, such as 2h or 1:30:00."),
    of_site,
)
program = options(
    queue,
    click.option("-n", "--ntasks", metavar="N", help="Tasks, see above. [default: 4]"),
    click.option("-N", "--nodes", metavar="N", help="Nodes to spread them over. [default: 1]"),
    of_each_worker,
    click.option("-t", "--walltime", metavar="TIME", help="How long the script may run, such as 2h or 1:30:00."),
    of_site,
    click.option("--launch", metavar="HOW", help="mpi or file, see above. [default: mpi]"),
)
environment = options(
    list_option("--module", "modules", metavar="NAME", help="Load a module; may be given again."),
    click.option("--conda", metavar="ENV", help="Activate a conda environment, by name or folder."),
    click.option("--venv", metavar="FOLDER", help="Activate a virtual environment."),
    list_option("--export", "export", metavar="NAME=VALUE", help="Set a variable; may be given again."),
    click.option("--container", metavar="IMAGE", help="Run the jobs in an Apptainer or Singularity image."),
    list_option(
        "--container-bind", "binds", metavar="PATH", help="What the container sees besides home; may be given again."
    ),
    click.option("--python", metavar="PATH", help="The Python of the jobs."),
)
tunnel = options(
    host,
    click.option("--no-tunnel", is_flag=True, help="With --host: print how to connect, and end."),
    click.option("--no-browser", is_flag=True, help="With --host: print the link, and open no browser."),
    click.option("--bell", is_flag=True, help="Ring the terminal's bell when JupyterLab is up."),
)
