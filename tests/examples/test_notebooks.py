"""Each notebook of docs/examples, run in a session: no cell fails, and each tells what stands below it in the file.

HPCLAB_OUTPUTS=docs/examples scripts/test tests/examples/test_notebooks.py writes what they tell into the files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from harness import Home, Session
from nbclient import NotebookClient

from hpclab.folder import SessionFolder
from hpclab.inside.environ import notebook_environment

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
TOLD = {
    "futures": {"below a million: 78498", "at most 5133 primes in a piece"},
    "heat": {"the same to the last bit"},
    "joblib": {"  90°  1.1803 s", "within a ten-thousandth of a second: True"},
    "xarray": {"warmer by 0.030 degrees a year", "mean of what is left: 0.000000 degrees"},
}
"""What must stand in each, among other things."""
BEGIN = "from dask.distributed import Client\n\nclient = Client()"


@pytest.fixture(scope="module")
def a_session_of_two_workers() -> Iterator[Session]:
    with tempfile.TemporaryDirectory(prefix="hpclab-test-") as folder:
        home = Home(Path(folder))
        try:
            yield home.start("--name", "examples", "--workers", "2")
        finally:
            home.clear()


def run_in(session: Session, path: Path) -> Any:
    """The notebook as it is when its last cell has ended, in the environment that the session's JupyterLab gives it."""
    folder, notebook = session.home.notebooks, nbformat.read(path, as_version=4)
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, folder)
    environ = notebook_environment(
        session.home.environ, SessionFolder(str(session.folder)), session.connection()["scheduler_address"]
    )
    client = NotebookClient(
        notebook, timeout=60, record_timing=False, resources={"metadata": {"path": str(folder)}}, kernel_name="python3"
    )
    return client.execute(env=environ)


def told(cell: Any) -> list[str]:
    """The lines below a cell, in no order: what ranks and workers print comes as it comes."""
    texts = [output.get("text") or output["data"]["text/plain"] for output in cell.get("outputs", [])]
    return sorted(line for text in texts for line in text.splitlines())


def test_each_notebook_is_known_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(TOLD)


@pytest.mark.parametrize("name", TOLD)
def test_a_notebook_runs_in_a_session_as_it_stands(a_session_of_two_workers: Session, name: str) -> None:
    path = EXAMPLES / f"{name}.ipynb"
    written = nbformat.read(path, as_version=4)
    ran = run_in(a_session_of_two_workers, path)
    if folder := os.environ.get("HPCLAB_OUTPUTS"):
        ran.metadata = written.metadata
        nbformat.write(ran, Path(folder) / path.name)
        written = ran
    code = [cell for cell in written.cells if cell.cell_type == "code"]
    assert code[0].source == BEGIN
    assert TOLD[name] <= {line for cell in code for line in told(cell)}
    assert [told(cell) for cell in ran.cells] == [told(cell) for cell in written.cells]
