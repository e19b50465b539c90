"""Whether an attempt may take over the result of an earlier one, and how it does.

The rules are in docs/reuse.md. Among steps that wait for each other, the lock is made of MLflow's runs
alone, because workers share no other place: each writes "running" to its own run, then reads all runs with
the same key. Of two that do so at the same time at least one sees the other, so never do both go on; of
those that see each other, the oldest keeps its claim and the others take theirs back.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_projects.backends.contract import Job, Launch
from mlflow_projects.project.identity import path_hash, tree_hash
from mlflow_projects.project.paths import exists, local_path_of
from mlflow_projects.tracking.answers import json_texts
from mlflow_projects.tracking.client import Run, TrackingClient
from mlflow_projects.tracking.closing import end_run
from mlflow_projects.tracking.record import MAX_PARAM, RunRecord, TaskIdentity
from mlflow_projects.tracking.reuse_key import REUSED, RUNNING, WAITING, ReuseKey, lost_artifacts
from mlflow_projects.tracking.tags import PARAMETERS, REUSED_FROM

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.3, 15.0  # seconds between two looks at who else works
_SAY_EVERY_SECONDS = 60.0


@dataclass
class Reuse:
    """The part of an attempt's life in which it may end before anything is started.

    :param look: whether an earlier result may be taken; if not, the attempt's own may be taken later
    :param wait: whether to wait for another attempt that makes the same result now
    :param task_is_gone: tells whether Airflow knows that nobody works on a run any more
    :param clock: in seconds, for how long it has waited
    """

    client: TrackingClient
    log: Callable[[str], None]
    task: TaskIdentity
    look: bool
    wait: bool
    task_is_gone: Callable[[Run], bool]
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _key: ReuseKey | None = field(default=None, init=False)

    def identify(self, launch: Launch, backend: str, job: Job, trusted_dirs: Sequence[Path] = ()) -> None:
        """Find out what the step would do; it may take as long as reading its files does.

        :param backend: its name
        :param trusted_dirs: where git may read repositories of other users
        :raises ProjectError: something of it cannot be read
        """
        record = job.parameters.as_record()
        parts = {
            "code": tree_hash(job.project.root, trusted_dirs),
            "entry point": job.entry_point.name,
            "parameters": record,
            "input files": _input_files(job),
            "environment": {"backend": backend, **_as_json(launch.identity())},
        }
        self._key = ReuseKey(parts, json.dumps([self.task.dag_id, self.task.task_id, self.task.map_index]))

    def tags(self) -> dict[str, str]:
        """Return the tags of a run that is about to make the result."""
        return self.key.tags(RUNNING)

    @property
    def key(self) -> ReuseKey:
        """Return the key of the step's content."""
        assert self._key is not None, "identify() comes first"
        return self._key

    def find(self, record: RunRecord) -> Run | None:
        """Return an earlier result whose artifacts are still there; else say what has changed since."""
        if not self.look:
            self.log("Not reused: this DAG run forces its steps to run (its param 'reuse').")
            return None
        for run in self.key.complete_runs(self.client, record.experiment_id):
            if self._is_intact(run):
                return run
        self._explain(record)
        return None

    def take_over(self, record: RunRecord, original: Run) -> None:
        """Close the attempt's own run as a link to the original."""
        assert record.run is not None
        linked = record.run
        # Not how the run was made: what a job cost must not be counted twice.
        making = ("system/", f"{original.tags.get('mlflow.project.backend') or 'system'}/")
        kept = {key: value for key, value in original.metrics.items() if not key.startswith(making)}
        url = self.client.settings.run_url(original.experiment_id, original.run_id)
        name = f"{original.name} ({original.run_id})"
        note = f"Reused: the result of {f'[{name}]({url})' if url else name}"
        tags = {
            self.key.tag: REUSED,
            REUSED_FROM: original.run_id,
            "mlflow.note.content": "\n\n".join(filter(None, (linked.tags.get("mlflow.note.content"), note))),
        }
        end_run(self.client, linked.run_id, "FINISHED", tags=tags, params=_shortened(original.params), metrics=kept)
        self.log(
            f"Reused run {original.run_id} ({original.name}): same code, entry point, parameters, inputs and "
            f"environment (key {self.key.digest[:12]}). {url}".rstrip()
        )

    def settle(
        self, record: RunRecord, interruptible: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> Run | None:
        """Return None when this attempt is the one to make the result, or the run that made it meanwhile.

        :param interruptible: a context in which the attempt may be killed
        """
        assert record.run is not None
        mine, claimed = record.run, True
        pause, said = _SHORTEST_PAUSE, float("-inf")
        while True:
            with interruptible():
                found = self.key.every_run(self.client, record.experiment_id)
            done = next((run for run in found if self.key.is_complete(run) and self._is_intact(run)), None)
            if done:
                return done
            others = [run for run in found if run.run_id != mine.run_id and self.key.is_at_work(run)]
            with interruptible():
                others = [run for run in others if not self.task_is_gone(run)]
            if claimed and not others:
                return None
            if not others or (claimed and min(map(_age, others)) < _age(mine)):
                claimed = not others
                self.client.log_batch(mine.run_id, tags=self.key.tags(RUNNING if claimed else WAITING))
                if claimed:
                    continue  # look again: somebody else may have claimed it at the same time
            if self.clock() - said > _SAY_EVERY_SECONDS:
                said = self.clock()
                self.log(f"Waiting for run {others[0].run_id} ({others[0].name}), which makes the same result.")
            with interruptible():
                self.sleep(random.uniform(pause / 2, pause))  # noqa: S311
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _is_intact(self, run: Run) -> bool:
        lost = lost_artifacts(self.client, run)
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            self.log(f"Run {run.run_id} has the same key, but lost {lost[0]}{more}; it is not reused.")
        return not lost

    def _explain(self, record: RunRecord) -> None:
        found = self.key.differences(self.client, record.experiment_id)
        if found is None:
            self.log(f"Not reused: no earlier run of this task is known (key {self.key.digest[:12]}).")
            return
        run, changed = found
        if "parameters" in changed:
            names = _changed_names(run.tags.get(PARAMETERS, ""), record.parameters)
            changed = [f"parameters ({', '.join(names)})" if names and x == "parameters" else x for x in changed]
        what = f"changed: {', '.join(changed)}" if changed else f"it is {run.status} and left no result to take"
        self.log(f"Not reused (key {self.key.digest[:12]}). Against the task's newest run {run.run_id}, {what}.")


def _age(run: Run) -> tuple[int, str]:
    return run.start_time or 0, run.run_id


def _input_files(job: Job) -> dict[str, str]:
    """Return the hashes of local files and folders that parameters of the type ``path`` name.

    Of those in the project too: git may ignore them.
    """
    hashes = {}
    for name, parameter in job.entry_point.parameters.items():
        local = local_path_of(str(job.parameters.declared[name])) if parameter.type == "path" else None
        if local and exists(path := job.project.root / local):
            hashes[name] = path_hash(path.resolve())
    return hashes


def _as_json(identity: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(dict(identity), default=str)))


def _shortened(params: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:MAX_PARAM] for key, value in params.items()}


def _changed_names(earlier: str, parameters: Mapping[str, str]) -> list[str]:
    before = json_texts(earlier or "{}")
    if before is None:
        return []
    return sorted(name for name in {*before, *parameters} if before.get(name) != parameters.get(name))
