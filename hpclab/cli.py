"""The command line: parse, one call of the core, print. No behaviour lives here."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hpclab import options
from hpclab.__about__ import __version__
from hpclab.batch import parse_queue
from hpclab.bookmarks import Bookmarks
from hpclab.config import Setting, Settings, Source, as_variables, config_files, defaults, load
from hpclab.current import current_session
from hpclab.elsewhere import OfScript, OfSession, Repeatable, afar, for_the_cluster, place_of_session, settings_for
from hpclab.errors import (
    INTERRUPTED,
    CommandError,
    ConfigError,
    HpclabError,
    IsRun,
    SiteUnfit,
    StoreError,
    TookTooLong,
    UnreadableOutput,
)
from hpclab.fit import fit as fit_shapes
from hpclab.follow import follow
from hpclab.growth import MOST_WORKERS, parse_shapes
from hpclab.hosts.local import LocalHost
from hpclab.interrupts import held_back
from hpclab.place import place_of
from hpclab.program import STDOUT, checked_program, ending, printed
from hpclab.progress import Progress
from hpclab.request import shaped
from hpclab.session import ALIVE, Session
from hpclab.show import (
    change_text,
    config_table,
    connection_text,
    console,
    detached_text,
    doctor_text,
    offers_table,
    sessions_table,
    status_text,
    story_text,
    submitted_text,
)
from hpclab.units import counted

if TYPE_CHECKING:
    from hpclab.doctor import Examined

BY_HAND = ("slurm", "pbs")
"""The batch systems that scripts for submission by hand have directives for."""
SIGNALLED = 128
"""What shells add to the number of the signal that a program was killed by, for an exit status."""
KEEP_LOOKS_EVERY_S = 10
KEEP_GIVES_UP_AFTER = 60
"""Looks in a row that failed."""


def main() -> None:
    """Entry point; every error that hpclab can explain becomes a message and its own exit code."""
    # a terminal without our dots and dashes shall show the rest
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # whatever we or the jobs write is the user's alone
    os.umask(0o077)
    # only there it is ours: a script of `hpclab run` may have one, too
    exit_status = run(sys.argv[1:], debug=sys.argv[1:2] == ["--debug"])
    # Ctrl-C within an exec of somebody's, as at the making of a dataclass, stays noted as one that nobody has handled,
    # and `python -m` would end by it; the next exec clears that
    exec("")
    sys.exit(exit_status)


def run(argv: list[str], *, debug: bool = False) -> int:
    """One command line; its exit status."""
    try:
        cli(argv, prog_name="hpclab", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except HpclabError as error:
        if debug:
            raise
        click.echo(f"hpclab: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if debug or error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo("hpclab: there is no space left for the output", err=True)
        return 1
    return 0


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="hpclab %(version)s")
@click.option("--debug", is_flag=True, help="Show Python's traceback with an error.")
def cli(debug: bool) -> None:
    """JupyterLab with Dask behind it, on a batch-scheduled cluster.

    \b
    hpclab start                   a session: JupyterLab and Dask in one job
    hpclab start --host LOGIN      the same, said on your laptop: with the tunnel to it
    hpclab add-worker              one more worker, again and again
    hpclab run SCRIPT              a script as a batch job, with Dask
    hpclab status                  what runs, what waits and why
    hpclab stop                    the end of it all
    """


def _settings(**given: Any) -> Settings:
    return _load(given)[0]


def _load(given: dict[str, Any]) -> tuple[Settings, list[Setting]]:
    return load(os.environ, config_files(os.environ), given)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise ConfigError("the folder that you are in is gone\ncd to another one, and say it again") from error


def _host() -> LocalHost:
    return LocalHost(os.environ)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


@cli.command()
@click.option("--name", default="", help="The session's name. [default: a new one]")
@options.resources
@click.option("--fit", metavar="SHAPES", help="Take what starts soonest of several NODESxCORES, such as 1x4,1x16,4x16.")
@click.option("--keep", metavar="N", help="Keep N added workers through the session.")
@click.option("--bind", metavar="NET", help="Who reaches JupyterLab: the cluster's network, or its node's loopback.")
@options.environment
@options.profile
@options.tunnel
@options.json
def start(
    name: str, fit: str | None, as_json: bool, no_tunnel: bool, no_browser: bool, bell: bool, **given: Any
) -> None:
    """Start a session, and print how to connect.

    Submits its main job and follows it until JupyterLab answers. The session goes on when this command ends, also when
    it is interrupted.

    With --host it does so on a login node, from your own machine; opens the tunnel and your browser; and holds the
    tunnel, over lost connections and a laptop's sleep, until Ctrl-C.
    """
    settings, chosen = _load(given)
    if settings.host:
        from hpclab.afar import Wishes

        parse_queue(settings.queue)  # before anybody has to log in
        wishes = Wishes(as_json=as_json, browser=not no_browser, tunnel=not no_tunnel, bell=bell)
        told = {s.key: s.value for s in for_the_cluster(chosen)}
        afar(place_of(settings, "", []), holds=not no_tunnel).start(told, name=name, fit=fit or "", wishes=wishes)
        return
    if fit:
        settings = _fitted(settings, fit)
    with held_back() as let_through:
        session = Session.start(_host(), settings, name=name, notebook_dir=_here())
        with _interruptible(session):
            let_through()
            _follow(session)
    if bell:
        click.echo("\a", nl=False, err=True)
    described = session.describe_with_secrets()
    if as_json:
        _print_json(described)
    else:
        console().print(connection_text(described), markup=False)


def _fitted(settings: Settings, fit: str) -> Settings:
    """The settings with the shape that starts soonest; the comparison is shown."""
    with console(stderr=True).status("asking the batch system when each shape would start"):
        offers, best = fit_shapes(_host(), settings, parse_shapes(fit), notebook_dir=_here())
    console(stderr=True).print(offers_table(offers, best))
    return shaped(settings, best.shape)


@contextmanager
def _half_done(again: str) -> Iterator[None]:
    """Ctrl-C while waiting for jobs to end: what was asked of the batch system goes on."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            f"\ninterrupted; what was asked for goes on: look with `hpclab status`, or say again: {again}", err=True
        )
        sys.exit(INTERRUPTED)


