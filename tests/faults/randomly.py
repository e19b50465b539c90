"""Random faults at random moments on random small DAGs; the same seed asks for the same again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

import psutil

from tests.faults.stack import Stack, proxy_down
from tests.faults.verdict import Fault, Verdict, cause

ACTIONS = (
    "nothing", "kill the task process", "kill the command", "kill the watchdog", "mark a step failed",
    "clear a running step", "clear after the end", "tracking server away for 2 s",
)  # fmt: skip
WEIGHTS = (4, 2, 2, 1, 2, 2, 2, 2)
AT_ONCE = 3
AWAY = 2.0  # seconds; perhaps nobody asks the server then, so there is nothing to wait for


def run_randomly(stack: Stack, count: int, seed: int) -> list[Verdict]:
    """Cause ``count`` random faults and judge each; what is broken is printed."""
    random = Random(seed)
    plans = [
        (number, f"random_{random.randrange(5)}", random.choices(ACTIONS, WEIGHTS)[0], random.uniform(0, 3))
        for number in range(count)
    ]
    proxy = threading.Lock()

    def judge(plan: tuple[int, str, str, float]) -> Verdict:
        number, dag_id, action, after = plan

        def do(stack: Stack) -> tuple[str, str]:
            return _act(stack, proxy, dag_id, action, after)

        verdict = cause(stack, Fault(f"#{number} {dag_id}, {action} after {after:.1f} s", do, ""))
        if verdict.problems:
            print(verdict, *verdict.logs, sep="\n", flush=True)
        return verdict

    with ThreadPoolExecutor(AT_ONCE) as pool:
        verdicts = list(pool.map(judge, plans))
    print(f"seed {seed}:", ", ".join(f"{n} × {action}" for action, n in Counter(p[2] for p in plans).items()))
    return verdicts


def _act(stack: Stack, proxy: threading.Lock, dag_id: str, action: str, after: float) -> tuple[str, str]:
    run_id = stack.trigger(dag_id)
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
            stack.send("PATCH", path, {"new_state": "failed"})
        else:
            stack.clear(dag_id, run_id, task_ids=[task["task_id"]], include_downstream=True)
    elif action.startswith("kill"):
        for process in stack.processes(run_id):
            with contextlib.suppress(psutil.Error):
                if any("watchdog.py" in part for part in process.cmdline()):
                    victims = {
                        "kill the watchdog": [process],
                        "kill the command": process.children(),
                        "kill the task process": [process.parent()],
                    }[action]
                    for victim in victims:
                        if victim:
                            victim.kill()
                    return
