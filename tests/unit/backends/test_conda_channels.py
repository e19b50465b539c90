"""Where conda packages come from: conda's settings, Airflow's option, and what a file names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlflow_projects.backends.local.conda_channels import Channel, CondaSettings
from mlflow_projects.backends.local.conda_environment import Recipe, check
from mlflow_projects.backends.local.settings import LocalSettings
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.conda_file import CondaFile
from mlflow_projects.project.spec import load_project


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def settings(home: Path, option: str = "", variables: dict[str, str] | None = None, **condarc: Any) -> CondaSettings:
    """Read settings, from a ~/.condarc if there are any."""
    if condarc:
        (home / ".condarc").write_text(yaml.safe_dump(condarc))
    return CondaSettings.of(option, {"HOME": str(home), **(variables or {})})


def addresses(found: CondaSettings, *declared: str, more: tuple[str, ...] = ()) -> list[list[str]]:
    return [[channel.address for channel in channels] for channels in found.tries(declared, more)]


def test_without_settings_conda_s_defaults_count(home: Path) -> None:
    found = settings(home)
    assert (found.verify, found.priority, found.alias) == (True, "flexible", "")
    assert addresses(found) == [["main", "r"]]
    assert addresses(found, "defaults") == [["main", "r"]]
    assert addresses(found, "conda-forge") == [["conda-forge"], ["conda-forge", "main", "r"]]
    assert addresses(found, "main", "conda-forge") == [["main", "conda-forge"], ["main", "conda-forge", "r"]]


def test_an_empty_file_and_one_that_is_missing_say_nothing(home: Path) -> None:
    expected = settings(home)
    (home / ".condarc").write_text("# nothing\n")
    assert settings(home) == expected
    assert settings(home, variables={"CONDARC": str(home / "missing")}) == expected


def test_condarc_counts_instead_of_the_one_at_home(home: Path) -> None:
    (home / "other").write_text("channels: [b]\n")
    assert addresses(settings(home, channels=["a"])) == [["a"]]
    assert addresses(settings(home, variables={"CONDARC": str(home / "other")})) == [["b"]]
    assert addresses(settings(home, variables={"CONDARC": ""})) == [["a"]], "an empty variable is none"


def test_nodefaults_keeps_conda_s_own_channels_away(home: Path) -> None:
    assert addresses(settings(home), "conda-forge", "nodefaults") == [["conda-forge"]]
    assert addresses(settings(home, channels=["a"]), "nodefaults", "b") == [["b"]]


def test_nodefaults_is_no_channel_wherever_it_stands(home: Path) -> None:
    found = settings(home, channels=["conda-forge", "nodefaults"])
    assert addresses(found) == [["conda-forge"]]
    assert addresses(found, "a") == [["a"], ["a", "conda-forge"]]
    assert addresses(settings(home, "own nodefaults")) == [["own"]]


def test_local_is_never_the_channel_of_that_name_on_the_internet(home: Path) -> None:
    """To conda it is what was built on the machine; on the internet anybody may own it."""
    assert addresses(settings(home), "local", "nodefaults", "a") == [["a"]]
    assert addresses(settings(home), "local") == [["main", "r"]]
    declared = CondaFile(("a",), ("local::own", "six"))
    with pytest.raises(ProjectError, match=r"'local::own' is from the channel 'local', .* conda_channels .local="):
        _ = Recipe(declared, settings(home)).specs
    assert Recipe(declared, settings(home, "mirror")).specs == [["own"], ["six"]], "nothing but the mirror counts"
    told = settings(home, "local=https://h.example/own")
    assert addresses(told, "local", "nodefaults") == [["https://h.example/own"]]
    assert Recipe(declared, told).specs == [["https://h.example/own::own"], ["six"]]
    several = settings(home, custom_multichannels={"local": ["file:///srv/built"]})
    assert addresses(several, "local", "nodefaults") == [["file:///srv/built"]]


def test_a_package_of_local_is_refused_before_the_start(home: Path) -> None:
    (home / "conda.yaml").write_text("dependencies: [local::own]")
    with pytest.raises(ProjectError, match="'local::own' is from the channel 'local'"):
        check(load_project(home), "", "", {"HOME": str(home)})


def test_channels_of_condarc_stand_behind_those_of_the_file(home: Path) -> None:
    found = settings(home, channels=["own", "conda-forge"])
    assert addresses(found) == [["own", "conda-forge"]]
    assert addresses(found, "conda-forge") == [["conda-forge"], ["conda-forge", "own"]]
    assert addresses(found, "own", "conda-forge") == [["own", "conda-forge"]], "nothing to add"


def test_channels_of_single_packages_are_asked_too(home: Path) -> None:
    found = settings(home, custom_channels={"own": "https://h.example"}, channels=["a"])
    assert addresses(found, "x", "nodefaults", more=("own", "x")) == [["x", "https://h.example/own"]]
    assert addresses(found, more=("nvidia",)) == [["a", "nvidia"]]
    assert addresses(found, "x", "nodefaults", more=("own/linux-64", "x/noarch")) == [["x", "https://h.example/own"]]
    assert addresses(found, "x/linux-64", "x", "nodefaults") == [["x"]]
    assert addresses(found, "x", "nodefaults", more=("defaults",)) == [["x", "main", "r"]]


def test_what_counts_instead_counts_for_single_packages_too(home: Path) -> None:
    """A company's mirror; what it does not name cannot be reached, or may not."""
    assert addresses(settings(home, "only"), "x", more=("nvidia", "defaults")) == [["only"]]
    told = settings(home, "only nvidia=https://m.example/nvidia")
    assert addresses(told, more=("nvidia/label/x", "y")) == [["only", "https://m.example/nvidia/label/x"]]
    assert [found.address for found in told.of_package("nvidia")] == ["https://m.example/nvidia"]
    assert told.of_package("y") == []