@contextmanager
def _interruptible(session: Session) -> Iterator[None]:
    """Ctrl-C while waiting loses nothing, and says so."""
    try:
        yield
    except KeyboardInterrupt:
        state = session.describe()["state"]
        what, again = ("run", "print its output again") if session.program else ("session", "print how to connect")
        click.echo(f"\ninterrupted; the {what} {session.name} is still {state}, and goes on\n", err=True)
        click.echo(f"  hpclab attach {session.name}    follow it, and {again}", err=True)
        click.echo(f"  hpclab stop {session.name}      cancel it", err=True)
        sys.exit(INTERRUPTED)


def _follow(session: Session, *, although_hopeless: bool = False) -> None:
    progress = Progress(console(stderr=True))
    progress.say(f"{'run' if session.program else 'session'} {session.name}")
    with progress.shown():
        for phase in follow(session, although_hopeless=although_hopeless):
            progress.tell(phase)


@cli.command("run", cls=OfScript, context_settings={"allow_interspersed_args": False})
@click.option("--name", default="", help="The run's name. [default: a new one]")
@options.program
@click.option("--detach", is_flag=True, help="Do not wait: say how to look, to follow and to cancel.")
@options.environment
@options.profile
@options.host
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_script(name: str, detach: bool, script: str, arguments: tuple[str, ...], **given: Any) -> None:
    """Run a Python script with Dask as a batch job.

    Submits it, follows it, prints what it prints, and ends with its exit status. What stands behind SCRIPT is the
    script's own. The run goes on when this command is interrupted.

    \b
    --launch mpi    The script is run as by `mpiexec -n NTASKS python SCRIPT`.
                    It calls hpclab.initialize(), or dask_mpi.initialize(): then
                    one MPI rank is the Dask scheduler, one goes on with the
                    script, and NTASKS - 2 are workers.
    --launch file   All NTASKS are workers, with the whole of the job; scheduler
                    and script run beside them. A plain Client() is connected;
                    $HPCLAB_SCHEDULER_FILE is for Client(scheduler_file=...).
    """
    settings, chosen = _load(given)
    if settings.host:
        argv, env = click.get_current_context().meta["argv"], as_variables(for_the_cluster(chosen))
        sys.exit(afar(place_of(settings, "", [])).run_script(argv, env, name=name, detach=detach))
    program = checked_program(_host(), script, arguments, folder=_here())
    with held_back() as let_through:
        session = Session.start(_host(), settings, name=name, notebook_dir=_here(), program=program)
        if detach:
            click.echo(detached_text(session.name, program.name))
            return
        with _interruptible(session):
            let_through()
            sys.exit(_followed_to_its_end(session))


