"""MLflow's own code on a scratch database, with the one difference that no project is executed.

So runs, experiments, tags, parameters and searches are what they would be; only metrics and artifacts of steps are
not known.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from .command_line import ELSEWHERE
from .outside import step_of
from .results import data_of, download_of, of_step
from .state import FIRST_EXPERIMENT, Recording, recording

# Calls that write into a run of the script's own, or into the registry. They say nothing of the steps' order.
_OWN = (
    "log_param", "log_params", "log_metric", "log_metrics", "log_artifact", "log_artifacts", "log_text", "log_dict",
    "log_figure", "log_image", "log_table", "log_input", "log_batch", "log_model", "set_tag", "set_tags",
    "delete_tag", "delete_run", "delete_experiment", "set_terminated", "set_experiment_tag", "create_experiment",
    "register_model", "create_registered_model", "create_model_version", "set_registered_model_alias",
    "transition_model_version_stage",
)  # fmt: skip
# Variables that each step has anyway, and its own.
_OF_A_STEP = frozenset(("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"))
_REGISTRY = frozenset(_OWN[_OWN.index("register_model") :])
_PLAIN = {"self", "name"}  # arguments of an experiment that has nothing of its own
_LOOKS = ("search_runs", "list_run_infos")


def install() -> None:
    """Patch MLflow before the script imports it."""
    import mlflow
    import mlflow.projects
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

    mlflow.projects._run = _run
    mlflow.projects.run = mlflow.run = _with_old_options(mlflow.projects.run)
    mlflow.start_run = _noted_start(mlflow.start_run)
    mlflow.set_tracking_uri = mlflow.set_registry_uri = _set_server
    mlflow.tracking.set_tracking_uri = mlflow.set_tracking_uri
    mlflow.artifacts.download_artifacts = download_of(mlflow.artifacts.download_artifacts)
    MlflowClient.__init__ = _without_address(MlflowClient.__init__)
    MlflowClient.create_run = _with_its_name(MlflowClient.create_run)
    MlflowClient.download_artifacts = lambda self, run_id, path, dst_path=None: mlflow.artifacts.download_artifacts(
        run_id=run_id, artifact_path=path, dst_path=dst_path
    )
    MlflowClient.list_run_infos = lambda self, experiment_id, *_, **__: [  # as MLflow 1 had it
        run.info for run in self.search_runs([str(experiment_id)])
    ]
    MlflowClient.list_artifacts = of_step(MlflowClient.list_artifacts, "lists the artifacts")
    MlflowClient.get_metric_history = of_step(MlflowClient.get_metric_history, "reads a metric")
    for owner in (mlflow, MlflowClient):
        for name in _OWN:
            if hasattr(owner, name):
                setattr(owner, name, _noted_own(getattr(owner, name), name))
        for name in _LOOKS:
            if hasattr(owner, name):
                setattr(owner, name, _noted_look(getattr(owner, name)))
    Run.data = property(data_of(Run.data.fget))


def _run(
    uri: str, experiment_id: str, entry_point: str, version: Any, parameters: Any, docker_args: Any,
    backend_name: str, backend_config: dict[str, Any], storage_dir: Any, env_manager: Any, synchronous: bool,
    run_name: Any, build_image: Any, docker_auth: Any,
) -> Any:  # fmt: skip
    """Stand for ``mlflow.projects._run``, which has checked the arguments of ``run`` and found the experiment."""
    import mlflow
    from mlflow.projects import submitted_run, utils

    current = recording()
    uri, parameters = os.fspath(uri), dict(parameters or {})
    tags = {"mlflow.project.entryPoint": entry_point, "mlflow.source.name": uri, "mlflow.source.type": "PROJECT"}
    if not ELSEWHERE.match(uri) and os.getcwd() != current.folder:  # the script has changed it
        path, sign, sub_folder = uri.partition("#")
        uri = os.path.abspath(path) + sign + sub_folder
    if not ELSEWHERE.match(uri) and not os.path.exists(uri.partition("#")[0]):
        current.stop(f"runs the project {uri!r}, which is not there")
    if utils._is_local_uri(uri) and not utils._is_zip_uri(uri.partition("#")[0]):
        folder = utils._fetch_project(uri)
        if entry := utils.load_project(folder).get_entry_point(entry_point):
            entry._validate_parameters(parameters)
        if commit := utils.get_git_commit(folder):
            tags["mlflow.source.git.commit"] = commit
    config = {key: value for key, value in backend_config.items() if key not in _INTERNAL}
    given = backend_config.get(utils.MLFLOW_LOCAL_BACKEND_RUN_ID_CONFIG)
    client = mlflow.MlflowClient()
    active = mlflow.active_run()
    if given:  # its name and experiment are what counts, not those of the call
        run = client.get_run(given)
        experiment_id, run_name = run.info.experiment_id, current.names.get(given)
    else:
        if active:
            tags["mlflow.parentRunId"] = active.info.run_id
        run = client.create_run(experiment_id, tags=tags, run_name=run_name)
    run_id = str(run.info.run_id)
    project = entry_point if entry_point != "main" else os.path.basename(uri.rstrip("/")) or "main"
    frames = current.frames()
    event = current.add(
        "call", run_id=run_id, uri=uri, entry_point=entry_point, version=version, experiment_id=experiment_id,
        parameters={str(key): _as_text(value) for key, value in parameters.items()},
        backend=backend_name, backend_config=_plain(config), env_manager=env_manager, run_name=run_name,
        storage_dir=storage_dir, docker_args=_plain(docker_args), build_image=bool(build_image),
        given_run=bool(given), tags=current.run_of(given)["tags"] if current.run_of(given) else {},
        parent=run.data.tags.get("mlflow.parentRunId"), after=sorted(current.done), stack=current.stack(),
        is_cached=bool(frames) and frames[0] in current.searched, name=run_name or project, project=project,
        synchronous=bool(synchronous),
        environment={
            name: value
            for name, value in os.environ.items()
            if current.environment.get(name) != value and name not in _OF_A_STEP and not name.startswith("KMP_")
        },
    )  # fmt: skip
    event["files"] = _written_files(event["parameters"])
    _refuse_what_is_of_the_import(event)
    if len(current.steps) >= _MOST_STEPS:
        current.stop(f"runs more than {_MOST_STEPS} projects")
    current.searched = []
    current.steps[run_id] = event
    for key, value in parameters.items():  # a run that is given may have some
        client.log_param(run_id, str(key), str(value), synchronous=True) if not given else None
    if not given:
        client.set_terminated(run_id)
    if synchronous:
        current.done.add(run_id)

    class Submitted(submitted_run.SubmittedRun):  # type: ignore[misc]
        """A step that has succeeded, for whoever waits for it."""

        command_proc = None

        @property
        def run_id(self) -> str:
            return run_id

        def wait(self) -> bool:
            recording().done.add(run_id)
            return True

        def get_status(self) -> str:
            self.wait()
            return "FINISHED"

        def cancel(self) -> None:
            recording().stop(f"cancels {run_name or project!r}")

    return Submitted()


def _refuse_what_is_of_the_import(event: Mapping[str, Any]) -> None:
    """Stop where a step gets what the script would have elsewhere, and a DAG has not at all."""
    current = recording()
    files = {os.path.basename(path): text for path, text in event["files"].items()}
    for name, text in files.items():
        if any(_has_an_id(text, one) for one in current.events if one["kind"] in ("open", "call")):
            current.stop(
                f"passes {name} to a step, a file with the id of a run or an experiment, and each run of the DAG has "
                "another; pass the id as a parameter"
            )
    passed = {**event["parameters"], "uri": event["uri"], "run_name": event["run_name"], **files}
    for name, value in passed.items():
        text = str(value).replace(current.root, "")
        for step in current.steps.values() if name not in files else ():
            if _is_known_later(step, text):
                current.stop(
                    f"passes a part of the id, the name or the time of the run of {step['name']!r} ({name}) to a "
                    "step; pass the whole run id"
                )
        if current.tracking_uri in text:
            current.stop(f"passes the address of the tracking server ({name}) to a step; leave it out, steps know it")
        for variable, secret in current.secrets.items():
            if secret in text:
                current.stop(
                    f"passes the environment variable {variable} ({name}) to a step, and the DAG would show it; let "
                    "the step read its own environment"
                )
        if current.scratch in text and value not in event["files"]:
            current.stop(f"passes a temporary file or folder ({name}) to a step, which no other run has")


def _has_an_id(text: str, node: Mapping[str, Any]) -> bool:
    run_id, experiment_id = node["run_id"], str(node["experiment_id"])
    return run_id in text or (int(experiment_id) > FIRST_EXPERIMENT and experiment_id in text)


def _is_known_later(step: Mapping[str, Any], text: str) -> bool:
    """Tell whether a text has what only a step's run says, besides its whole id."""
    import mlflow

    run_id = step["run_id"]
    text = text.replace(run_id, "")
    if run_id[:6] in text.lower() or run_id[-6:] in text.lower():
        return True
    info = mlflow.MlflowClient().get_run(run_id).info
    return any(
        str(value) in text for value in (info.start_time, info.end_time, not step["run_name"] and info.run_name)
    )


