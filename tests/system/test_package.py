"""The wheel in a fresh environment: from an empty folder to a first green run, and the plugin found once, however."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

UV = Path(sys.executable).with_name("uv")
PLUGINS = """
import json
from airflow import plugins_manager as server
from airflow.sdk import plugins_manager as task
loaded = {}
for side, manager in (("server", server), ("task", task)):
    plugins, errors = manager._get_plugins()
    names = sorted(plugin.name for plugin in plugins)
    loaded[side] = [names, errors]
print(json.dumps(loaded))
"""
LIGHT = {
    "projects/light/MLproject": "entry_points: {main: {parameters: {rows: int}, command: 'python train.py {rows}'}}",
    "projects/light/train.py": "import mlflow, sys\nmlflow.log_metric('square', int(sys.argv[1]) ** 2)\n",
    "dags/light.py": """
from pathlib import Path

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

with DAG("light"), mlflow_run("light"):
    project = Path(__file__).parents[1] / "projects" / "light"
    MLflowProjectOperator(task_id="train", uri=str(project), parameters={"rows": 3})
""",
}


@dataclass(frozen=True)
class Installation:
    """A virtual environment with Airflow and our wheel, and an empty folder to work in."""

    venv: Path
    folder: Path
    wheel: Path

    def run(self, *command: str, status: int = 0, **variables: str) -> str:
        """Run a program of the environment in the folder, as a new user would; return what it printed."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW_", "MLFLOW_", "PYTHON", "_AIRFLOW", "VIRTUAL_ENV", "TESTS_HOME"))
        }
        done = subprocess.run(
            [self.venv / "bin" / command[0], *command[1:]],
            cwd=self.folder,
            env={
                **inherited,
                "AIRFLOW_HOME": str(self.folder / "airflow"),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr if status else done.stdout

    def pip(self, *arguments: str) -> None:
        command = [UV, "pip", *arguments, "--quiet", "--python", self.venv / "bin" / "python"]
        subprocess.run(command, cwd=self.folder, check=True)

    def plugins(self) -> dict[str, list[object]]:
        """Return the names of the plugins and the errors, as a server and as a task process see them."""
        found: dict[str, list[object]] = json.loads(self.run("python", "-c", PLUGINS).splitlines()[-1])
        return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


@contextlib.contextmanager
def environment(base: Path, wheel: Path) -> Iterator[Installation]:
    (base / "empty").mkdir()
    made = Installation(base / "venv", base / "empty", wheel)
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, made.venv], check=True)
    yield made
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Iterator[Installation]:
    with environment(tmp_path_factory.mktemp("package"), wheel) as made:
        made.pip("install", "-r", str(ROOT / "requirements.txt"))
        made.pip("install", "--no-deps", str(wheel))
        yield made


def test_without_the_whole_of_mlflow_steps_run_on_a_server_and_on_a_database(
    tmp_path: Path, wheel: Path, mlflow_server: str
) -> None:
    with environment(tmp_path, wheel) as made:
        made.pip("install", "-c", str(ROOT / "requirements.txt"), "apache-airflow", str(wheel))
        (site,) = (made.venv / "lib").glob("python*/site-packages")
        assert not {"numpy", "pandas", "sklearn", "pyarrow"} & {path.name for path in site.iterdir()}
        for name, text in LIGHT.items():
            file = made.folder / "airflow" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        made.run("airflow", "db", "migrate")
        assert "mlflow-projects-on-airflow[full]'." in made.run("mlflow-projects", "check", "airflow/projects/light")
        for uri in (mlflow_server, f"sqlite:///{made.folder}/mlflow.db"):
            variables = {"MLFLOW_TRACKING_URI": uri}
            made.run("airflow", "dags", "test", "light", **variables)
            table = made.run("mlflow-projects", "tree", "light", **variables)
            assert re.search(r"light +│ FINISHED .*\n.*└ train +│ FINISHED .*rows=3.*square=9", table), table


def test_from_an_empty_folder_to_the_first_green_run(installation: Installation, mlflow_server: str) -> None:
    run = installation.run
    printed = run("mlflow-projects", "new", "demo")
    commands = re.findall(r"^  ((?:mlflow-projects|airflow) .*)$", printed, re.MULTILINE)
    assert commands == [
        "mlflow-projects check airflow/projects/demo",
        "airflow db migrate",
        "airflow dags test demo",
        "mlflow-projects tree demo",
    ]
    run("airflow", "db", "migrate")
    unset = run("mlflow-projects", "check")
    assert "there is neither a connection mlflow_default nor MLFLOW_TRACKING_URI" in unset
    assert not (installation.folder / "mlflow.db").exists(), "to look is not to make"

    run("airflow", "connections", "add", "mlflow_default", "--conn-type", "mlflow", "--conn-host", mlflow_server)
    checked = run("mlflow-projects", "check")
    assert "0 error(s), 0 warning(s)." in checked, checked
    assert f"mlflow_default: MLflow answers at {mlflow_server};" in checked
    assert "plugin mlflow_projects from mlflow-projects-on-airflow==" in checked
    assert "ok       airflow/projects/demo" in checked

    run("airflow", "dags", "test", "demo", "--conf", '{"rows": 50}')
    table = run("mlflow-projects", "tree", "demo")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]
    top = {row[0]: row for row in rows if row[0]}
    assert [(name, row[1]) for name, row in top.items()] == [
        ("demo", "FINISHED"), ("└ train", "FINISHED"), ("└ evaluate", "FINISHED"),
    ]  # fmt: skip
    assert "rows=50" in table
    assert top["└ train"][5] == "model (model)"
    assert "0 run(s) closed." in run("mlflow-projects", "janitor")