def _followed_to_its_end(session: Session, *, although_hopeless: bool = False) -> int:
    """Print what a run's script prints; its exit status."""
    _follow(session, although_hopeless=although_hopeless)
    try:
        for piece in printed(session):
            stream = (sys.stdout if piece.stream == STDOUT else sys.stderr).buffer
            stream.write(piece.data)
            stream.flush()
    except BrokenPipeError:
        click.echo(f"nobody reads on; {session.name} goes on: see `hpclab status {session.name}`", err=True)
        raise
    exit_status = ending(session)
    if exit_status and not session.has_room():
        click.echo(f"hpclab: there is no space left in {session.folder.path}, where its output goes", err=True)
    if exit_status > SIGNALLED:
        assert session.program is not None
        click.echo(f"hpclab: {session.program.name} was killed by signal {exit_status - SIGNALLED}", err=True)
    return exit_status


@cli.command("add-worker", cls=OfSession)
@click.option(
    "-n", "--count", type=click.IntRange(1, MOST_WORKERS), default=1, show_default=True, help="How many such jobs."
)
@click.option("-c", "--cores", metavar="N", help="Cores of each worker.")
@click.option("-m", "--memory", metavar="SIZE", help="Memory of each worker.")
@click.option("-G", "--gpus", metavar="N", help="GPUs of each worker.")
@click.option("-t", "--walltime", "worker_walltime", metavar="TIME", help="How long the job may run.")
@click.option("--workers-per-job", metavar="N", help="Dask workers in each job.")
@click.option("--anyway", is_flag=True, help="Also when the last ones failed to start.")
@options.of_session
@options.json
@options.host
def add_worker(name: str | None, count: int, anyway: bool, as_json: bool, **given: Any) -> None:
    """Submit a small job whose worker joins the session.

    What is not given is as `hpclab start` had it, and the walltime as `worker_walltime` says. Many at once are one
    array job where the batch system has arrays.
    """
    session = current_session(name, to_grow=True)
    asked = _settings(**given)
    named = {key for key, value in given.items() if value is not None}
    record = session.request.worker_record(
        workers=asked.workers_per_job if "workers_per_job" in named else None,
        cores=asked.cores if "cores" in named else None,
        memory_bytes=asked.memory_bytes if "memory" in named else None,
        walltime_s=asked.worker_walltime_s if "worker_walltime" in named else None,
        gpus=asked.gpus if "gpus" in named else None,
    )
    job_ids = session.add_worker(record, count, although_failing=anyway)
    if as_json:
        _print_json({"name": session.name, "jobs": job_ids})
    else:
        click.echo(f"{submitted_text(job_ids, session.name)}; see them with `hpclab status`")


@cli.command("remove-worker", cls=OfSession)
@click.argument("job_id", metavar="JOB")
@options.of_session
@options.host
def remove_worker(name: str | None, job_id: str) -> None:
    """Let a job's workers hand over their data and leave.

    Then the job ends. One that is still queued is cancelled.
    """
    click.echo(current_session(name, to_grow=True).remove_worker(job_id))


@cli.command(cls=OfSession)
@click.argument("workers", type=click.IntRange(0, MOST_WORKERS))
@options.of_session
@options.host
def scale(name: str | None, workers: int) -> None:
    """Grow or shrink to a number of workers in all.

    Those of the main job count, and stay. To shrink, queued jobs are cancelled first; then workers hand over their data
    and leave, idle ones before others.
    """
    session = current_session(name, to_grow=True)
    with _half_done(f"hpclab scale {workers} --session {session.name}"):
        click.echo(change_text(session.scale(workers)))


