"""The fake OpenPBS, held against the recorded answers of a real one."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).parent / "pbs"
RECORDED = Path(__file__).parent.parent / "data/pbs"
HOST = socket.gethostname()
DEADLINE_S = 20.0

QUEUES: dict[str, Any] = {
    "workq": {},
    "short": {
        "resources_max": {"ncpus": 4, "walltime": "00:10:00"},
        "resources_default": {"walltime": "00:05:00"},
    },
    "disabled": {"enabled": False},
    "stopped": {"started": False},
    "private": {"users": ["nobody else"]},
}
USER = pwd.getpwuid(os.getuid()).pw_name


class Site:
    """A state folder of its own, and a folder of scripts to submit from."""

    def __init__(self, folder: Path) -> None:
        self.state, self.jobs = folder / "state", folder / "jobs"
        self.home = folder / "home"
        for path in (self.state, self.jobs, self.home):
            path.mkdir()
        # by a name that no question of the recordings looks for
        (folder / "fake").symlink_to(FAKE)
        (self.state / "settings.json").write_text(json.dumps({"queues": QUEUES}))
        self.environment = {
            "PATH": f"/usr/local/bin:/usr/bin:/bin:{folder}/fake",
            "FAKE_PBS_DIR": str(self.state),
            "FAKE_PBS_SERVER": "vm",
            "FAKE_PBS_HOSTS": f"{HOST}:8:16gb",
            "FAKE_PBS_TIME_SCALE": "0",
            "FAKE_PBS_HOME": str(self.home),
            "HOME": str(self.home),
            "SHELL": "/bin/bash",
            "MAIL": "/var/mail/ada",
        }

    def run(self, command: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.jobs,
            env=self.environment | environment,
            timeout=DEADLINE_S,
            check=False,
        )

    def script(self, text: str, name: str = "job.sh") -> str:
        (self.jobs / name).write_text(text)
        return name

    def submit(self, options: str = "", text: str = "#!/bin/bash\n", **environment: str) -> str:
        answer = self.run(f"qsub -j oe {options} {self.script(text)}", **environment)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def job(self, job_id: str, options: str = "-x") -> dict[str, Any]:
        jobs: dict[str, Any] = json.loads(self.run(f"qstat {options} -f -F json '{job_id}'").stdout).get("Jobs", {})
        return jobs.get(job_id, {})

    def until(self, happened: Callable[[], Any]) -> Any:
        over = time.monotonic() + DEADLINE_S
        while not (result := happened()):
            assert time.monotonic() < over, [path.read_text() for path in (self.state / "mom_logs").iterdir()]
            time.sleep(0.02)
        return result

    def until_state(self, job_id: str, state: str) -> dict[str, Any]:
        """Its record as soon as its script runs, or it has ended."""
        folder = "history" if state == "F" else "jobs"
        path = self.state / folder / f"{job_id}.json"
        self.until(lambda: path.exists() and (state != "R" or "session_id" in json.loads(path.read_text())))
        return self.job(job_id)

    def normal(self, text: str) -> str:
        """As if recorded: without what differs from site to site and from run to run."""
        text = text.replace(str(self.home), "/home/ada").replace(str(self.jobs), "/home/ada/jobs")
        text = re.sub(rf"\b{HOST}\b", "vm", re.sub(rf"\b{USER}\b", "ada", text))
        text = re.sub(r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", "DATE", text)
        text = re.sub(r"\w{3} \w{3} [ \d]\d at \d\d:\d\d", "DATE", text)
        text = re.sub(r'(\btimestamp"?:?\s*=?\s*)\d+', r"\1TIME", text)
        text = re.sub(
            r'((?:session_id|history_timestamp|eligible_time|used.walltime|PATH)"?:?\s*=?\s*)[^\s,]+', r"\1-", text
        )
        text = re.sub(r'("vmem":\t"\w+",\s+"walltime":\t)"[^"]*"', r"\1-", text)
        return re.sub(r" +", " ", text)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    (site.state / "down").unlink(missing_ok=True)
    ids = [shlex.quote(path.stem) for path in (site.state / "jobs").glob("*.json")]
    if ids:
        site.run(f"qdel -W force {' '.join(ids)}")
    # nothing is left of any job
    site.until(lambda: not [pid for pid in _processes() if str(site.state) in _arguments(pid)])


def _processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _arguments(pid: str) -> str:
    try:
        return (Path("/proc") / pid / "cmdline").read_text().replace("\0", " ")
    except (OSError, UnicodeDecodeError):
        return ""


def everything(case: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads((RECORDED / f"{case}.json").read_text())["steps"]
    return steps


def recorded(case: str) -> list[dict[str, Any]]:
    return [step for step in everything(case) if step["kind"] == "run"]


def answer_to(case: str, command: str) -> dict[str, Any]:
    return next(step for step in recorded(case) if step["cmd"].startswith(command))


def refused() -> Iterator[Any]:
    """Every recorded qsub that ended without a job, with the files that were there."""
    for path in sorted(RECORDED.glob("*.json")):
        if path.stem.startswith(("08b", "23-", "25", "28-")):
            continue  # by a site's hook or limit, by the server's absence, or within another folder
        files: dict[str, str] = {}
        for step in everything(path.stem):
            if step["kind"] == "file":
                files[Path(step["path"]).name] = step["content"]
            elif (
                step["kind"] == "run"
                and step["cmd"].startswith("qsub ")
                and step["exit"] not in (0, "0")
                and "block" not in step["cmd"]
            ):
                yield pytest.param(step, dict(files), id=f"{path.stem}:{step['cmd'][:60]}")


@pytest.mark.parametrize(("step", "files"), list(refused()))
def test_it_refuses_in_the_words_of_a_real_pbs(site: Site, step: dict[str, Any], files: dict[str, str]) -> None:
    (site.jobs / "dir").mkdir()
    for name, content in files.items():
        (site.jobs / name).write_bytes(content.encode())

    answer = site.run(step["cmd"], MYVAR="x")

    assert (answer.returncode, answer.stdout, answer.stderr) == (step["exit"], step["stdout"], step["stderr"])


def accepted(case: str) -> Iterator[Any]:
    """Recorded submissions and what qstat then said of the job."""
    steps = recorded(case)
    for submission, *answers in zip(steps, steps[1:], steps[2:], steps[3:], strict=False):
        if submission["cmd"].startswith("qsub") and submission["stdout"]:
            job_id = submission["stdout"].strip()
            about = [each for each in answers if re.search(rf"\bqstat\b.* {re.escape(job_id)}\b", each["cmd"])]
            if about:
                yield pytest.param(submission["cmd"], job_id, about, id=submission["cmd"][:60])


@pytest.mark.parametrize(("command", "job_id", "answers"), list(accepted("06-bad-resource")))
def test_it_reads_resources_as_a_real_pbs_does(
    site: Site, command: str, job_id: str, answers: list[dict[str, Any]]
) -> None:
    site.script("#!/bin/bash\n", "t.sh")

    submitted = site.run(command.replace("qsub", "qsub -h", 1)).stdout.strip()

    said = site.run(f"qstat -f {submitted} | grep Resource_List").stdout
    assert said == "".join(line for line in answers[0]["stdout"].splitlines(True) if "Resource_List" in line)


@pytest.mark.parametrize(("command", "job_id", "answers"), list(accepted("26-json-quirks")))
def test_it_shows_names_as_a_real_pbs_does(
    site: Site, command: str, job_id: str, answers: list[dict[str, Any]]
) -> None:
    site.script("#!/bin/bash\n", "t.sh")
    (site.jobs / "dir with space").mkdir()
    site.script("#!/bin/bash\npwd\n", "dir with space/s p.sh")
    (site.state / "next").write_text(job_id.split(".")[0])

    site.run(command)
    site.until(lambda: " sp " not in command or (site.state / "history" / f"{job_id}.json").exists())

    for answer in answers:
        assert site.normal(site.run(answer["cmd"]).stdout) == site.normal(answer["stdout"])


@pytest.mark.parametrize("command", ["qsub --version", "qstat --version", "qdel", "qdel --help", "qstat --help"])
def test_it_has_the_version_and_the_usage_of_a_real_pbs(site: Site, command: str) -> None:
    step = next(step for step in recorded("01-version") if step["cmd"] == command)
    answer = site.run(command)
    assert (answer.returncode, answer.stdout, answer.stderr) == (step["exit"], step["stdout"], step["stderr"])


def compare(site: Site, step: dict[str, Any]) -> None:
    said = site.run(step["cmd"])
    assert (said.returncode, said.stderr) == (step["exit"], step["stderr"]), step["cmd"]
    # a real mom measures memory, and tells the array's slots as they come
    differs = r"(\b(?:v?mem|exec_host|exec_vnode|obittime)\"?(?:\s=|:)\s)\S+"
    expected = re.sub(differs, r"\1-", site.normal(unwrapped(step["stdout"])))
    assert re.sub(differs, r"\1-", site.normal(unwrapped(said.stdout))) == expected, step["cmd"]


BASIC = """#!/bin/bash
#PBS -l select=1:ncpus=2:mem=1gb,walltime=00:10:00
#PBS -N name
#PBS -q workq
#PBS -A proj
#PBS -j oe
#PBS -o out-basic.log
echo "hello stdout"
echo "hello stderr" >&2
read line < ../gate
echo done
"""


def test_a_job_looks_like_a_real_one_while_it_runs_and_when_it_has_finished(site: Site) -> None:
    os.mkfifo(site.home / "gate")
    site.script(BASIC.replace("../gate", str(site.home / "gate")), "basic.sh")

    assert site.run("qsub basic.sh").stdout == "1.vm\n"
    site.until_state("1.vm", "R")

    steps = [step for step in recorded("02-submit-basic") if step["cmd"].startswith("qstat")]
    assert len(steps) == 8
    for step in steps[:3]:
        compare(site, step)
    assert not (site.jobs / "out-basic.log").exists()  # it is delivered at the end

    (site.home / "gate").write_text("\n")
    site.until_state("1.vm", "F")

    for step in steps[3:]:
        compare(site, step)
    assert (site.jobs / "out-basic.log").read_text() == "hello stdout\nhello stderr\ndone\n"


def unwrapped(text: str) -> str:
    return text.replace("\n\t", "") if not text.startswith("{") else text


@pytest.mark.parametrize("name", [path.stem for path in sorted(RECORDED.glob("*.json"))])
def test_it_breaks_long_lines_where_a_real_qstat_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    from fake_pbs import wrapped  # type: ignore[import-not-found]

    for step in recorded(name):
        if step["stdout"].startswith(("Job Id:", "Queue:")):
            for line in re.finditer(r"^    (\S+) = (.*(?:\n\t.*)*)\n", step["stdout"], re.MULTILINE):
                assert wrapped(line[1], line[2].replace("\n\t", "")) == line[0]


EXITS = [(step["path"], step["content"]) for step in everything("16-exit-codes") if step["kind"] == "file"]


@pytest.mark.parametrize(("path", "script"), EXITS, ids=[Path(path).name for path, _ in EXITS])
def test_a_job_ends_with_the_exit_status_of_a_real_one(site: Site, path: str, script: str) -> None:
    steps = recorded("16-exit-codes")
    submission = next(i for i, step in enumerate(steps) if step["cmd"] == f"qsub -j oe {Path(path).name}")
    answer = steps[submission + 1]["stdout"]

    job_id = site.submit("", script)
    site.until_state(job_id, "F")

    said = site.run(f"qstat -x -f {job_id} | grep -E 'job_state|substate|Exit|comment|Stageout'").stdout
    assert site.normal(unwrapped(said)) == site.normal(unwrapped(answer))


def test_a_script_on_stdin_runs_and_block_waits_for_its_exit_status(site: Site) -> None:
    answer = site.run("qsub -W block=true -N piped -o out.log", "#PBS -j oe\necho piped in; exit 3\n")
    assert (answer.returncode, answer.stdout) == (3, "1.vm\n")
    assert (site.jobs / "out.log").read_text() == "piped in\n"


def test_the_environment_of_a_job_is_that_of_a_real_one(site: Site) -> None:
    step = answer_to("24-job-environment", "for f in *.[oe]130")
    names = set(re.findall(r"^(\w+)=", step["stdout"].split("--- env")[1].split("---")[0], re.MULTILINE))

    job_id = site.submit("-l select=2:ncpus=2:mpiprocs=2:mem=256mb", "env -0 > env; cat $PBS_NODEFILE; umask", LEAK="x")
    site.until_state(job_id, "F")

    pairs = (text.partition("=") for text in (site.home / "env").read_text().split("\0") if text)
    environment = {name: value for name, _, value in pairs if not name.startswith("FAKE_PBS_")}
    assert environment.keys() >= names - {"MANPATH"}
    assert "LEAK" not in environment
    assert environment["PBS_JOBID"] == job_id
    assert environment["PBS_O_WORKDIR"] == str(site.jobs)
    assert environment["NCPUS"] == environment["OMP_NUM_THREADS"] == "2"
    assert not Path(environment["TMPDIR"]).exists()
    assert (site.jobs / "job.sh.o1").read_text() == f"{HOST}\n" * 4 + "0077\n"


def test_variables_are_handed_over_as_by_a_real_qsub(site: Site) -> None:
    site.submit("-h -v \"FOO=bar,EXPORTED,EMPTY=,L='a,b',M=a\\,b,NUM=007,E=1e5,T=true\"", EXPORTED="from env")
    found = site.job("1.vm")["Variable_List"]
    assert (found["FOO"], found["EXPORTED"]) == ("bar", "from env")
    assert (found["EMPTY"], found["L"], found["M"]) == ("", "a,b", "a,b")
    assert (found["NUM"], found["E"], found["T"]) == (7, 100000, True)


def test_jobs_wait_for_room_and_say_why(site: Site) -> None:
    sleep = "#!/bin/bash\nsleep 100\n"
    filler = site.submit("-l select=1:ncpus=4 -l walltime=00:20:00", sleep)
    blocked = site.submit("-l select=1:ncpus=8 -l walltime=00:10:00", sleep)
    never = site.submit("-l select=1:ncpus=16", sleep)
    scattered = site.submit("-l select=2:ncpus=1 -l place=scatter", sleep)
    stopped = site.submit("-q stopped", sleep)
    held = site.submit("-h", sleep)
    site.until_state(filler, "R")

    recorded_never = json.loads(answer_to("13-cannot-run-yet", "qstat -f -F json 80.vm")["stdout"])["Jobs"]["80.vm"]
    recorded_blocked = json.loads(answer_to("13-cannot-run-yet", "qstat -f -F json 79.vm")["stdout"])["Jobs"]["79.vm"]
    assert list(site.job(blocked)) == list(recorded_blocked)
    assert site.job(blocked)["comment"] == recorded_blocked["comment"]
    end = time.mktime(time.strptime(site.job(filler)["stime"])) + 20 * 60
    assert abs(time.mktime(time.strptime(site.job(blocked)["estimated"]["start_time"])) - end) <= 2
    assert site.job(never)["comment"] == recorded_never["comment"]
    assert site.job(scattered)["comment"] == "Can Never Run: Not enough total nodes available"
    assert site.job(stopped)["comment"] == "Not Running: Queue not started."
    assert (site.job(held)["job_state"], site.job(held)["Hold_Types"]) == ("H", "u")

    site.run(f"qdel {filler}")
    site.until_state(blocked, "R")


def test_chunks_are_placed_on_hosts_and_the_nodefile_is_in_their_order(site: Site) -> None:
    hosts = f"localhost:2:4gb {HOST}:4:8gb"
    script = "cat $PBS_NODEFILE\n"
    submit = "-l select=1:ncpus=4:mpiprocs=1+2:ncpus=1:mpiprocs=2 -l place=free"
    job_id = site.submit(submit, script, FAKE_PBS_HOSTS=hosts)
    job = site.until_state(job_id, "F")
    assert (site.jobs / "job.sh.o1").read_text() == f"{HOST}\n" + "localhost\n" * 4
    assert job["exec_host"] == f"{HOST}/0*4+localhost/0+localhost/1"
    assert job["exec_vnode"] == f"({HOST}:ncpus=4)+(localhost:ncpus=1)+(localhost:ncpus=1)"

    job_id = site.submit("-l select=2:ncpus=1 -l place=scatter", script, FAKE_PBS_HOSTS=hosts)
    site.until_state(job_id, "F")
    assert (site.jobs / "job.sh.o2").read_text() == f"localhost\n{HOST}\n"


SSH = """#!/bin/bash
echo "$*" >> "$FAKE_PBS_DIR/ssh.log"
[ -e "$FAKE_PBS_DIR/unreachable" ] && exit 255
for last; do :; done
exec bash -c "$last"
"""


def test_a_job_on_another_host_runs_through_ssh_and_is_killed_there(site: Site) -> None:
    (site.home / "ssh").write_text(SSH)
    (site.home / "ssh").chmod(0o755)
    elsewhere = {"FAKE_PBS_HOSTS": "node9:2:4gb", "PATH": f"{site.home}:{site.environment['PATH']}"}

    job_id = site.submit("-v SECRET=hidden", "echo $SECRET; cat $PBS_NODEFILE; sleep 100", **elsewhere)
    assert site.until_state(job_id, "R")["exec_host"] == "node9/0"
    assert "-o BatchMode=yes node9" in (site.state / "ssh.log").read_text()
    assert "hidden" not in (site.state / "ssh.log").read_text()

    site.run(f"qdel {job_id}")
    assert site.until_state(job_id, "F")["Exit_status"] == 271
    assert (site.jobs / "job.sh.o1").read_text() == "hidden\nnode9\n"


def test_a_job_whose_host_does_not_answer_is_held_in_the_end(site: Site) -> None:
    (site.home / "ssh").write_text("#!/bin/sh\nexit 255\n")
    (site.home / "ssh").chmod(0o755)
    job_id = site.submit("", FAKE_PBS_HOSTS="node9:2:4gb", PATH=f"{site.home}:{site.environment['PATH']}")
    site.until(lambda: site.job(job_id)["job_state"] == "H")
    assert site.job(job_id)["comment"] == "job held, too many failed attempts to run"


def test_qdel_of_waiting_jobs_and_unknown_ones_is_as_recorded(site: Site) -> None:
    (site.state / "next").write_text("82")
    site.script("#!/bin/bash\nsleep 400\n", "long.sh")
    site.run("qsub -l select=1:ncpus=16 long.sh")
    steps = recorded("19-qdel")
    about = [step for step in steps if step["cmd"].endswith("82.vm")]
    assert len(about) == 5

    for step in about:
        said = site.run(step["cmd"])
        assert (said.returncode, said.stderr) == (step["exit"], step["stderr"])
        assert site.normal(unwrapped(said.stdout)) == site.normal(unwrapped(step["stdout"]))

    site.run("qsub -h long.sh; qsub -h long.sh; qsub -h long.sh")
    for step in steps:
        if step["cmd"].split()[0] == "qdel" and re.search(r"99999|abc|''|\"\"|12\[|other|all", step["cmd"]):
            said = site.run(step["cmd"])
            assert (said.returncode, said.stdout, said.stderr) == (step["exit"], step["stdout"], step["stderr"])
    assert site.job("85.vm")["job_state"] == "F"


def test_a_running_job_stays_until_its_grace_is_over_and_ends_with_271(site: Site) -> None:
    trap = "trap 'echo got TERM >> told' TERM; touch ready; while :; do sleep 0.02; done\n"
    # its grace is long enough for four commands on a machine that has other work, too
    job_id = site.submit("", "#!/bin/bash\ncd $PBS_O_WORKDIR\n" + trap, FAKE_PBS_TIME_SCALE="0.5")
    site.until(lambda: (site.jobs / "ready").exists())

    for _ in range(2):
        answer = site.run(f"qdel {job_id}")
        assert (answer.returncode, answer.stderr) == (0, "")
    assert site.job(job_id, "")["job_state"] == "R"
    assert site.job(job_id, "")["comment"].endswith(f"and terminated by {USER}@{HOST}")

    job = site.until_state(job_id, "F")
    step = json.loads(answer_to("19-qdel", "qstat -x -f -F json 83.vm")["stdout"])["Jobs"]["83.vm"]
    assert [key for key in job if key != "estimated"] == [key for key in step if key != "estimated"]
    assert (job["Exit_status"], job["substate"]) == (step["Exit_status"], step["substate"])
    assert site.normal(job["comment"]) == site.normal(step["comment"])
    assert (site.jobs / "told").read_text() == "got TERM\n"
    again = site.run(f"qdel {job_id}")
    assert (again.returncode, again.stderr) == (35, f"qdel: Job has finished {job_id}\n")


def test_a_job_is_killed_at_its_walltime(site: Site) -> None:
    job_id = site.submit("-l walltime=1", "#!/bin/bash\necho started\nsleep 300\necho never\n")
    job = site.until_state(job_id, "F")
    assert (job["Exit_status"], job["substate"]) == (-29, 93)
    assert job["comment"].endswith("and exceeded resource walltime")
    expected = r"started\n=>> PBS: job killed: walltime \d exceeded limit 1\n(Terminated\n)?"
    assert re.fullmatch(expected, (site.jobs / "job.sh.o1").read_text())


def test_what_a_job_leaves_behind_in_its_session_ends_with_it(site: Site) -> None:
    job_id = site.submit("", "#!/bin/bash\nsleep 1234 & echo $!\n")
    site.until_state(job_id, "F")
    assert "sleep" not in _arguments((site.jobs / "job.sh.o1").read_text().strip())


def test_an_array_looks_like_a_real_one(site: Site) -> None:
    (site.state / "next").write_text("6")
    gate = site.home / "gate"
    wait = f"until [ -e {gate} ]; do sleep 0.02; done"
    steps = recorded("04-array")
    script = next(step["content"] for step in everything("04-array") if step["kind"] == "file")
    site.script(script.replace("sleep 6", wait), "arr.sh")

    assert site.run("qsub -J 1-3 -j oe arr.sh").stdout == "6[].vm\n"
    for index in (1, 2, 3):
        site.until_state(f"6[{index}].vm", "R")
    running = [step for step in steps if re.match(r"qstat.*'6(\[\d?\])?(\.vm)?'$", step["cmd"])]
    is_history = [step for step in running if " -x" in step["cmd"]]
    assert (len(running), len(is_history)) == (11, 3)
    for step in [step for step in running if step not in is_history]:
        compare(site, step)

    gate.touch()
    site.until_state("6[].vm", "F")
    for step in is_history:
        compare(site, step)
    assert (site.jobs / "arr.o6.2").read_text() == "index=2 array=6[].vm job=6[2].vm\n"


def test_of_an_array_so_many_run_at_once_and_single_ones_can_be_deleted(site: Site) -> None:
    array = site.submit("-J 1-5:2%1", "#!/bin/bash\nsleep 100\n")
    site.until_state("1[1].vm", "R")
    site.run("qdel '1[3].vm'")
    table = site.run(f"qstat -t '{array}'").stdout
    assert re.findall(r"^(\S+) .* ([A-Z]) workq", table, re.MULTILINE) == [
        ("1[].vm", "B"),
        ("1[1].vm", "R"),
        ("1[3].vm", "X"),
        ("1[5].vm", "Q"),
    ]
    assert site.job(array)["array_state_count"] == "Queued:1 Running:1 Exiting:0 Expired:1"
    site.run(f"qdel '{array}'")
    assert site.until_state(array, "F")["job_state"] == "F"


@pytest.mark.parametrize("style", ["table", "full", "json"])
def test_unknown_and_finished_ids_among_others_are_answered_as_recorded(site: Site, style: str) -> None:
    for number in (1, 2):
        site.until_state(site.submit("-N name"), "F")
        assert site.job(f"{number}.vm")["job_state"] == "F"
    (site.state / "next").write_text("111")
    site.script("#!/bin/bash\nsleep 60\n", "long.sh")
    site.run("qsub long.sh")
    site.until_state("111.vm", "R")

    steps = [step for step in recorded("20-unknown-ids") if re.match(r"qstat.* \S*[0-9a-z\]]+", step["cmd"])]
    steps = [step for step in steps if not re.search(r' ""| -(x|t|H|s|a|1)$', step["cmd"])]
    styles = {"table": [], "full": [], "json": []}
    for step in steps:
        styles["json" if "json" in step["cmd"] else "full" if "-f" in step["cmd"] else "table"].append(step)
    for step in styles[style]:
        said = site.run(step["cmd"])
        assert (said.returncode, said.stderr) == (step["exit"], step["stderr"]), step["cmd"]
        assert jobs_in(said.stdout) == jobs_in(step["stdout"]), step["cmd"]


def jobs_in(text: str) -> list[str]:
    """Their ids, and the table's head if there is one."""
    return re.findall(r'^(?:\t\t"|Job Id: )?(\d\S*|Job id)', text, re.MULTILINE)