_MOST_STEPS = 1000
_MOST_BYTES = 64 * 1024


def _written_files(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return {path: text} of files that the script has written and now passes to a step."""
    current = recording()
    written = {event.get("path") for event in current.events if event["kind"] == "own"}
    found = {}
    for value in parameters.values():
        path = os.path.abspath(value) if isinstance(value, str) and "\0" not in value else ""
        if path in written and os.path.isfile(path):
            try:
                with open(path, encoding="utf-8", newline="") as file:
                    found[path] = file.read(_MOST_BYTES + 1)
            except UnicodeDecodeError:
                found[path] = "\0"
            if len(found[path]) > _MOST_BYTES or "\0" in found[path]:
                current.stop(
                    f"passes {os.path.basename(path)}, which the script makes before, to a step", decides=True
                )
    return found


_INTERNAL = frozenset(
    (
        "ENV_MANAGER",
        "SYNCHRONOUS",
        "DOCKER_ARGS",
        "STORAGE_DIR",
        "build_image",
        "docker_auth",
        "_mlflow_local_backend_run_id",
    )
)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; what JSON has not becomes text, as MLflow makes it."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return [_plain(inner) for inner in value]
    return str(value)


def _as_text(value: Any) -> Any:
    """Return a parameter's value as it is, if source can say it; else as text, as MLflow makes it."""
    is_plain = value is None or type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value))
    return value if is_plain else str(value)


