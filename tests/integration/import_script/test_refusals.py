"""Scripts that cannot become a DAG: one sentence, that names the line and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlflow_projects.cli.import_script.recording import Recorder, Script, ScriptError
from tests.conftest import ROOT
from tests.support.importing import Import

HEAD = "import mlflow, os, sys\n"
STEP = 'one = mlflow.run("step", env_manager="local")\n'
GET = "run = mlflow.MlflowClient().get_run(one.run_id)\n"

# What stands behind HEAD and STEP, and what is said of it.
SCRIPTS = {
    "raises": ("raise ValueError('no data')", r"^raises.py:3: this raises ValueError: no data\. Nothing was written"),
    "missing": (
        "import surely_not_there",
        r"missing.py:3: this needs the package 'surely_not_there', which .* name another --python",
    ),
    "stdin": ("input('go on?')", r"stdin.py:3: this reads from its standard input"),
    "exits": ("sys.exit(3)", r"exits.py:3: this ends by sys.exit\(3\)"),
    "exits_at_once": ("os._exit(0)", r"exits_at_once.py ends its own process"),
    "socket": (
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        r"socket.py:3: this opens a connection to '127.0.0.1'",
    ),
    "web": (
        "import urllib.request as u; u.urlopen('http://example.com')",
        r"web.py:3: this opens a connection to 'example.com'",
    ),
    "swallows": (
        "import socket\ntry:\n    socket.create_connection(('h', 1))\nexcept BaseException:\n    pass",
        r"swallows.py:5: this opens a connection to 'h'",
    ),
    "metric": (
        GET + "if run.data.metrics['rmse'] < 1: pass",
        r"metric.py:4: this depends on the metric 'rmse' of 'step'.* @task.branch",
    ),
    "all_metrics": (
        GET + "print(dict(run.data.metrics))",
        r"all_metrics.py:4: this depends on the metrics of 'step'",
    ),
    "found_metric": (
        "import os\nr = mlflow.MlflowClient().search_runs(['0'])[0]\nassert r.data.metrics.get('x')",
        r"found_metric.py:5: this depends on the metric 'x' of 'step'",
    ),
    "history": (
        "mlflow.MlflowClient().get_metric_history(one.run_id, 'x')",
        r"history.py:3: this reads a metric of 'step'",
    ),
    "content": (GET + "open(run.info.artifact_uri + '/x.txt')", r"content.py:4: this reads an artifact of 'step'"),
    "exists": (
        GET + "os.path.exists(os.path.join(run.info.artifact_uri, 'x'))",
        r"exists.py:4: this looks at an artifact of 'step'",
    ),
    "globs": (
        GET + "import glob; glob.glob(run.info.artifact_uri + '/*')",
        r"globs.py:4: this looks at an artifact of 'step'",
    ),
    "lists": ("mlflow.MlflowClient().list_artifacts(one.run_id)", r"lists.py:3: this lists the artifacts of 'step'"),
    "version": (
        "v = mlflow.register_model(f'runs:/{one.run_id}/model', 'm')\nprint(v.version)",
        r"version.py:4: this reads the version of a model",
    ),
    "output": (
        "import subprocess; print(subprocess.check_output(['date']).decode())",
        r"output.py:3: this reads the output of 'date'",
    ),
    "outside": (
        "open('/var/tmp/of-a-driver', 'w')",
        r"outside.py:3: this writes /var/tmp/of-a-driver, which is outside",
    ),
    "entry_point": (
        "mlflow.run('step', 'no_such', parameters={})",
        r"entry_point.py:3: this raises ExecutionException",
    ),
    "parameter": (
        "mlflow.run('step', 'train')",
        r"parameter.py:3: this raises ExecutionException: No value given for missing parameters: 'data'",
    ),
    "project": ("mlflow.run('no/such/folder')", r"project.py:3: this runs the project .* which is not there"),
    "name_look_up": (
        "import socket; socket.gethostbyname('example.com')",
        r"name_look_up.py:3: this opens a connection to 'example.com'",
    ),
    "daemon": (
        "import socket; socket.socket(socket.AF_UNIX).connect('/run/no-such.sock')",
        r"daemon.py:3: this opens a connection to '/run/no-such.sock'",
    ),
    "stdin_read": ("sys.stdin.read()", r"stdin_read.py:3: this reads from its standard input"),
    "stdin_bytes": ("sys.stdin.buffer.readline()", r"stdin_bytes.py:3: this reads from its standard input"),
    "stdin_number": ("open(0).read()", r"stdin_number.py:3: this reads from its standard input"),
    "password": ("import getpass; getpass.getpass()", r"password.py:3: this reads from its standard input"),
    "forks": (
        "if os.fork() == 0:\n    mlflow.run('step', env_manager='local')\n    os._exit(0)",
        r"forks.py:3: this calls os.fork, .* call subprocess instead",
    ),
    "spawns": (
        "os.posix_spawn('/bin/true', ['true'], os.environ)",
        r"spawns.py:3: this calls os.posix_spawn, .* call subprocess instead",
    ),
    "spawns_and_waits": ("os.spawnl(os.P_WAIT, '/bin/true', 'true')", r"spawns_and_waits.py:3: this calls os.fork"),
    "says_nothing": (
        "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E",
        r"says_nothing.py:5: this raises E\. Nothing was written",
    ),
    "output_awaited": (
        "import asyncio\nasync def f():\n"
        "    date = await asyncio.create_subprocess_exec('date', stdout=asyncio.subprocess.PIPE)\n"
        "    print((await date.communicate())[0].decode())\n"
        "asyncio.run(f())",
        r"output_awaited.py:6: this reads the output of 'date'",
    ),
    "cancels": ("mlflow.run('step', synchronous=False).cancel()", r"cancels.py:3: this cancels 'step'"),
}
FIRST = {
    "for_ever": ("while True: pass", r"for_ever.py:2: this does not end"),
    "none": ("print('nothing')", r"none.py runs no project with these options"),
    "syntax": ("def (", r"syntax.py raises SyntaxError"),
    "option": (
        "import argparse as a\np = a.ArgumentParser()\np.add_argument('--x')\np.parse_args()",
        r"has no option 'wrong'.*it has x",
    ),
    "at_random": ("import random\nif random.random() > 0.5:\n    " + STEP * 1, r"runs other steps each time"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tests" / "projects" / "drivers" / "step", tmp_path / "driver" / "step")
    return tmp_path / "driver"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_sentence_says_what_a_script_does(name: str, imported: Import, folder: Path) -> None:
    (folder / f"{name}.py").write_text(HEAD + STEP + SCRIPTS[name][0])
    with pytest.raises(ScriptError, match=SCRIPTS[name][1]):
        imported(folder / f"{name}.py")


@pytest.mark.parametrize("name", FIRST)
def test_a_sentence_says_what_a_script_lacks(name: str, imported: Import, folder: Path) -> None:
    (folder / f"{name}.py").write_text(HEAD + FIRST[name][0])
    with pytest.raises(ScriptError, match=FIRST[name][1]):
        imported(
            folder / f"{name}.py",
            seconds=2.0 if name == "for_ever" else 120.0,
            **({"wrong": "1"} if name == "option" else {}),
        )


def test_what_comes_before_a_decision_can_be_kept(imported: Import, folder: Path) -> None:
    text = HEAD + STEP + GET + "if run.data.metrics['rmse'] < 1:\n    mlflow.run('step', 'load')\n"
    (folder / "partly.py").write_text(text)
    dag = imported(folder / "partly.py", partial=True)
    assert dag.text().count("MLflowProjectOperator(") == 1
    assert any("holds only the script" in note and "partly.py:4" in note for note in dag.notes())


def test_a_script_changes_nothing_outside_of_its_copy(imported: Import, folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    (folder / "careless.py").write_text(
        HEAD
        + f"import shutil, subprocess\nshutil.rmtree({str(precious)!r})\nos.remove({str(precious / 'file')!r})\n"
        + f"subprocess.run('touch {tmp_path}/PWNED', shell=True)\nos.system('touch {tmp_path}/PWNED')\n"
        + "open('here.txt', 'w').write('x')\nos.makedirs('made')\nshutil.rmtree('made')\n"
        + f"os.makedirs({str(tmp_path / 'new')!r}, exist_ok=True)\n"
        + STEP
    )
    notes = imported(folder / "careless.py").notes()
    assert [note.partition(",")[0] for note in notes] == [
        f"careless.py:3 removes {precious}",
        f"careless.py:4 removes {precious}/file",
        f"careless.py:5 runs touch {tmp_path}/PWNED",
        f"careless.py:6 runs touch {tmp_path}/PWNED",
        "careless.py:7 writes here.txt",
        f"careless.py:10 makes {tmp_path}/new",
    ]
    assert not (tmp_path / "new").exists()
    assert (precious / "file").read_text() == "kept"
    assert sorted(file.name for file in folder.iterdir()) == ["careless.py", "step"]
    assert not (tmp_path / "PWNED").exists()


CHANGES = {
    "moves": "import shutil; shutil.move('{precious}/file', 'here')",
    "moves_out": "open('here', 'w').close(); os.replace('here', '{precious}/file')",
    "renames": "from pathlib import Path; Path('{precious}/file').rename('{precious}/other')",
    "links": "os.symlink('x', '{precious}/link')",
    "truncates": "os.truncate('{precious}/file', 0)",
    "locks": "os.chmod('{precious}/file', 0)",
    "touches": "from pathlib import Path; Path('{precious}/file').touch()",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_outside_of_the_copy_stops_the_script(
    name: str, imported: Import, folder: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    file = precious / "file"
    file.write_text("kept")
    before = file.stat()
    (folder / f"{name}.py").write_text(HEAD + STEP + CHANGES[name].format(precious=precious))
    with pytest.raises(ScriptError, match=rf"{name}.py:3: this (changes|writes) .*, which is outside"):
        imported(folder / f"{name}.py")
    assert [*precious.iterdir()] == [file]
    assert file.read_text() == "kept"
    assert (file.stat().st_mode, file.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_an_error_names_the_file_of_the_script_not_that_of_the_copy(imported: Import, folder: Path) -> None:
    (folder / "step" / "MLproject").write_text("name: [")
    (folder / "unreadable.py").write_text(HEAD + STEP)
    with pytest.raises(ScriptError, match=r"unreadable.py:2: this raises") as error:
        imported(folder / "unreadable.py")
    assert str(folder / "step" / "MLproject") in str(error.value)


def test_a_file_of_a_step_that_is_removed_is_told(imported: Import, folder: Path) -> None:
    (folder / "cleans.py").write_text(HEAD + STEP + "os.remove('made_by_the_step.txt')\n")
    notes = imported(folder / "cleans.py").notes()
    assert notes == ["cleans.py:3 removes made_by_the_step.txt, which no step here does."]


def test_work_in_processes_of_any_kind_becomes_steps(imported: Import, folder: Path) -> None:
    (folder / "processes.py").write_text(
        HEAD
        + "import asyncio, multiprocessing as m\n"
        + "def run(name): mlflow.run('step', env_manager='local', run_name=name)\n"
        + "def begin(prefix):\n    global named\n    named = lambda name: run(prefix + name)\n"
        + "def run_named(name): named(name)\n"
        + "async def shell(): await (await asyncio.create_subprocess_shell('mlflow run step -P x=1')).wait()\n"
        + "if __name__ == '__main__':\n"
        + "    for kind in ('fork', 'spawn'):\n"
        + "        one = m.get_context(kind).Process(target=run, args=(kind,))\n"
        + "        one.start()\n        one.join()\n"
        + "    shared = m.Manager().dict(prefix='in_')\n"
        + "    with m.Pool(2, begin, (shared['prefix'],)) as pool:\n        pool.map(run_named, ['pool'])\n"
        + "    asyncio.run(shell())\n"
    )
    text = imported(folder / "processes.py").text()
    assert [name in text for name in ('"fork"', '"spawn"', '"in_pool"', '{"x": "1"}')] == [True] * 4
    assert text.count("MLflowProjectOperator(") == 4


def test_a_python_without_mlflow_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="cannot be started"):
        Recorder(str(tmp_path / "python")).__enter__()
    false = tmp_path / "false"
    false.write_text("#!/bin/sh\necho no module named mlflow >&2; exit 1\n")
    false.chmod(0o755)
    with pytest.raises(ScriptError, match=r"cannot record \(no module named mlflow\); install mlflow there"):
        Recorder(str(false)).__enter__()


def test_a_folder_that_is_too_large_is_named(
    recorder: Recorder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_projects.cli.import_script.recording._MOST_FILES", 1)
    file = folder / "x.py"
    file.write_text(STEP)
    with pytest.raises(ScriptError, match="name a smaller one with --root"):
        recorder.record(Script(file, folder, folder), {})