def test_without_history_a_finished_job_is_unknown(site: Site) -> None:
    (site.state / "next").write_text("201")
    site.until_state(site.submit("-N nohist"), "F")
    for step in recorded("30-history-off"):
        if re.match("qstat|qdel", step["cmd"]):
            said = site.run(step["cmd"], FAKE_PBS_HISTORY="0")
            assert (said.returncode, said.stderr) == (step["exit"], step["stderr"])
            assert site.normal(said.stdout) == site.normal(step["stdout"])


def test_output_that_cannot_be_delivered_is_kept_by_the_host(site: Site) -> None:
    job_id = site.submit("-o missing/x.log", "echo out1\n")
    job = site.until_state(job_id, "F")
    assert (job["Stageout_status"], job["Exit_status"]) == (0, 0)
    assert (site.state / "undelivered" / f"{job_id}.OU").read_text() == "out1\n"


def test_output_goes_into_a_folder_or_live_to_its_place_or_the_job_is_held(site: Site) -> None:
    (site.jobs / "out").mkdir()
    site.until_state(site.submit("-o out", "echo out1\n"), "F")
    assert (site.jobs / "out/1.vm.OU").read_text() == "out1\n"
    assert site.job("1.vm")["Output_Path"] == f"{HOST}:{site.jobs}/out/"

    live = site.jobs / "out/live.log"
    site.submit("-k oed -o out/live.log", "echo out2; sleep 100\n")
    site.until(lambda: live.exists() and live.read_text() == "out2\n")
    assert live.stat().st_mode & 0o777 == 0o600

    site.submit("-k oed -o missing/x.log")
    site.until(lambda: site.job("3.vm")["job_state"] == "H")
    assert site.job("3.vm")["comment"] == "job held, too many failed attempts to run"
    assert site.job("3.vm")["Exit_status"] == -3


