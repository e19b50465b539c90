"""The run tree of a DAG run, read back from the tracking server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mlflow_projects.exceptions import TrackingError
from mlflow_projects.tracking.client import Artifact, Run, TrackingClient, quoted
from mlflow_projects.tracking.lookup import runs_of_dag_run
from mlflow_projects.tracking.tags import DAG_ID, DAG_RUN_ID, PARENT_RUN_ID, REUSED_FROM, ROLE


@dataclass
class RunNode:
    """A run with its children, oldest first, and the files of its artifact folder."""

    run: Run
    children: list[RunNode] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, RunNode]]:
        """Yield (depth, node) of this node and all below it, top first."""
        waiting = [(depth, self)]  # a loop: a project may nest its runs deeper than Python its calls
        while waiting:
            at, node = waiting.pop()
            yield at, node
            waiting += [(at + 1, child) for child in reversed(node.children)]


def last_dag_run_id(client: TrackingClient, dag_id: str) -> str | None:
    """Return the ``airflow.run_id`` of the DAG's newest run in MLflow, or None."""
    query = f"tags.`{DAG_ID}` = {quoted(dag_id)}"
    newest = client.search_runs(client.experiment_ids(), query, limit=1, newest_first=True)
    return newest[0].tags.get(DAG_RUN_ID) if newest else None


def run_tree(
    client: TrackingClient, dag_id: str, dag_run_id: str, *, limit: int = 1000, with_files: bool = True
) -> list[RunNode]:
    """Return the top runs of a DAG run with all that is below them.

    Runs that a project nested below its step without MLflow's fluent API carry no Airflow tags; they are found
    through their parents. Runs of other DAG runs below them are left out.

    :param limit: how many runs to read at most
    :param with_files: also list the files of each run
    """
    nodes = {run.run_id: RunNode(run) for run in runs_of_dag_run(client, dag_id, dag_run_id, limit=limit)}
    to_visit = [node.run for node in nodes.values() if node.run.tags.get(ROLE) != "parent"]
    while to_visit and len(nodes) < limit:
        run = to_visit.pop()
        below = f"tags.`{PARENT_RUN_ID}` = {quoted(run.run_id)}"
        for child in client.search_runs([run.experiment_id], below, limit=limit - len(nodes)):
            if child.run_id not in nodes and DAG_ID not in child.tags:
                nodes[child.run_id] = RunNode(child)
                to_visit.append(child)
    tops: list[RunNode] = []
    for node in sorted(nodes.values(), key=lambda node: node.run.start_time or 0):
        if with_files:
            node.artifacts = run_files(client, maker_of(client, node.run))
        parent = nodes.get(node.run.tags.get(PARENT_RUN_ID, ""))
        (parent.children if parent else tops).append(node)
    return tops


def maker_of(client: TrackingClient, run: Run) -> str:
    """Return the run that made a run's result: itself, or the original of a reused result while that exists."""
    if not (original := run.tags.get(REUSED_FROM)):
        return run.run_id
    try:
        return client.get_run(original).run_id
    except TrackingError as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return run.run_id


def run_files(client: TrackingClient, run_id: str, *, limit: int = 100, max_folders: int = 100) -> list[Artifact]:
    """Return the files of a run in the order of a directory listing.

    :param limit: how many files to return at most
    :param max_folders: how many folders to look into at most
    """
    files: list[Artifact] = []
    folders = [""]
    while folders and len(files) < limit and max_folders:
        max_folders -= 1
        listed = client.list_artifacts(run_id, folders.pop(0))
        files += [entry for entry in listed if not entry.is_dir]
        folders = [entry.path for entry in listed if entry.is_dir] + folders
    return files[:limit]
