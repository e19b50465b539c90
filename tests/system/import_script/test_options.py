"""Where options go: a DAG's param where the DAG then does what the script does, else a sentence that says why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlflow_projects.cli.import_script.recording import ScriptError
from tests.conftest import ROOT
from tests.support.importing import Import

ARGPARSE = "import argparse, mlflow, os, sys\np = argparse.ArgumentParser()\n"

# A script, its arguments, what its DAG has, what is said beside it.
SCRIPTS: dict[str, tuple[str, list[str], list[str], list[str]]] = {
    "computed": (
        ARGPARSE + "p.add_argument('--data', default='raw.csv')\np.add_argument('--n', type=int, default=1)\n"
        "p.add_argument('--m', type=int, default=1)\np.add_argument('--rate', type=float, default=1)\n"
        "a = p.parse_args()\nmlflow.run('step', env_manager='local', parameters={\n"
        "    'data': os.path.splitext(a.data)[0], 'n': f'{a.n:03d}', 'm': min(a.m, 100), 'rate': a.rate})\n",
        [],
        ['"rate": Param(1, type="number"', '"n": "001"', '"data": "raw"', '"m": 1'],
        ["The option data is computed with", "The option n is computed with", "The option m is computed with"],
    ),
    "decided": (
        ARGPARSE
        + "p.add_argument('--mode', default='slow')\np.add_argument('--tag', default='v1')\na = p.parse_args()\n"
        "more = {'tag': a.tag} if a.tag else {}\n"
        "mlflow.run('step', env_manager='local', parameters={'mode': a.mode, **more})\n"
        "if a.mode == 'fast':\n    mlflow.run('step', 'load', env_manager='local')\n",
        [],
        ['"tag": Param("v1", type="string", minLength=1', '"mode": "slow"'],
        ["The option mode decides which steps there are (where it is 'fast'); here it is 'slow'."],
    ),
    "together": (
        ARGPARSE + "p.add_argument('-a', action='store_true')\np.add_argument('-b', action='store_true')\n"
        "a = p.parse_args()\n"
        "mlflow.run('step', env_manager='local', parameters={'data': 'both' if a.a and a.b else 'one'})\n",
        [],
        ['"data": "one"'],
        ["The option b works only with some values of others; here it is False.", "No step gets the option a."],
    ),
    "given": (  # arguments named by hand, type=bool, choices without a default among them
        ARGPARSE + "p.add_argument('--deep', type=bool, default=True)\np.add_argument('--net', choices=['a', 'b'])\n"
        "a = p.parse_args(sys.argv[1:])\n"
        "mlflow.run('step', env_manager='local', parameters={'data': a.net, 'deep': a.deep})\n",
        [],
        ['"deep": "{{ params.deep }}"', 'enum=[None, "a", "b"]'],
        [],
    ),
    "fire_class": (
        "import fire, mlflow\nclass Steps:\n    def __init__(self, data='a'):\n        self.data = data\n"
        "    def train(self, n=3):\n"
        "        mlflow.run('step', env_manager='local', parameters={'data': self.data, 'n': n})\nfire.Fire(Steps)\n",
        ["train"],
        ['"data": "{{ params.data }}"', '"n": "{{ params.n }}"', 'Param(3, type="integer"'],
        [],
    ),
    "fire_module": (
        "import fire, mlflow\ndef train(n=3):\n"
        "    mlflow.run('step', env_manager='local', parameters={'n': n})\nfire.Fire()\n",
        ["train"],
        ['"n": "{{ params.n }}"'],
        [],
    ),
    "old_command": (
        "import os\nos.system('mlflow run step -P data=x --no-conda')\n",
        [],
        ['env_manager="local"', '{"data": "x"}'],
        [],
    ),
    "not_followed": (
        "import mlflow, sys\nmlflow.run('step', env_manager='local', parameters={'data': sys.argv[1]})\n",
        ["a b"],
        ['"data": "a b"'],
        ["The script reads its arguments with sys.argv, which an import does not follow; here they are 'a b'."],
    ),
    "lists": (
        ARGPARSE
        + "p.add_argument('--x', action='append', default=['a'])\np.add_argument('-v', action='count', default=0)\n"
        "a = p.parse_args()\nmlflow.run('step', env_manager='local', parameters={'data': a.x[0], 'v': a.v})\n",
        [],
        ['{"data": "a", "v": 0}'],
        ["The option x is a list", "The option v is counted"],
    ),
    "sub_command": (
        ARGPARSE + "p.add_argument('--root', default='r')\ns = p.add_subparsers(dest='command')\n"
        "t = s.add_parser('train')\nt.add_argument('--data', default='x')\na = p.parse_args()\n"
        "if a.command == 'train':\n"
        "    mlflow.run('step', env_manager='local', parameters={'data': a.data, 'root': a.root})\n",
        ["train", "--data=d"],
        ['"root": Param("r"', '"data": Param("d"', '{"data": "{{ params.data }}", "root": "{{ params.root }}"}'],
        [],
    ),
    "group": (
        "import click, mlflow\n@click.group()\n@click.option('--root', default='r')\n@click.pass_context\n"
        "def cli(context, root): context.obj = root\n@cli.command()\n@click.option('--data', default='x')\n"
        "@click.pass_context\ndef train(context, data):\n"
        "    mlflow.run('step', env_manager='local', parameters={'data': data, 'root': context.obj})\ncli()\n",
        ["train"],
        ['{"data": "{{ params.data }}", "root": "{{ params.root }}"}'],
        [],
    ),
    "typed": (
        "import typer, mlflow\ndef main(data: str = 'x', rate: float = 0.5, deep: bool = False):\n"
        "    mlflow.run('step', env_manager='local', parameters={'data': data, 'rate': rate, 'deep': deep})\n"
        "typer.run(main)\n",
        [],
        ['"data": Param("x"', '"rate": Param(0.5, type="number"', '"deep": Param(False, type="boolean"'],
        [],
    ),
    "environment": (
        "import mlflow, os\nmlflow.run('step', env_manager='local', parameters={\n"
        "    'data': os.environ.get('DATA_OF_A_DRIVER', 'here'), 'x': os.getenv('X_OF_A_DRIVER', 'there')})\n",
        [],
        ['"data": "{{ params.DATA_OF_A_DRIVER }}"', '"x": "{{ params.X_OF_A_DRIVER }}"', '"there",'],
        [],
    ),
    "values": (
        "import mlflow, math\nmlflow.run('step', env_manager='local', parameters={\n"
        "    'data': math.inf, 'x': [1, 2], 'y': {'a': 1}, 'z': math.nan})\n",
        [],
        ['"data": "inf", "x": "[1, 2]", "y": "{\'a\': 1}", "z": "nan"'],
        [],
    ),
    "own_runs": (  # the step has the run's name, experiment and tags
        "import mlflow\nc = mlflow.MlflowClient()\nr = c.create_run(c.create_experiment('made'), run_name='mine')\n"
        "mlflow.run('step', run_id=r.info.run_id, env_manager='local')\n"
        "with mlflow.start_run(run_name='outer', tags={'team': 'a {{ b }}'}):\n"
        "    mlflow.set_tag('more', 1)\n    mlflow.run('step', env_manager='local', docker_args={'gpus': 'all'})\n",
        [],
        ['task_id="mine"', 'experiment_name="made"', '"team": "{% raw %}a {{ b }}{% endraw %}", "more": "1"'],
        ["docker_args is left out"],
    ),
    "new_names": (
        "import mlflow, uuid\nmlflow.run('step', run_name=f'r-{uuid.uuid4()}', env_manager='local')\n",
        [],
        ['task_id="step"'],
        ["run_name is new in each run of the script (a clock, random numbers); here it is left to MLflow."],
    ),
    "clock": (
        "import mlflow, datetime\nfrom time import strftime\nwith mlflow.start_run():\n"
        "    mlflow.set_tag('day', value=strftime('%Y-%m-%d'))\n"
        "    mlflow.run('step', parameters={'data': f'{datetime.datetime.now():%Y%m%d}'}, env_manager='local')\n",
        [],
        ['tags={"day": "20'],
        ["parameters.data is new in each run", "tags.day is new in each run"],
    ),
    "looks_in_vain": (  # the last one looks for an earlier run, and does not care
        "import mlflow\ndef step(name, cached=True):\n"
        "    query = f\"tags.`mlflow.project.entryPoint` = '{name}'\"\n"
        "    found = mlflow.search_runs(filter_string=query, output_format='list')\n"
        "    found = [run for run in found if run.data.params.get('rows') == 3]\n"
        "    if found and cached:\n        return found[0].info.run_id\n"
        "    return mlflow.run('step', name, parameters={'rows': 3}, env_manager='local').run_id\n"
        "step('main')\nstep('load', False)\n",
        [],
        ['entry_point="load",\n        parameters={"rows": 3},\n        env_manager="local",\n    )', "reuse=True"],
        [],
    ),
    "elsewhere": (  # in another folder, by commands with an environment of their own
        "import mlflow, os, subprocess\n"
        "subprocess.run('MLFLOW_EXPERIMENT_NAME=e X=1 mlflow run step --env-manager local', shell=True)\n"
        "os.makedirs('inner/step')\nopen('inner/step/MLproject', 'w').write('entry_points: {main: {command: ls}}')\n"
        "os.chdir('inner')\n"
        "mlflow.run('step', run_name='second', env_manager='local')\n",
        [],
        ['uri=f"{PROJECT}/step",', 'uri=f"{PROJECT}/inner/step"', 'experiment_name="e"'],
        ["The script sets X for its steps", "elsewhere.py:4 writes inner/step/MLproject"],
    ),
    "own_server": (
        "import mlflow, os\nos.environ['MLFLOW_TRACKING_URI'] = 'http://no-such-host.invalid:5000'\n"
        "mlflow.run('step', env_manager='local')\n",
        [],
        ['task_id="step"'],
        ["The script names a tracking server in MLFLOW_TRACKING_URI; the steps use that of Airflow's connection."],
    ),
    "in_files": (  # options that a step gets by a file only, in other words or reckoned with
        ARGPARSE + "p.add_argument('--rate', type=float, default=3e-5)\np.add_argument('--n', type=int, default=3)\n"
        "p.add_argument('--m', default='m')\np.add_argument('--unused', default='u')\na = p.parse_args()\n"
        "open('c.yml', 'w').write(f'{a.rate:.1e} {a.n * 2} {a.m}')\n"
        "mlflow.run('step', parameters={'data': 'c.yml'}, env_manager='local')\n",
        [],
        ['"data": f"{FILES}/c.yml"'],
        [
            "A change of rate, n, m has no effect in in_files_files.",
            "No step gets the option unused.",
            "in_files_files/c.yml is what the script writes for a step",
        ],
    ),
    "variables": (
        "import mlflow, os\nos.environ['MLFLOW_S3_ENDPOINT_URL'] = 'http://no-such-host.invalid'\n"
        "mlflow.set_experiment('e')\nmlflow.run('step', env_manager='local')\n",
        [],
        ['experiment_name="e"'],
        ["The script sets MLFLOW_S3_ENDPOINT_URL for its steps"],
    ),
    "places": (  # options that go only where the DAG has nothing
        ARGPARSE + "p.add_argument('--server', default='http://s')\np.add_argument('--gpus', default='all')\n"
        "a = p.parse_args()\nos.environ['MLFLOW_TRACKING_URI'] = a.server\n"
        "mlflow.run('step', docker_args={'gpus': a.gpus}, env_manager='local')\n",
        [],
        ['task_id="step"'],
        [
            "A change of server, gpus has no effect in the environment and docker_args.",
            "The script names a tracking server in MLFLOW_TRACKING_URI",
            "docker_args is left out",
        ],
    ),
    "joined": (  # an absolute path takes the place of the folder, but only by os.path.join
        ARGPARSE + "p.add_argument('--data', default='d.csv')\np.add_argument('--more', default='m.csv')\n"
        "a = p.parse_args()\nmlflow.set_tracking_uri(None)\nmlflow.run('step', env_manager='local', parameters={\n"
        "    'data': os.path.join(os.getcwd(), a.data), 'x': f'{os.getcwd()}/{a.more}'})\n",
        [],
        [
            '"data": str(PROJECT) + "/{{ params.data }}"',
            'Param("d.csv", type="string", pattern="^(?!/)", title="Data")',
            'Param("m.csv", type="string", title="More")',
        ],
        [],
    ),
    "slash": (
        "import mlflow\none = mlflow.run('step', env_manager='local')\n"
        "root = mlflow.MlflowClient().get_run(one.run_id).info.artifact_uri\n"
        "mlflow.run('step', parameters={'data': root + '/', 'x': root}, env_manager='local')\n",
        [],
        ['"data": f"{step.artifact()}/", "x": step.artifact()}'],
        [],
    ),
    "experiments": (  # only one of them is in the DAG as it is in the script
        "import mlflow\nmlflow.create_experiment('plain')\nmlflow.create_experiment(tags={'a': 'b'}, name='tagged')\n"
        "mlflow.create_experiment('other')\nmlflow.set_experiment('tagged')\n"
        "with mlflow.start_run(description='what it is'):\n    mlflow.run('step', env_manager='local')\n"
        "mlflow.set_experiment('plain')\nmlflow.run('step', env_manager='local')\n",
        [],
        ['tags={"mlflow.note.content": "what it is"}'],
        [
            "experiments.py:3 calls mlflow.create_experiment('tagged'), which no step here does.",
            "experiments.py:4 calls mlflow.create_experiment('other'), which no step here does.",
        ],
    ),
    "nothing": (  # a value of hydra's that is not there yet
        "import hydra, mlflow\nfrom hydra.core.config_store import ConfigStore\n"
        "ConfigStore.instance().store('c', {'rows': None, 'unused': None})\n"
        "@hydra.main(config_path=None, config_name='c', version_base=None)\ndef go(c):\n"
        "    mlflow.run('step', parameters={'rows': c.rows}, env_manager='local')\ngo()\n",
        [],
        ['"rows": "{{ params.rows }}"', '"rows": Param(None, type=["null", "string"]'],
        ["No step gets the option unused."],
    ),
}

REFUSED = {
    "ids": (
        "import mlflow\none = mlflow.run('step', env_manager='local')\nopen('c.txt', 'w').write(one.run_id)\n"
        "mlflow.run('step', parameters={'data': 'c.txt'}, env_manager='local')\n",
        r"ids.py:4: this passes c.txt to a step, a file with the id of a run or an experiment",
    ),
    "secret_in_file": (
        "import mlflow, os\nopen('c.txt', 'w').write(os.getenv('DB_PASSWORD', 'hunter2'))\n"
        "mlflow.run('step', parameters={'data': 'c.txt'}, env_manager='local')\n",
        r"secret_in_file.py:3: this passes the environment variable DB_PASSWORD \(c.txt\) to a step",
    ),
    "parser": ("import mlflow\nmlflow.run('step', env_manager='local')\n", "parser.py has no option 'wrong' that"),
    "secret": (
        "import mlflow, os\nx = os.getenv('DB_PASSWORD', 'hunter2')\nmlflow.run('step', parameters={'x': x})\n",
        r"secret.py:3: this passes the environment variable DB_PASSWORD \(x\) to a step",
    ),
    "part": (
        "import mlflow\nr = mlflow.run('step', env_manager='local')\n"
        "mlflow.run('step', parameters={'x': r.run_id[:8]})\n",
        r"part.py:3: this passes a part of the id, the name or the time of the run of 'step' \(x\)",
    ),
    "around": (
        "import os\nos.system('cd step && mlflow run .')\n",
        r"around.py:2: this runs a command around 'mlflow run' \(cd step && mlflow run .\)",
    ),
    "temporary": (
        "import mlflow, tempfile\nmlflow.run('step', env_manager='local', parameters={'data': tempfile.mkdtemp()})\n",
        r"temporary.py:2: this passes a temporary file or folder \(data\)",
    ),
    "server": (
        "import mlflow\nmlflow.run('step', env_manager='local', parameters={'data': mlflow.get_tracking_uri()})\n",
        r"server.py:2: this passes the address of the tracking server \(data\)",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tests" / "projects" / "drivers" / "step", tmp_path / "driver" / "step")
    return tmp_path / "driver"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_dag_does_what_the_script_does_with_other_values(name: str, imported: Import, folder: Path) -> None:
    needed = {"typed": "typer", "fire_class": "fire", "fire_module": "fire", "nothing": "hydra"}
    if package := needed.get(name):
        pytest.importorskip(package)
    text, args, contents, notes = SCRIPTS[name]
    (folder / f"{name}.py").write_text(text)
    dag = imported(folder / f"{name}.py", args=args)
    made = dag.text()
    compile(made, name, "exec")
    for content in contents:
        assert content in made, made
    assert len(dag.notes()) == len(notes), made
    for note, expected in zip(sorted(dag.notes()), sorted(notes), strict=True):
        assert note.startswith(expected)


def test_a_file_for_a_step_has_the_folder_in_it(imported: Import, folder: Path) -> None:
    (folder / "paths.py").write_text(
        "import mlflow, os\nopen('c.txt', 'w').write(os.path.abspath('data.csv'))\n"
        "mlflow.run('step', parameters={'data': os.path.abspath('c.txt')}, env_manager='local')\n"
    )
    dag = imported(folder / "paths.py")
    assert '"data": f"{FILES}/c.txt"' in dag.text()
    assert dag.files == {"c.txt": str(folder / "data.csv")}


def test_only_the_step_that_uses_an_earlier_run_reuses(imported: Import, folder: Path) -> None:
    (folder / "one.py").write_text(SCRIPTS["looks_in_vain"][0])
    assert imported(folder / "one.py").text().count("reuse=True") == 1


@pytest.mark.parametrize("name", REFUSED)
def test_a_sentence_says_what_a_dag_cannot_have(name: str, imported: Import, folder: Path) -> None:
    (folder / f"{name}.py").write_text(REFUSED[name][0])
    with pytest.raises(ScriptError, match=REFUSED[name][1]):
        imported(folder / f"{name}.py", **({"wrong": "1"} if name == "parser" else {}))
