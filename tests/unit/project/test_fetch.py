from __future__ import annotations

import shutil

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.fetch import declared_parameters, fetch

TEXT = "name: demo\nentry_points: {main: {command: x}}\n"


@pytest.mark.parametrize("form", ["path", "file", "quoted", "relative", "trailing slash"])
def test_a_local_folder_is_used_in_place(form, project, cache, workspace, monkeypatch):
    root = project(TEXT)
    monkeypatch.chdir(root.parent)
    uri = {"path": str(root), "file": root.as_uri(), "quoted": f'"{root}"', "relative": "project"}.get(
        form, f"{root}/"
    )
    fetched = fetch(uri, None, cache, workspace)
    assert fetched.project.root == root
    assert fetched.project.name == "demo"
    assert fetched.source.name == uri.strip('"')
    assert list(workspace.iterdir()) == []


def test_a_subdirectory_of_a_local_folder(project, cache, workspace):
    root = project(None, {"a b/c/MLproject": TEXT})
    assert fetch(f"{root}#a b/c", None, cache, workspace).project.root == root / "a b/c"


def test_a_folder_whose_name_ends_in_zip_is_a_folder(tmp_path, cache, workspace):
    (tmp_path / "x.zip").mkdir()
    (tmp_path / "x.zip/MLproject").write_text(TEXT)
    assert fetch(str(tmp_path / "x.zip"), None, cache, workspace).project.root == tmp_path / "x.zip"


def test_a_local_work_tree_tells_its_commit_and_whether_it_was_changed(repository, cache, workspace):
    commit = repository.git("rev-parse", "HEAD")
    source = fetch(f"{repository.tree}#sub/dir", None, cache, workspace).source
    assert (source.commit, source.changed, source.repo_url) == (commit, False, str(repository.bare))
    (repository.tree / "sub/dir/MLproject").write_text("name: changed")
    assert fetch(f"{repository.tree}#sub/dir", None, cache, workspace).source.changed


def test_a_version_of_a_local_work_tree_is_checked_out_and_the_tree_left_alone(repository, cache, workspace):
    first = repository.git("rev-parse", "HEAD")
    repository.commit("second")
    fetched = fetch(str(repository.tree), first, cache, workspace)
    assert fetched.project.root == workspace / "project"
    assert fetched.source.commit == first
    assert "echo first" in fetched.project.entry_point("main").command
    assert "echo second" in (repository.tree / "MLproject").read_text()


@pytest.mark.parametrize("form", ["path", "URI"])
def test_a_bare_repository_is_checked_out(form, repository, cache, workspace):
    uri = str(repository.bare) if form == "path" else repository.url
    fetched = fetch(f"{uri}#sub/dir", None, cache, workspace)
    assert fetched.project.name == "deep"
    assert fetched.project.root == workspace / "project/sub/dir"
    assert fetched.source.name == f"{repository.url}#sub/dir"
    assert (fetched.source.repo_url, fetched.source.branch) == (repository.url, "trunk")


@pytest.mark.parametrize(
    ("uri", "version", "words"),
    [
        ("", None, "The project's uri is empty; give a folder, a git URL or a zip file"),
        ("  ''", None, "The project's uri is empty"),
        ("#sub", None, "The project's uri is empty"),
        ("ROOT/none", None, "The project ROOT/none does not exist on this worker; check the uri"),
        ("file://ROOT/none", None, "does not exist on this worker"),
        ("~/none", None, "The project ~/none does not exist on this worker"),
        ("ROOT/MLproject", None, "ROOT/MLproject: the project has no folder ''"),
        ("ROOT", "main", "version 'main' is for git projects; ROOT is no git repository"),
        ("ROOT/p.zip", "main", "version 'main' is for git projects; ROOT/p.zip is a zip file"),
        ("ROOT#../other", None, "The subdirectory '../other' of ROOT leaves the project"),
        ("ROOT#a/../..", None, "leaves the project"),
        ("ROOT#/etc", None, "The subdirectory '/etc' of ROOT leaves the project"),
        ("ROOT#none", None, "ROOT#none: the project has no folder 'none'"),
        ("ROOT#link", None, "ROOT#link: the project has no folder 'link'"),
        ("https://[bad/x.git", None, "is no valid URL"),
        (f"ROOT/{'a' * 300}", None, "does not exist on this worker; check the uri"),
        (f"ROOT#{'a' * 300}", None, "the project has no folder"),
        (f"ROOT/{'a' * 300}", "main", "does not exist on this worker; check the uri"),
        ("ROOT\0a", None, "holds a NUL character"),
        ("ROOT", "main\0", "holds a NUL character"),
    ],
)
def test_a_uri_that_gives_no_project_is_answered_by_one_sentence(uri, version, words, project, cache, workspace):
    root = project(TEXT, {"p.zip": ""})
    (root / "link").symlink_to("/etc")
    with pytest.raises(ProjectError) as caught:
        fetch(uri.replace("ROOT", str(root)), version, cache, workspace)
    assert words.replace("ROOT", str(root)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "https://ada:PASSWORD@127.0.0.1:9/x.git",
        "https://ada:PASSWORD@127.0.0.1:9/x.git#../up",
        "https://:PASSWORD@127.0.0.1:9/x.git",
        "https://ada:PASS#WORD@127.0.0.1:9/x.git",
        "https://ada:PASS/WORD@127.0.0.1:9/x.git",
        "https://ada:PASSWORD@127.0.0.1:9/x.zip",
        "http://ada:PASSWORD@[::1/x.git",
        "ssh://git:PASSWORD@127.0.0.1:9/x.git",
        "'https://ada:PASSWORD@127.0.0.1:9/x.git'",
    ],
)
def test_a_password_in_the_uri_is_refused_and_not_repeated(uri, cache, workspace):
    with pytest.raises(
        ProjectError, match="put it into an Airflow connection and name that as git_conn_id"
    ) as caught:
        fetch(uri, None, cache, workspace)
    assert "PASS" not in str(caught.value) + repr(caught.value)
    assert "WORD" not in str(caught.value) + repr(caught.value)


def test_a_link_in_a_repository_does_not_lead_out_of_it(repository, cache, workspace):
    (repository.tree / "way-out").symlink_to("/etc")
    repository.commit("link")
    with pytest.raises(ProjectError, match="the project has no folder 'way-out'"):
        fetch(f"{repository.url}#way-out", None, cache, workspace)


DECLARES = "name: demo\nentry_points: {main: {parameters: {data: path, n: int}, command: x}}\n"


def test_what_an_entry_point_declares_is_read_in_place(project, cache):
    root = project(DECLARES)
    declared, folder = declared_parameters(str(root), None, None, cache, "main")
    assert {name: parameter.type for name, parameter in declared.items()} == {"data": "path", "n": "int"}
    assert folder == root


def test_of_a_repository_the_commit_that_was_fetched_counts(repository, cache, workspace):
    commit = repository.commit("one", MLproject=DECLARES)
    fetch(repository.url, None, cache, workspace)
    repository.commit("two")
    for folder in (repository.bare / "objects").iterdir():  # nothing can be fetched anew
        shutil.rmtree(folder)
    declared, folder = declared_parameters(repository.url, None, commit, cache, "main")
    assert ([*declared], folder) == (["data", "n"], None)


def test_of_a_zip_file_elsewhere_nothing_is_fetched_anew(cache):
    assert declared_parameters("https://host.invalid/x.zip", None, None, cache, "main") == ({}, None)