def test_what_is_wrong_with_a_connection_is_told_at_once(installation: Installation, mlflow_server: str) -> None:
    variables = {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": mlflow_server,  # of type http, as the provider of Astronomer had it
        "AIRFLOW_CONN_AWAY": "mlflow://127.0.0.1:9",
        "AIRFLOW_CONN_BROKEN": '{"conn_type": "mlflow", "password": "MY-TOKEN"',
    }
    printed = installation.run("mlflow-projects", "check", status=1, **variables)
    for expected in (
        r"warning +connection mlflow_default is of type 'http', not 'mlflow'",
        rf"ok +mlflow_default: MLflow answers at {mlflow_server}",
        r"error +away: The MLflow tracking server at http://127.0.0.1:9 cannot be used",
        r"error +the variable AIRFLOW_CONN_BROKEN holds no connection",
        r"2 error\(s\), 1 warning\(s\)\.",
    ):
        assert re.search(expected, printed), printed
    assert "MY-TOKEN" not in printed


def test_airflow_knows_our_options(installation: Installation) -> None:
    assert installation.run("airflow", "config", "get-value", "mlflow_projects", "cache_max_gb").split()[-1] == "20"
    listed = installation.run("airflow", "config", "list", "--section", "mlflow_projects", "--include-descriptions")
    assert {"cache_dir", "cache_max_gb", "sagemaker"} <= set(re.findall(r"^#? ?(\w+) = ", listed, re.MULTILINE)), (
        listed
    )


def test_airflow_lists_us_as_a_provider(installation: Installation) -> None:
    def ours(what: str) -> list[dict[str, str]]:
        listed = json.loads(installation.run("airflow", "providers", what, "--output", "json"))
        return [row for row in listed if "mlflow" in json.dumps(row).lower()]

    (provider,) = ours("list")
    assert provider["package_name"] == "mlflow-projects-on-airflow"
    assert f"-{provider['version']}-py3" in installation.wheel.name
    (hook,) = ours("hooks")
    assert (hook["connection_type"], hook["hook_name"]) == ("mlflow", "MLflow")
    assert hook["class"] == "mlflow_projects.hooks.mlflow_hook.MLflowHook"
    assert {row["extra_link_class_name"].rpartition(".")[2] for row in ours("links")} == {
        "MLflowModelLink", "MLflowRunLink",
    }  # fmt: skip
    assert "mlflow_projects.triggers.model_version" in {row["class"] for row in ours("triggers")}


def test_the_plugin_is_found_once_in_each_way_of_installing(installation: Installation) -> None:
    """Another plugin, by an entry point too, shows that ours makes Airflow drop none."""
    (site,) = (installation.venv / "lib").glob("python*/site-packages")
    (site / "zzz_other.py").write_text(
        "from airflow.plugins_manager import AirflowPlugin\nclass Other(AirflowPlugin):\n    name = 'zzz_other'\n"
    )
    info = site / "zzz_other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zzz-other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[airflow.plugins]\nzzz_other = zzz_other:Other\n")
    listed = json.loads(installation.run("airflow", "plugins", "--output", "json"))
    sources = {plugin["name"]: plugin["source"] for plugin in listed}
    assert set(sources) >= {"mlflow_projects", "zzz_other"}
    assert "mlflow-projects-on-airflow==" in sources["mlflow_projects"]
    both_sides = installation.plugins()

    def once(found: dict[str, list[object]]) -> bool:
        (server, server_errors), (task, task_errors) = found["server"], found["task"]
        assert isinstance(server, list)
        assert isinstance(task, list)
        names = ("mlflow_projects", "zzz_other")
        counts = [side.count(name) for side in (server, task) for name in names]
        return counts == [1, 1, 1, 1] and not server_errors and not task_errors

    assert once(both_sides), both_sides

    folder = installation.folder / "airflow" / "plugins"
    shutil.copytree(ROOT / "plugins", folder, ignore=shutil.ignore_patterns("__pycache__"))
    both_ways = installation.plugins()
    assert once(both_ways), both_ways

    installation.pip("uninstall", "mlflow-projects-on-airflow")
    folder_only = installation.plugins()
    assert once(folder_only), folder_only
    installation.pip("install", "--no-deps", str(installation.wheel))
