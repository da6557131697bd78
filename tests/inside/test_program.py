"""The pure parts of a run's supervisor; the whole of it is run by tests/end_to_end/test_run.py."""

from __future__ import annotations

import pytest

from hpclab.inside.program import RankEnd, ended_in_words, rank_end


@pytest.mark.parametrize(
    ("exit_status", "said"),
    [
        (0, "model.py ended with exit status 0"),
        (128, "model.py ended with exit status 128"),
        (137, "model.py was killed by signal 9"),
        (255, "model.py ended with exit status 255"),
    ],
)
def test_how_something_ended_in_words(exit_status, said):
    assert ended_in_words("model.py", exit_status) == said


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (None, RankEnd()),
        # it has begun
        ("", RankEnd()),
        # its own last word, before MPI's end, which may never come
        ("7", RankEnd(exit_status=7)),
        # that of the shell around it
        (" 137\n", RankEnd(exit_status=137, is_gone=True)),
        # both: MPI did not end well
        ("7 142\n", RankEnd(exit_status=7, is_gone=True)),
        ("torn by som", RankEnd()),
    ],
)
def test_what_is_told_of_a_ranks_end(tmp_path, text, end):
    path = tmp_path / "rank-1"
    if text is not None:
        path.write_text(text)
    assert rank_end(str(path)) == end