def test_long_names_of_conda_s_own_channels(home: Path) -> None:
    assert addresses(settings(home), "pkgs/main", "pkgs/r", "main") == [["main", "r"]]
    assert settings(home, "main=https://m.example/main").address("pkgs/main") == "https://m.example/main"


def test_certificates_that_are_not_there_are_one_sentence(home: Path) -> None:
    with pytest.raises(ProjectError, match=r"condarc: 'ssl_verify' names '/no/such.pem', which is not there"):
        settings(home, ssl_verify="/no/such.pem")
    assert settings(home, ssl_verify=str(home)).verify == str(home)


def test_an_alias_stands_before_names_only(home: Path) -> None:
    found = settings(home, channel_alias="https://mirror.example/conda/", channels=["a"])
    assert found.address("conda-forge") == "https://mirror.example/conda/conda-forge"
    assert found.address("conda-forge/label/dev") == "https://mirror.example/conda/conda-forge/label/dev"
    assert found.address("https://h.example/x") == "https://h.example/x"
    assert found.address("file:///x") == "file:///x"
    assert addresses(found) == [["https://mirror.example/conda/a"]]


def test_names_without_an_alias_are_py_rattlers(home: Path) -> None:
    assert settings(home).address("conda-forge") == "conda-forge"
    assert settings(home).address("conda-forge/label/dev") == "conda-forge/label/dev"


def test_folders_are_addresses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    found = settings(home, channel_alias="https://h.example")
    assert found.address("/srv/a channel") == "file:///srv/a%20channel"
    assert found.address("./own") == (home / "own").as_uri()
    assert found.address("~/own") == (home / "own").as_uri()


def test_default_channels_are_what_defaults_means(home: Path) -> None:
    found = settings(home, default_channels=["https://m.example/main", "https://m.example/r"])
    assert addresses(found) == [["https://m.example/main", "https://m.example/r"]]
    assert addresses(found, "x", "defaults") == [["x", "https://m.example/main", "https://m.example/r"]]
    one = settings(home, default_channels="https://m.example/main")
    assert addresses(one, "defaults") == [["https://m.example/main"]]


def test_custom_channels_are_names_below_an_address(home: Path) -> None:
    found = settings(home, custom_channels={"own": "https://h.example/c/", "main": "https://m.example/pkgs"})
    assert found.address("own") == "https://h.example/c/own"
    assert found.address("own/label/dev") == "https://h.example/c/own/label/dev"
    assert found.address("owner") == "owner"
    assert addresses(found, "defaults") == [["https://m.example/pkgs/main", "r"]]


