"""The run tree of a DAG run, read back from the tracking server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlflow_projects.tracking.client import Artifact, Run, TrackingClient, quoted
from mlflow_projects.tracking.lookup import runs_of_dag_run
from mlflow_projects.tracking.reuse_key import maker_of
from mlflow_projects.tracking.run_files import run_files
from mlflow_projects.tracking.tags import DAG_ID, DAG_RUN_ID, PARENT_RUN_ID, ROLE


@dataclass
class RunNode:
    """A run with its children, oldest first, and the files of its artifact folder."""

    run: Run
    children: list[RunNode] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, RunNode]]:
        """Yield (depth, node) of this node and all below it, top first."""
        waiting = [(depth, self)]  # no recursion: a project may nest its runs as deep as it likes
        while waiting:
            depth, node = waiting.pop()
            yield depth, node
            waiting += [(depth + 1, child) for child in reversed(node.children)]


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
    ordered = sorted(nodes.values(), key=lambda node: node.run.start_time or 0)
    above: dict[str, RunNode] = {}
    for node in reversed(ordered):  # a project can make runs each other's parents: then the oldest is on top
        parent = nodes.get(node.run.tags.get(PARENT_RUN_ID, ""))
        if parent and not _is_below(parent, node, above):
            above[node.run.run_id] = parent
    tops: list[RunNode] = []
    for node in ordered:
        if with_files:
            node.artifacts = run_files(client, maker_of(client, node.run))
        (above[node.run.run_id].children if node.run.run_id in above else tops).append(node)
    return tops


def _is_below(node: RunNode | None, other: RunNode, above: Mapping[str, RunNode]) -> bool:
    """Tell whether a run is another one or has it among its parents."""
    while node and node is not other:
        node = above.get(node.run.run_id)
    return node is other