def _set_server(uri: Any) -> None:
    if uri:  # None is MLflow's own one
        recording().add("own", does="sets", what=f"the tracking server {uri}")


def _with_old_options(run: Callable[..., Any]) -> Callable[..., Any]:
    """Take ``use_conda``, which MLflow 1 had, as well."""

    @functools.wraps(run)
    def run_project(*args: Any, use_conda: bool | None = None, **kwargs: Any) -> Any:
        if use_conda is not None and kwargs.get("env_manager") is None:
            kwargs["env_manager"] = "conda" if use_conda else "local"
        return run(*args, **kwargs)

    return run_project


def _noted_start(start: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(start)
    def start_run(*args: Any, **kwargs: Any) -> Any:
        run = start(*args, **kwargs)
        info, tags = run.info, run.data.tags
        current = recording()
        if not current.run_of(info.run_id):
            given = inspect.signature(start).bind(*args, **kwargs).arguments
            own = {key: str(value) for key, value in (given.get("tags") or {}).items()}
            if given.get("description"):
                own["mlflow.note.content"] = given["description"]
            named = own.pop("mlflow.runName", None)
            named = given.get("run_name") or named or current.names.get(info.run_id)
            current.names[info.run_id] = named
            current.add(
                "open", run_id=info.run_id, experiment_id=info.experiment_id, run_name=named,
                parent=tags.get("mlflow.parentRunId"), after=sorted(current.done), tags=own,
            )  # fmt: skip
        return run

    return start_run


def _noted_own(real: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(real)
    def noted(*args: Any, **kwargs: Any) -> Any:
        current = recording()
        frame = inspect.currentframe()
        caller = frame and frame.f_back
        if caller is None or not current.is_own(caller.f_code.co_filename):
            return real(*args, **kwargs)  # MLflow itself
        shown = [str(value) for value in (*args, *kwargs.values()) if isinstance(value, str)][:1]
        import mlflow

        active = mlflow.active_run()
        event = current.add(
            "own",
            run_id=active and active.info.run_id,
            does="calls",
            what=f"mlflow.{name}({', '.join(map(repr, shown))})",
            call=name,
        )
        if name in ("set_tag", "set_tags") and active and (not args or isinstance(args[0], str | dict)):
            given = inspect.signature(real).bind(*args, **kwargs).arguments
            _note_tags(current, event, given["tags"] if name == "set_tags" else {given["key"]: given["value"]})
        if step := next(
            (step_of(current, value) for value in (*args, *kwargs.values()) if isinstance(value, str)), ""
        ):
            event["of_step"] = step
            if name in ("set_terminated",):
                return None
            if name.startswith("log_artifact"):
                return None
        if name in _REGISTRY:
            return _Registered()
        result = real(*args, **kwargs)
        if name == "create_experiment" and {*inspect.signature(real).bind(*args, **kwargs).arguments} <= _PLAIN:
            event["makes"] = str(result)
        return result

    return noted


def _note_tags(current: Recording, event: dict[str, Any], tags: Mapping[str, Any]) -> None:
    """Take tags for those of the script's own run, unless one is not known before a step has run."""
    owner = current.run_of(event["run_id"])
    if not owner or any(step_of(current, str(value)) for value in tags.values()):
        return
    event["is_of_run"] = True
    texts = {str(key): str(value) for key, value in tags.items()}
    owner["run_name"] = texts.pop("mlflow.runName", owner["run_name"])
    owner["tags"].update(texts)


class _Registered:
    """A version of a model that was not registered: its number is not known."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        recording().stop(f"reads the {name} of a model that it has registered", decides=True)


def _noted_look(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def search(*args: Any, **kwargs: Any) -> Any:
        recording().searched = recording().frames()
        return real(*args, **kwargs)

    return search


def _without_address(init: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(init)
    def initialise(self: Any, *_: Any, **__: Any) -> None:
        init(self)

    return initialise


def _with_its_name(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def create_run(*args: Any, **kwargs: Any) -> Any:
        run = real(*args, **kwargs)
        named = inspect.signature(real).bind(*args, **kwargs).arguments
        recording().names[run.info.run_id] = named.get("run_name") or (named.get("tags") or {}).get("mlflow.runName")
        return run

    return create_run