def test_custom_multichannels_are_several_by_one_name(home: Path) -> None:
    found = settings(
        home,
        custom_multichannels={"team": ["own", "https://h.example/x"], "one": "y", "defaults": ["z"]},
        custom_channels={"own": "https://h.example"},
    )
    assert addresses(found, "team", "nodefaults") == [["https://h.example/own", "https://h.example/x"]]
    assert addresses(found, "one", "team", "one", "nodefaults") == [
        ["y", "https://h.example/own", "https://h.example/x"]
    ]
    assert addresses(found) == [["z"]]
    both = settings(home, custom_multichannels={"defaults": ["z"]}, default_channels=["d"])
    assert addresses(both) == [["d"]]


@pytest.mark.parametrize(("value", "expected"), [
    ("strict", "strict"), ("flexible", "flexible"), ("disabled", "disabled"), ("Strict", "strict"),
    (True, "flexible"), (False, "disabled"), (None, "flexible"),
])  # fmt: skip
def test_channel_priority(value: Any, expected: str, home: Path) -> None:
    assert settings(home, channel_priority=value).priority == expected


@pytest.mark.parametrize(("value", "expected"), [
    (True, True), (False, False), ("/dev/null", "/dev/null"), ("~/ca.pem", "HOME/ca.pem"), ("truststore", True),
    (None, True), ("", True), ("False", False), ("true", True), ("$VERIFY", False), ("${CA}", "/dev/zero"),
])  # fmt: skip
def test_certificates(value: Any, expected: bool | str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing said is no reason to trust everybody."""
    monkeypatch.setenv("HOME", str(home))
    (home / "ca.pem").touch()
    found = settings(home, variables={"VERIFY": "no", "CA": "/dev/zero"}, ssl_verify=value).verify
    assert found == (expected.replace("HOME", str(home)) if isinstance(expected, str) else expected)
    assert isinstance(found, type(expected))


def test_variables_are_filled_in_wherever_a_text_stands(home: Path) -> None:
    found = settings(
        home,
        variables={"USER_NAME": "me", "TOKEN": "t0k"},
        channel_alias="https://$USER_NAME@h.example/t/${TOKEN}",
        channels=["${TOKEN}-x", "$MISSING"],
        custom_channels={"own": "https://h.example/${TOKEN}"},
        proxy_servers={"https": "http://${USER_NAME}@proxy"},
    )
    assert found.alias == "https://me@h.example/t/t0k"
    assert found.channels == ("t0k-x", "$MISSING")
    assert found.address("own") == "https://h.example/t0k/own"
    assert found.proxies == {"https": "http://me@proxy"}


@pytest.mark.parametrize("option", [
    "own conda-forge", "own,conda-forge", "  own , conda-forge\n", "own\nconda-forge",
])  # fmt: skip
def test_words_of_the_option_are_the_only_channels(option: str, home: Path) -> None:
    found = settings(home, option, channels=["a"])
    assert addresses(found, "x", "nodefaults") == [["own", "conda-forge"]]
    assert addresses(found) == [["own", "conda-forge"]]


def test_pairs_of_the_option_say_where_a_channel_is(home: Path) -> None:
    found = settings(
        home,
        "conda-forge=https://m.example/cf?a=b own/label/x=file:///x",
        custom_channels={"conda-forge": "https://elsewhere.example", "other": "https://o.example"},
        channel_alias="https://alias.example",
    )
    assert addresses(found, "conda-forge", "nodefaults") == [["https://m.example/cf?a=b"]], "the option counts first"
    assert found.address("own/label/x") == "file:///x"
    assert found.address("other") == "https://o.example/other"
    assert found.address("third") == "https://alias.example/third"


def test_a_pair_and_a_word_go_together(home: Path) -> None:
    found = settings(home, "mirror=https://m.example/x mirror https://h.example/y?key=1")
    assert addresses(found, "x") == [["https://m.example/x", "https://h.example/y?key=1"]]


def test_a_label_of_a_channel_of_the_option(home: Path) -> None:
    found = settings(home, "conda-forge=https://m.example/cf/")
    assert found.address("conda-forge/label/dev") == "https://m.example/cf/label/dev"
    assert found.address("conda-forge") == "https://m.example/cf/"


ADDRESS = "https://ann:p4ss@h.example/t/t0k3n/own"


def test_what_is_shown_has_no_password_or_token() -> None:
    channel = Channel(ADDRESS, ADDRESS)
    assert channel.shown == "https://h.example/t/***/own"
    assert {"p4ss", "t0k3n"} <= set(channel.secrets)
    assert Channel("conda-forge", "conda-forge").shown == "conda-forge"
    assert Channel("conda-forge", "conda-forge").secrets == []
    named = Channel("own", ADDRESS)
    assert named.shown == "own"
    assert {"p4ss", "t0k3n"} <= set(named.secrets)


def test_no_password_or_token_is_in_a_repr(home: Path) -> None:
    found = settings(
        home,
        f"x={ADDRESS} {ADDRESS}",
        channels=[ADDRESS],
        channel_alias=ADDRESS,
        default_channels=[ADDRESS],
        custom_channels={"own": ADDRESS},
        proxy_servers={"https": "http://ann:p4ss@proxy"},
    )
    shown = f"{found!r} {found.tries(['a'])!r} {LocalSettings(conda_channels=ADDRESS)!r}"
    assert "p4ss" not in shown
    assert "t0k3n" not in shown


@pytest.mark.parametrize(("declared", "condarc"), [
    (CondaFile((ADDRESS,), ()), {}),
    (CondaFile(("x",), ()), {"channels": [ADDRESS]}),
    (CondaFile(("own",), ()), {"custom_channels": {"own": ADDRESS}}),
    (CondaFile(("x", "nodefaults"), ("own::tiny=1",)), {"custom_channels": {"own": ADDRESS}}),
    (CondaFile(("x", "nodefaults"), (f"{ADDRESS}::tiny=1",)), {}),
    (CondaFile(("x", "nodefaults"), ()), {"channel_alias": ADDRESS}),
])  # fmt: skip
def test_secrets_of_all_channels_that_may_be_asked(declared: CondaFile, condarc: Any, home: Path) -> None:
    assert {"p4ss", "t0k3n"} <= set(Recipe(declared, settings(home, **condarc)).secrets())


WRONG = {
    "channels: [": "not valid YAML",
    "- a": "the file must be a mapping",
    "channels: 3": "'channels' must be a list of channels.",
    "channels: [3]": "'channels' must be a list of channels.",
    "default_channels: {a: b}": "'default_channels' must be a list of channels.",
    "channel_alias: {a: b}": "'channel_alias' must be a list of channels.",
    "custom_channels: [a]": "'custom_channels' must be a mapping of names.",
    "custom_multichannels: a": "'custom_multichannels' must be a mapping of names.",
    "custom_multichannels: {team: 3}": "'team' must be a list of channels.",
    "proxy_servers: [x]": "'proxy_servers' must be a mapping of names.",
    "channel_priority: high": "'channel_priority' must be strict, flexible or disabled, not 'high'.",
    "channel_priority: [a]": "'channel_priority' must be strict, flexible or disabled, not ",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_broken_condarc_is_one_sentence_with_the_file(text: str, home: Path) -> None:
    (home / ".condarc").write_text(text)
    with pytest.raises(ProjectError) as caught:
        settings(home)
    assert str(caught.value).startswith(f"{home / '.condarc'}:")
    assert WRONG[text] in str(caught.value)


def test_a_condarc_that_is_no_text_is_one_sentence(home: Path) -> None:
    (home / ".condarc").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProjectError, match=r"\.condarc"):
        settings(home)


@pytest.mark.parametrize("option", ["conda-forge = https://h", "conda-forge=", "main= https://h", "main =https://h"])
def test_a_blank_beside_the_equals_sign_is_one_sentence(option: str) -> None:
    with pytest.raises(ProjectError, match=r"conda_channels holds '.*'; write name=address, without a blank\."):
        CondaSettings.of(option, {"HOME": "/none"})


def test_a_password_in_a_wrong_option_is_not_shown() -> None:
    with pytest.raises(ProjectError) as caught:
        CondaSettings.of("main =https://ann:s3cret@h", {"HOME": "/none"})
    assert "s3cret" not in str(caught.value)


def test_a_proxy_of_a_single_host_is_not_that_of_all(tmp_path: Path) -> None:
    file = tmp_path / "condarc"
    file.write_text("proxy_servers: {'https://one': 'http://p', http: 'http://q', https: null}")
    assert CondaSettings.of("", {"CONDARC": str(file)}).proxies == {"http": "http://q"}