@cli.command(cls=OfSession)
@click.argument("workers", type=click.IntRange(1, MOST_WORKERS))
@options.of_session
@options.host
def keep(name: str | None, workers: int) -> None:
    """Keep a number of added workers, until Ctrl-C.

    Each is replaced ahead of its walltime's end, as early as the queue has lately taken. `hpclab start --keep N` does
    this within the main job.
    """
    session = current_session(name, to_grow=True)
    click.echo(f"keeping {counted(workers, 'added worker')} in {session.name}; Ctrl-C ends it, the workers stay")
    try:
        in_vain = 0
        while True:
            try:
                change = session.keep(workers)
                in_vain = 0
                if change.submit:
                    click.echo(f"{time.strftime('%H:%M:%S')}  {change_text(change)}")
            except (CommandError, TookTooLong, StoreError, UnreadableOutput) as error:
                # a batch system has its bad moments
                in_vain += 1
                if in_vain == KEEP_GIVES_UP_AFTER:
                    raise
                click.echo(f"{time.strftime('%H:%M:%S')}  {str(error).splitlines()[0]}; trying again", err=True)
            time.sleep(KEEP_LOOKS_EVERY_S)
    except KeyboardInterrupt:
        return


@cli.command(cls=OfSession)
@options.name
@options.host
def relay(name: str | None) -> None:
    """Submit what a session asks for on its nodes, until it ends.

    For sites where compute nodes may not submit jobs, and may not log in to the login node either: stay there with this
    command. `hpclab start --host` and `hpclab attach --host` on your own machine do the same while they are open.
    """
    session = current_session(name, to_grow=True)
    # a closed terminal must not end what has begun
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _interrupted)
    click.echo(f"submitting what {session.name} asks for; Ctrl-C ends this, the session goes on")
    with suppress(KeyboardInterrupt):
        session.carry(lambda line: click.echo(f"{time.strftime('%H:%M:%S')}  {line}"))
        click.echo(f"{session.name} has ended")


@cli.command(cls=OfSession)
@options.name
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
@options.json
@options.host
def status(name: str | None, watch: bool, as_json: bool) -> None:
    """The session's jobs, and whether their workers joined."""
    if watch and as_json:
        raise click.UsageError("--watch is for people, --json for programs: say one of them")
    session = current_session(name, or_latest=True)
    if as_json:
        _print_json(session.describe())
    elif watch and not console().is_terminal:
        while True:
            console().print(status_text(session.describe()))
            sys.stdout.flush()
            time.sleep(2)
    elif watch:
        from rich.live import Live

        with Live(console=console(), auto_refresh=False) as live:
            try:
                while True:
                    live.update(status_text(session.describe()), refresh=True)
                    time.sleep(2)
            except KeyboardInterrupt:
                return
    else:
        console().print(status_text(session.describe()))


@cli.command("list")
@click.option("--host", metavar="[USER@]HOST", help="Those of a login node.")
@click.option("--all-hosts", is_flag=True, help="Also those of every login node that you have sessions on.")
@options.json
def list_sessions(host: str | None, all_hosts: bool, as_json: bool) -> None:
    """All your sessions."""
    if host and all_hosts:
        raise click.UsageError("--host is one of them, --all-hosts all: say one of them")
    settings = settings_for(host)
    if not all_hosts and settings.host:
        place = place_of(settings, "", [])
        sys.exit(afar(place).run(["list", *(["--json"] if as_json else [])]))
    found = Session.all(_host(), defaults())
    bookmarks = Bookmarks(_host()).all()
    silent: list[str] = []
    if all_hosts:
        from hpclab.afar import sessions_everywhere

        places = {bookmark.destination: bookmark for bookmark in bookmarks}
        if settings.host:
            places.setdefault(settings.host, place_of(settings, "", []))
        for destination, answer in sessions_everywhere(list(places.values()), console(stderr=True)).items():
            if isinstance(answer, HpclabError):
                silent.append(str(answer).splitlines()[0])
            else:
                for described in answer:
                    # one cluster may be known by several names
                    same = [s for s in found if all(s[key] == described[key] for key in ("name", "created", "folder"))]
                    if same and "host" in same[0]:
                        same[0]["host"] += f", {destination}"
                    else:
                        found.append({**described, "host": destination})
                alive = {described["name"] for described in answer if described["state"] in ALIVE}
                on_it = [bookmark for bookmark in bookmarks if bookmark.destination == destination]
                Bookmarks(_host()).forget([bookmark for bookmark in on_it if bookmark.name not in alive])
    if as_json:
        _print_json(found)
    elif found:
        console().print(sessions_table(found))
    elif bookmarks and not all_hosts:
        click.echo("no sessions on this machine")
    elif not silent:
        click.echo("no sessions; start one with `hpclab start`")
    for told in silent:
        click.echo(told, err=True)
    if bookmarks and not all_hosts and not as_json:
        known = ", ".join(f"{bookmark.name} on {bookmark.destination}" for bookmark in bookmarks)
        click.echo(f"elsewhere, the last time: {known}; `hpclab list --all-hosts` asks there")


