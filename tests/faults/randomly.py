"""Random faults at random moments on random small DAGs; the same seed asks for the same again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

import psutil

from tests.faults.stack import Stack, is_watchdog, proxy_down
from tests.faults.table import delete_run
from tests.faults.verdict import Fault, Verdict, cause

ACTIONS = (
    "nothing", "kill the task process", "kill the command", "kill the watchdog", "mark a step failed",
    "clear a running step", "clear after the end", "tracking server away for 2 s", "dagrun_timeout",
    "mark the DAG run failed", "tracking server away at the end", "delete a parent run", "delete an XCom",
    "suspend the watchdog, mark a step failed",
)  # fmt: skip
WEIGHTS = (3, 2, 2, 1, 2, 2, 2, 2, 2, 1, 3, 1, 1, 1)
TWO_AT_ONCE = 0.2  # how often
DAGS = 10
AT_ONCE = 3
AWAY = 2.0  # seconds; perhaps nobody asks the server then, so there is nothing to wait for


def run_randomly(stack: Stack, count: int, seed: int) -> list[Verdict]:
    """Cause ``count`` random faults and judge each; what is broken is printed."""
    random = Random(seed)
    plans = [
        (
            number,
            f"random_{random.randrange(DAGS)}",
            random.choices(ACTIONS, WEIGHTS, k=1 + (random.random() < TWO_AT_ONCE)),
            random.uniform(0, 3),
        )
        for number in range(count)
    ]
    proxy = threading.Lock()

    def judge(plan: tuple[int, str, list[str], float]) -> Verdict:
        number, dag_id, actions, after = plan

        def do(stack: Stack) -> tuple[str, str]:
            return _act(stack, proxy, dag_id, actions, after)

        verdict = cause(stack, Fault(f"#{number} {dag_id}, {' + '.join(actions)} after {after:.1f} s", do, ""))
        if verdict.problems:
            print(verdict, *verdict.logs, sep="\n", flush=True)
        return verdict

    with ThreadPoolExecutor(AT_ONCE) as pool:
        verdicts = list(pool.map(judge, plans))
    did = Counter(action for plan in plans for action in plan[2])
    print(f"seed {seed}:", ", ".join(f"{n} × {action}" for action, n in sorted(did.items())))
    return verdicts


def _act(stack: Stack, proxy: threading.Lock, dag_id: str, actions: list[str], after: float) -> tuple[str, str]:
    run_id = stack.trigger(dag_id)
    for action in actions:
        if action == "clear after the end":
            stack.wait_end(dag_id, run_id)
            stack.clear(dag_id, run_id)
        else:
            _wait_for_a_command(stack, dag_id, run_id)
            time.sleep(after)  # the fault is the moment, and nobody knows what there is to be seen in it
            _disturb(stack, proxy, dag_id, run_id, action)
    return dag_id, run_id


def _wait_for_a_command(stack: Stack, dag_id: str, run_id: str) -> None:
    stack.wait(
        lambda: bool(stack.processes(run_id)) or stack.dag_run(dag_id, run_id) in ("success", "failed"),
        f"a command of {run_id}",
    )  # fmt: skip


def _disturb(stack: Stack, proxy: threading.Lock, dag_id: str, run_id: str, action: str) -> None:
    if action == "tracking server away for 2 s":
        with proxy, proxy_down(stack.proxy):
            time.sleep(AWAY)
    elif action == "tracking server away at the end":
        with proxy, proxy_down(stack.proxy):
            stack.let_time_out(run_id)
            stack.wait_end(dag_id, run_id)
            time.sleep(AWAY)
    elif action == "dagrun_timeout":
        stack.let_time_out(run_id)
    elif action == "mark the DAG run failed":
        stack.send("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})
    elif action == "delete a parent run":
        delete_run(stack, run_id, "parent")
    elif action == "delete an XCom":
        for task_id in ("parent.start_run", "one.start_run"):
            task = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
            stack.wait(
                lambda task=task: stack.ask("DELETE", f"{task}/xcomEntries/return_value", None).status_code < 500,
                "the end of an XCom",
            )
    elif action.startswith("suspend"):
        for process in stack.processes(run_id):
            with contextlib.suppress(psutil.Error):
                if is_watchdog(process):
                    process.suspend()
                    break
        _disturb(stack, proxy, dag_id, run_id, "mark a step failed")
    elif action in ("mark a step failed", "clear a running step"):
        running = [
            task
            for task in stack.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
            if task["state"] == "running" and task["operator"] == "MLflowProjectOperator"
        ]
        if not running:
            return
        task = running[0]
        index = [f"/{task['map_index']}"] if task["map_index"] >= 0 else []
        if action == "mark a step failed":
            path = "".join([f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task['task_id']}", *index])
            # It may have ended meanwhile, which Airflow tells as a conflict.
            stack.wait(
                lambda: stack.ask("PATCH", path, {"new_state": "failed"}).status_code < 500,
                f"the mark of {task['task_id']}",
            )
        else:
            stack.clear(dag_id, run_id, task_ids=[task["task_id"]], include_downstream=True)
    elif action.startswith("kill"):
        for process in stack.processes(run_id):
            with contextlib.suppress(psutil.Error):
                if is_watchdog(process):
                    above = process.parent()
                    victims = {
                        "kill the watchdog": [process],
                        "kill the command": [child for child in process.children() if not is_watchdog(child)],
                        "kill the task process": [above] if above and not is_watchdog(above) else [],
                    }[action]
                    for victim in victims:
                        victim.kill()
                    if victims:
                        return