@pytest.mark.parametrize("command", ["qstat", "qstat -f -F json 196.vm", "qsub t.sh", "qdel 198.vm", "pbsnodes -a"])
def test_a_server_that_is_down_is_told_in_the_words_of_a_real_one(site: Site, command: str) -> None:
    site.script("#!/bin/bash\n", "t.sh")
    (site.state / "down").touch()
    steps = recorded("23-server-down")
    step = next(step for step in steps if step["cmd"].startswith(command) and step["exit"])
    said = site.run(command)
    assert (said.returncode, said.stderr) == (step["exit"], step["stderr"])
    assert site.normal(said.stdout) == site.normal(step["stdout"])


@pytest.mark.parametrize(
    "command", ["qstat -Q", "qstat -Q -f -F json", "qstat -Q nosuch", "qstat -Q -f -F json nosuch"]
)
def test_queues_are_shown_as_by_a_real_one(site: Site, command: str) -> None:
    step = next(step for step in recorded("22-server-info") if step["cmd"] == command)
    said = site.run(command)
    assert (said.returncode, said.stderr) == (step["exit"], step["stderr"])
    if "json" in command and "Queue" in json.loads(step["stdout"]):
        queues, real = (json.loads(text)["Queue"] for text in (said.stdout, step["stdout"]))
        assert list(queues) == list(real)
        for name in queues:
            for key in ("queue_type", "resources_max", "resources_default", "enabled", "started"):
                assert queues[name].get(key) == real[name].get(key)
    elif "json" not in command:
        busy = step["stdout"].replace("7 yes yes     0     7", "0 yes yes     0     0")
        assert said.stdout == busy