@cli.command(cls=OfSession)
@click.argument("job_id", metavar="[JOB]", required=False, default="")
@click.option("-n", "--lines", type=click.IntRange(1), default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows, until Ctrl-C.")
@options.of_session
@options.host
def logs(name: str | None, job_id: str, lines: int, follow: bool) -> None:
    """The end of a job's log.

    The main job's when none is named.
    """
    session = current_session(name, or_latest=True)
    try:
        is_empty = True
        for text in session.log_lines(job_id, lines=lines, follow=follow):
            if text:
                is_empty = False
                click.echo(text)
        if is_empty:
            click.echo("there is no log yet", err=True)
    except KeyboardInterrupt:
        return


@cli.command(cls=OfSession)
@click.argument("job_id", metavar="[JOB]", required=False, default="")
@options.of_session
@options.json
@options.host
def why(name: str | None, job_id: str, as_json: bool) -> None:
    """The story of one job: what happened, and why it ended.

    The main job's when none is named.
    """
    story = current_session(name, or_latest=True).why(job_id)
    if as_json:
        events = [{"time": event.time, "event": event.what, **event.details} for event in story.events]
        _print_json({"job": story.job.describe(time.time()), "events": events, "log": story.log_tail})
    else:
        console().print(story_text(story))


@cli.command()
@click.argument("which", type=click.Choice(["start", "add-worker"]))
@click.option("--name", default="my-session", help="The session's name.")
@click.option("--by-hand", is_flag=True, help="One that makes its session itself, to be submitted with sbatch or qsub.")
@options.resources
@options.environment
@options.profile
def script(which: str, name: str, by_hand: bool, **given: Any) -> None:
    """Print a job script, and submit nothing.

    Those of a session that exists stand in its folder, as start-dask.sh and add-one-worker.sh.
    """
    if by_hand and name != "my-session":
        raise click.UsageError("such a script takes its session's name from $HPCLAB_NAME when it is submitted")
    if which == "add-worker":
        given["worker_walltime"] = given.pop("walltime")
    settings = _settings(**given)
    session = Session.planned(_host(), settings, name="by-hand" if by_hand else name, notebook_dir=_here())
    request = session.request
    if by_hand:
        here = replace(settings, notebook_dir=settings.notebook_dir or ".")
        told = replace(request, system=BY_HAND[0], partition="", settings=here)
        text = told.hand_script(which, BY_HAND)
    else:
        text = session.start_script() if which == "start" else request.worker_script(request.worker_record())
    click.echo(text, nl=False)


@cli.command(hidden=True)
@click.argument("name")
@click.option("-q", "--queue", metavar="SYSTEM")
def prepare(name: str, **given: Any) -> None:
    """Make the folder of a session whose job was submitted by hand, unless it is there already."""
    Session.prepare(_host(), _settings(**given), name=name, notebook_dir=_here())


@cli.command()
@options.name
@options.tunnel
@options.json
@click.option("--unless-in-vain", is_flag=True, hidden=True, help="Of a job that can never start, end and say so.")
def attach(
    name: str | None,
    host: str | None,
    as_json: bool,
    no_tunnel: bool,
    no_browser: bool,
    bell: bool,
    unless_in_vain: bool,
) -> None:
    """Print again how to connect; from your own machine, open the tunnel again.

    A session that is still coming up is followed first. Of a run, print what its script prints, from the beginning, and
    end with its exit status.
    """
    if place := place_of_session(host, name or ""):
        from hpclab.afar import Wishes

        wishes = Wishes(as_json=as_json, browser=not no_browser, tunnel=not no_tunnel, bell=bell)
        try:
            afar(place, holds=not no_tunnel).attach(wishes)
        except IsRun:
            argv = ["attach", *([name] if name else []), *(["--json"] if as_json else [])]
            sys.exit(afar(place).attach_script(argv))
        return
    session = current_session(name)
    if session.program and not as_json:
        with _interruptible(session):
            # who has just submitted it from elsewhere is told; all others have been, and wait on
            sys.exit(_followed_to_its_end(session, although_hopeless=not unless_in_vain))
    if not session.program:
        if session.describe()["state"] in ("queued", "held", "starting"):
            with _interruptible(session):
                _follow(session, although_hopeless=True)
        session.check_running()
    if bell:
        click.echo("\a", nl=False, err=True)
    described = session.describe_with_secrets()
    if as_json:
        _print_json(described)
    else:
        console().print(connection_text(described), markup=False)


@cli.command(cls=OfSession)
@options.name
@options.host
def stop(name: str | None) -> None:
    """End a session: cancel all its jobs, running or queued.

    Waits until they are gone.
    """
    session = current_session(name)
    with _half_done(f"hpclab stop {session.name}"):
        cancelled = session.stop()
    for job in cancelled:
        was = job.status.state.value
        click.echo(
            f"cancelled {'main job' if job.record.role == 'main' else 'worker job'} {job.job_id}, which was {was}"
        )
    already = "" if cancelled else " already"
    click.echo(f"{session.name} has ended{already}; its folder is {shlex.quote(session.folder.path)}")


@cli.command()
@options.profile
@options.json
def config(as_json: bool, **given: Any) -> None:
    """Every option, its value, and where that comes from."""
    _, chosen = _load(given)
    if as_json:
        _print_json({setting.key: {"value": setting.value, "source": setting.where} for setting in chosen})
    else:
        console().print(config_table(chosen))


@cli.command(cls=Repeatable)
@click.option("--probe", is_flag=True, help="Also send a short job, and look at a compute node.")
@options.resources
@options.environment
@options.profile
@options.host
@options.json
def doctor(probe: bool, as_json: bool, **given: Any) -> None:
    """What this site has, what is wrong with it, and a config file for it.

    With --probe a small job reports the same from a compute node, and whether that and this machine reach each other;
    Ctrl-C cancels the job. The options are those of `hpclab start`, to see whether such a session would fit. Ends with
    exit status 14 if there is a problem.
    """
    from hpclab.examination import examine
    from hpclab.site_profile import describe

    settings, chosen = _load(given)
    if settings.host:
        argv, env = click.get_current_context().meta["argv"], as_variables(for_the_cluster(chosen))
        sys.exit(afar(place_of(settings, "", [])).doctor(argv, env, as_json=as_json))
    decided = {setting.key: setting for setting in chosen if setting.source is not Source.DEFAULT}
    with console(stderr=True).status("looking at this machine"):
        examined = examine(_host(), settings, decided)
    if probe:
        examined = _probed(examined)
    described = describe(examined)
    if as_json:
        _print_json(described)
    else:
        page = console()
        page.print(doctor_text(examined, unicode=page.encoding.startswith("utf")))
    if examined.job and examined.job.interrupted:
        sys.exit(INTERRUPTED)
    if described["problems"]:
        raise SiteUnfit(f"{counted(described['problems'], 'problem')} found\nwhat to do stands beside each of them")


@cli.command(hidden=True)
def agent() -> None:
    """Answer one request of somebody's hpclab at a laptop."""
    from hpclab.agent import serve

    serve(run)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _probed(examined: Examined) -> Examined:
    """The same with what a job sees on a compute node; Ctrl-C cancels the job, and loses no more than that."""
    from rich.markup import escape

    from hpclab.examination import Probing

    terminal, probing, shown = console(stderr=True), Probing(_host(), examined), ""
    # a closed terminal or a time limit is an interruption like any other: the job must not stay behind
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _interrupted)
    try:
        with held_back() as let_through, probing, terminal.status("submitted") as line:
            let_through()
            for text in probing.follow():
                if terminal.is_terminal:
                    line.update(escape(text))
                elif text != shown:
                    terminal.print(f"  {text}", markup=False)
                    shown = text
    except KeyboardInterrupt:
        click.echo(f"\n{probing.job.refusal}", err=True)
    return replace(examined, job=probing.job)
