"""The run tree of a DAG run, read back from the tracking server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mlflow_projects.tracking.client import Artifact, Run, TrackingClient, quoted
from mlflow_projects.tracking.record import DAG_ID, DAG_RUN_ID, PARENT_RUN_ID

_MAX_ARTIFACTS = 100


@dataclass
class RunNode:
    """A run with its children, oldest first, and the files of its artifact folder."""

    run: Run
    children: list[RunNode] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, RunNode]]:
        """Yield (depth, node) of this node and all below it, top first."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


def last_dag_run_id(client: TrackingClient, dag_id: str) -> str | None:
    """Return the ``airflow.run_id`` of the DAG's newest run in MLflow, or None."""
    query = f"tags.`{DAG_ID}` = {quoted(dag_id)}"
    newest = client.search_runs(client.experiment_ids(), query, limit=1, newest_first=True)
    return newest[0].tags.get(DAG_RUN_ID) if newest else None


def run_tree(client: TrackingClient, dag_id: str, dag_run_id: str) -> list[RunNode]:
    """Return the top runs of a DAG run with all that is below them.

    Runs which a project nested below its own step carry no Airflow tags; they are found through their
    parents.
    """
    experiments = client.experiment_ids()
    query = f"tags.`{DAG_ID}` = {quoted(dag_id)} and tags.`{DAG_RUN_ID}` = {quoted(dag_run_id)}"
    nodes = {run.run_id: RunNode(run) for run in client.search_runs(experiments, query)}
    to_visit = [node.run for node in nodes.values() if node.run.tags.get("mlflow_projects.role") != "parent"]
    while to_visit:
        run = to_visit.pop()
        nested = client.search_runs([run.experiment_id], f"tags.`{PARENT_RUN_ID}` = {quoted(run.run_id)}")
        for child in nested:
            if child.run_id not in nodes:
                nodes[child.run_id] = RunNode(child)
                to_visit.append(child)
    tops: list[RunNode] = []
    for node in sorted(nodes.values(), key=lambda node: node.run.start_time or 0):
        node.artifacts = list(_files(client, node.run.run_id))
        parent = nodes.get(node.run.tags.get(PARENT_RUN_ID, ""))
        (parent.children if parent else tops).append(node)
    return tops


def _files(client: TrackingClient, run_id: str, path: str = "") -> Iterator[Artifact]:
    count = 0
    for artifact in client.list_artifacts(run_id, path):
        for file in _files(client, run_id, artifact.path) if artifact.is_dir else [artifact]:
            yield file
            count += 1
            if count == _MAX_ARTIFACTS:
                return
