"""Settings from every layer: the strongest wins, every value knows its source, a mistake is named with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hpclab.config import DEFAULTS, Source, config_files, load
from hpclab.errors import ConfigError

OPTIONS = tomllib.loads(DEFAULTS.read_text())


@pytest.fixture
def write(tmp_path):
    """write("user", 'cores = 3') gives the list of config files; a second call adds to it."""
    files: dict[Source, Path] = {}

    def _write(who: str, text: str) -> list[tuple[Source, Path]]:
        source = Source[who.upper()]
        files[source] = tmp_path / f"{who}.toml"
        files[source].write_text(text)
        return sorted(files.items())

    return _write


def setting(key, env, files, given):
    _, chosen = load(env, files, given)
    return next(setting for setting in chosen if setting.key == key)


# the layers


def test_without_anything_the_defaults_count():
    settings, chosen = load({}, [], {})
    assert settings.cores == 1
    assert settings.memory_bytes == 2 * 2**30
    assert settings.walltime_s == 7200
    assert settings.prologue == ()
    assert {s.source for s in chosen} == {Source.DEFAULT}
    assert [s.key for s in chosen] == list(OPTIONS)


LAYERS = [
    (Source.DEFAULT, 1),
    (Source.SITE, 2),
    (Source.USER, 3),
    (Source.PROFILE, 4),
    (Source.ENVIRONMENT, 5),
    (Source.FLAG, 6),
]


@pytest.mark.parametrize(("strongest", "cores"), LAYERS)
def test_the_stronger_layer_wins(write, strongest, cores):
    files, env, given = [], {}, {"cores": None, "profile": None}
    if strongest >= Source.SITE:
        files = write("site", "cores = 2")
    if strongest >= Source.USER:
        files = write("user", "cores = 3\n[profile.big]\ncores = 4")
    if strongest >= Source.PROFILE:
        given["profile"] = "big"
    if strongest >= Source.ENVIRONMENT:
        env = {"HPCLAB_CORES": "5"}
    if strongest >= Source.FLAG:
        given["cores"] = "6"
    settings, _ = load(env, files, given)
    assert settings.cores == cores
    assert setting("cores", env, files, given).source is strongest


def test_the_users_profile_wins_over_the_sites_of_the_same_name(write):
    write("site", '[profile.big]\ncores = 8\nmemory = "8G"')
    files = write("user", "[profile.big]\ncores = 16")
    settings, _ = load({}, files, {"profile": "big"})
    assert (settings.cores, settings.memory_bytes) == (16, 8 * 2**30)


@pytest.mark.parametrize(
    ("env", "given"),
    [
        ({"HPCLAB_PROFILE": "big"}, {}),
        ({}, {"profile": "big"}),
        ({"HPCLAB_PROFILE": "small"}, {"profile": "big"}),
    ],
)
def test_a_profile_is_chosen_by_variable_or_flag(write, env, given):
    files = write("user", "[profile.big]\ncores = 16\n[profile.small]\ncores = 1")
    assert load(env, files, given)[0].cores == 16


def test_a_profile_that_is_not_chosen_does_not_count(write):
    assert load({}, write("user", "[profile.big]\ncores = 16"), {})[0].cores == 1


def test_files_that_are_missing_are_passed_over(tmp_path):
    (tmp_path / "file").write_text("")
    files = [(Source.SITE, tmp_path / "none.toml"), (Source.USER, tmp_path / "file" / "none.toml")]
    assert load({}, files, {})[0].cores == 1


# the sources


@pytest.mark.parametrize(
    ("env", "given", "where"),
    [({}, {}, "default"), ({"HPCLAB_CORES": "5"}, {}, "$HPCLAB_CORES"), ({}, {"cores": "6"}, "--cores")],
)
def test_a_value_knows_its_source(env, given, where):
    assert setting("cores", env, [], given).where == where


def test_a_value_from_a_file_knows_the_line(write, tmp_path):
    files = write("user", "# mine\n\ncores = 3\n")
    assert setting("cores", {}, files, {}).where == f"{tmp_path}/user.toml:3"


def test_a_value_from_a_profile_knows_its_own_line_and_not_that_of_its_namesake(write, tmp_path):
    files = write("user", 'cores = 3\n[profile.small]\ncores = 1\n[profile."big"]\nqueue = "local"\ncores = 16\n')
    assert setting("cores", {}, files, {"profile": "big"}).where == f"{tmp_path}/user.toml:6"


@pytest.mark.parametrize(
    ("env", "site", "user"),
    [
        ({"HOME": "/home/ada"}, "/etc/hpclab/config.toml", "/home/ada/.config/hpclab/config.toml"),
        (
            {"HOME": "/home/ada", "XDG_CONFIG_HOME": "/xdg", "HPCLAB_SITE_CONFIG": "/site.toml"},
            "/site.toml",
            "/xdg/hpclab/config.toml",
        ),
    ],
)
def test_where_the_files_are(env, site, user):
    assert config_files(env) == [(Source.SITE, Path(site)), (Source.USER, Path(user))]


# the environment


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_has_a_variable(key):
    default = OPTIONS[key]
    value = "A=line" if isinstance(default, list) else "2h" if ":" in str(default) else str(default)
    if key == "profile":
        return
    found = setting(key, {f"HPCLAB_{key.upper()}": value}, [], {})
    assert (found.source, found.where) == (Source.ENVIRONMENT, f"$HPCLAB_{key.upper()}")


@pytest.mark.parametrize(
    ("word", "is_on"),
    [("true", True), ("Yes", True), ("1", True), ("on", True), ("false", False), ("NO", False), ("0", False)],
)
def test_a_switch_has_words_in_the_environment(word, is_on):
    assert load({"HPCLAB_ARRAYS": word}, [], {})[0].arrays is is_on


def test_none_of_something_may_be_asked_for():
    settings, _ = load({"HPCLAB_GPUS": "0", "HPCLAB_KEEP": "0"}, [], {"local_slots": 0})
    assert (settings.gpus, settings.keep, settings.local_slots) == (0, 0, 0)


def test_what_only_one_batch_system_knows_is_handed_on_by_name():
    options = load({"HPCLAB_SGE_PE": "openmp", "HPCLAB_LOCAL_SLOTS": "8"}, [], {})[0].system_options
    assert (options["sge_pe"], options["local_slots"], options["slurm_memory"]) == ("openmp", "8", "node")
    assert "local_slots" not in load({}, [], {})[0].system_options


def test_a_list_in_the_environment_is_one_line_each():
    env = {"HPCLAB_PROLOGUE": "module load python\nexport A='b c'\n"}
    assert load(env, [], {})[0].prologue == ("module load python", "export A='b c'")


def test_what_a_running_job_has_in_its_environment_is_no_option():
    told = {"home", "session", "job_id", "job_end_time", "folder", "supervisor", "jupyter", "site_config"}
    assert not told & set(OPTIONS)


# mistakes


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("cores = 2\nwaltime = '1h'\n", 2, ["unknown option 'waltime'", "did you mean 'walltime'?"]),
        ("\n\n'memry' = '1G'", 3, ["unknown option 'memry'", "did you mean 'memory'?"]),
        ("xyzzy = 1", 1, ["unknown option 'xyzzy'", "hpclab config"]),
        ("cores = 2\n\n[slurm]\naccount = 'a'", 3, ["unknown option 'slurm'"]),
        ("cores = 2\n[profile.big]\ncores = 4\nmemmory = '1G'", 4, ["'memmory'", "did you mean 'memory'?"]),
    ],
)
def test_an_unknown_key_is_named_with_file_line_and_close_match(write, tmp_path, text, line, words):
    with pytest.raises(ConfigError) as refused:
        load({}, write("user", text), {"profile": "big" if "big" in text else None})
    for word in [f"{tmp_path}/user.toml:{line}: ", *words]:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "cores = 0",
        "cores = -1",
        "cores = 1.5",
        "cores = true",
        "cores = 'two'",
        "cores = [1]",
        "walltime = 90",
        "walltime = '90'",
        "memory = 4",
        "memory = '4X'",
        "memory = {a = 1}",
        "local_slots = -1",
        "queue = 3",
        "profile = 3",
        "prologue = 'module load python'",
        "prologue = [1]",
        "extra = {a = 1}",
        "python = ['a']",
        "start_timeout = '0s'",
        "nodes = 0",
        "gpus = -1",
        "keep = 'many'",
        "most_queued = 0",
        "export = ['a value']",
        "export = ['2A=b']",
        "modules = 'python'",
        "arrays = 2",
        "check_versions = 'perhaps'",
        "slurm_memory = 'gpu'",
        "lsf_memory_unit = 'TB'",
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_place(write, tmp_path, text):
    with pytest.raises(ConfigError, match=f"{tmp_path}/user.toml"):
        load({}, write("user", text), {})


@pytest.mark.parametrize("text", ["[profile]\nbig = 3", "profile = 3", "[[profile]]\ncores = 1"])
def test_profiles_of_the_wrong_kind_are_refused(write, text):
    with pytest.raises(ConfigError):
        load({}, write("user", text), {"profile": "big"})


@pytest.mark.parametrize(
    ("env", "given", "where"),
    [({"HPCLAB_MEMORY": "4"}, {}, "$HPCLAB_MEMORY: "), ({}, {"scheduler_memory": "4"}, "--scheduler-memory: ")],
)
def test_a_wrong_value_elsewhere_is_named_with_its_place_too(env, given, where):
    with pytest.raises(ConfigError) as refused:
        load(env, [], given)
    assert str(refused.value).startswith(where)


def test_a_default_cannot_be_wrong_but_an_empty_variable_can():
    with pytest.raises(ConfigError, match=r"\$HPCLAB_CORES"):
        load({"HPCLAB_CORES": ""}, [], {})


def test_an_unknown_profile_is_named_with_a_close_match(write):
    with pytest.raises(ConfigError) as refused:
        load({}, write("user", "[profile.small]\n[profile.big]\n"), {"profile": "bigg"})
    assert "no [profile.bigg] in any config file (profiles: big, small)" in str(refused.value)
    assert "did you mean 'big'?" in str(refused.value)


def test_a_file_with_broken_toml_is_named_with_the_line(write, tmp_path):
    with pytest.raises(ConfigError, match=rf"cannot read {tmp_path}/user.toml: .*line 2") as refused:
        load({}, write("user", "cores = 1\ncores 2"), {})
    assert "mend the file" in str(refused.value)


@pytest.mark.parametrize("spoil", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff\xfe\x00")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, spoil):
    path = tmp_path / "config.toml"
    spoil(path)
    with pytest.raises(ConfigError, match=f"cannot read {path}"):
        load({}, [(Source.USER, path)], {})


def test_every_default_has_a_comment():
    lines = DEFAULTS.read_text().splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith("#"):
            block = lines[:number][::-1]
            assert any(above.startswith("#") for above in block[: block.index("") if "" in block else None])