def test_nodes_tell_what_runs_on_them(site: Site) -> None:
    site.until_state(site.submit("-l select=1:ncpus=8:mem=1gb", "sleep 100\n"), "R")
    nodes = json.loads(site.run("pbsnodes -a -F json").stdout)["nodes"]
    real = json.loads(answer_to("22-server-info", "pbsnodes -a -F json")["stdout"])["nodes"]["vm"]
    assert nodes[HOST]["jobs"] == ["1.vm"]
    assert nodes[HOST]["state"] == "job-busy"
    assert nodes[HOST]["resources_assigned"] == {"mem": "1048576kb", "ncpus": 8}
    assert list(nodes[HOST]) == [key for key in real if not key.endswith("_time")]
    assert "     jobs = 1.vm/0\n" in site.run("pbsnodes -a").stdout


def test_many_can_submit_at_once_and_from_within_a_job(site: Site) -> None:
    site.script("#!/bin/bash\n", "t.sh")
    answer = site.run("for i in 1 2 3 4 5; do qsub -h t.sh & done; wait")
    assert sorted(answer.stdout.split()) == [f"{n}.vm" for n in range(1, 6)]

    site.submit("", "cd $PBS_O_WORKDIR; qsub -N inner -o inner.log -j oe -- /bin/echo from within\n")
    site.until_state("7.vm", "F")
    assert (site.jobs / "inner.log").read_text() == "from within\n"
