"""A DAG file from a plan."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_projects.cli import python_source as py
from mlflow_projects.cli.import_script.dag_layout import Group, Step, layout, order_of
from mlflow_projects.cli.import_script.marks import CLOSE, MARK, OPEN, ROOT, mark
from mlflow_projects.cli.import_script.notes import notes
from mlflow_projects.cli.import_script.plan import Option, Plan
from mlflow_projects.cli.import_script.recording import Script, ScriptError
from mlflow_projects.cli.python_source import Call, Name
from mlflow_projects.cli.scaffold import path_expression

_OWN_NAMES = ("DAG", "Param", "Path", "PROJECT", "FILES", "MLflowProjectOperator", "mlflow_run")
# A path or an address with a run's id, then "artifacts"; what is before is where the script believes them to be.
_ARTIFACT = re.compile(
    f"[^{OPEN}]*(?:{OPEN}[/e][^{CLOSE}]*{CLOSE}[^{OPEN}]*)*{OPEN}r(\\d+){CLOSE}/artifacts(?:/(.*))?", re.DOTALL
)
_JINJA = re.compile(r"\{\{|\{%|\{#")


class DagSource:
    """The text of a DAG file.

    :param file: where it will be, for paths to the projects
    """

    def __init__(self, plan: Plan, script: Script, dag_id: str, file: Path) -> None:
        self.plan, self.script, self.dag_id, self.file = plan, script, dag_id, file
        self.top = layout(plan.nodes)
        self.step_at = {index: step for step in self.top.steps() for index in step.indexes}
        self._name_all()
        self._needs_path = False
        self.files: dict[str, str] = {}  # name and text of those beside the DAG's file

    # --- groups and steps

    def _name_all(self) -> None:
        taken = list(_OWN_NAMES)
        ids: dict[str, list[str]] = {}

        def name(group: Group) -> None:
            for item in group.items:
                there = ids.setdefault(group.path, ["start_run", "end_run"])
                if isinstance(item, Group):
                    assert item.node is not None
                    item.group_id = py.identifier(self._plain(self._run_name(item.node)) or self.dag_id, there)
                    there.append(item.group_id)
                    item.variable = py.identifier(item.group_id, taken)
                    taken.append(item.variable)
                    name(item)
                else:
                    call = item.calls[0]
                    item.task_id = py.identifier(self._plain(self._run_name(call) or call["project"]), there)
                    there.append(item.task_id)
                    item.variable = py.identifier(item.task_id, taken)
                    taken.append(item.variable)

        name(self.top)

    def _run_name(self, node: Mapping[str, Any]) -> Any:
        """Return a run's name, unless it is another one each time: MLflow has such names too."""
        is_new = any(node is self.plan.nodes[index] and name == "run_name" for index, name in self.plan.variable)
        return None if is_new else node["run_name"]

    @staticmethod
    def _plain(value: Any) -> str:
        return MARK.sub("", str(value or ""))

    # --- texts

    def _value(self, value: Any) -> Any:
        """Return what the DAG has for a value: source, or a plain one."""
        if isinstance(value, dict):
            return {key: self._value(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._value(inner) for inner in value]
        if not isinstance(value, str):
            return value
        if (found := _ARTIFACT.fullmatch(value)) and (step := self._step_of(int(found[1]))):
            tail = found[2] or ""
            if found[2] != "" and not MARK.search(tail) and tail == tail.strip("/"):
                return Name(f"{step.variable}.artifact({py.text(tail) if tail else ''})")
            rest = self._text(tail)
            if isinstance(rest, str):
                root = "f" + py.text(f"{{{step.variable}.artifact()}}/")
                return Name(f"{root} + {py.text(rest)}" if rest else root)
        return self._text(value)

    def _step_of(self, index: int) -> Step | None:
        return self.step_at.get(index)

    def _text(self, value: str) -> Any:
        if not MARK.search(value):
            return f"{{% raw %}}{value}{{% endraw %}}" if _JINJA.search(value) else value
        if self.script.root != self.script.folder and ROOT in value:
            value = value.replace(f"{ROOT}/{os.path.relpath(self.script.folder, self.script.root)}", f"{ROOT}.")
        pieces: list[str] = []  # of source
        plain = ""
        at = 0
        for found in MARK.finditer(value):
            plain += self._raw(value[at : found.start()])
            at = found.end()
            if found[1] == "/":
                if plain:
                    pieces.append(py.text(plain))
                    plain = ""
                self._needs_path = True
                pieces.append("PROJECT")
            else:
                plain += self._template(found[1], found[2])
        plain += self._raw(value[at:])
        if not pieces:
            return plain
        if pieces == ["PROJECT"]:
            tail = plain.removeprefix(".")
            if "{{" not in tail:
                return Name(f"f{py.text('{PROJECT}' + tail)}" if tail else "str(PROJECT)")
        if plain:
            pieces.append(py.text(plain))
        return Name(" + ".join(f"str({piece})" if piece == "PROJECT" else piece for piece in pieces))

    @staticmethod
    def _raw(text: str) -> str:
        return f"{{% raw %}}{text}{{% endraw %}}" if _JINJA.search(text) else text

    def _template(self, kind: str, content: str) -> str:
        if kind == "p":
            return f"{{{{ {py.param(content)} }}}}"
        if kind == "c":
            option, texts = self.plan.choices[int(content)]
            if set(texts) == {True, False}:
                return f"{{{{ {texts[True]!r} if {py.param(option)} else {texts[False]!r} }}}}"
            return f"{{{{ {texts!r}[{py.param(option)}] }}}}"
        if kind == "r":
            node = self.plan.nodes[int(content)]
            step = self._step_of(int(content))
            path = (
                step.path
                if step
                else next((f"{group.path}.start_run" for group in self.top.groups() if group.node is node), "")
            )
            if path:
                return f"{{{{ ti.xcom_pull({path!r})['run_id'] }}}}"
            raise ScriptError(
                f"{self.script.name} passes a run that holds no step to a step; leave it out of the script."
            )
        for group in self.top.groups():
            if group.node is not None and group.node["experiment_id"] == mark("e", content):
                return f"{{{{ ti.xcom_pull({f'{group.path}.start_run'!r})['experiment_id'] }}}}"
        raise ScriptError(
            f"{self.script.name} passes the id of an experiment to a step, and no parent run is in it, so the DAG "
            "does not know it; pass the experiment's name, or open a run in it with start_run."
        )

    def _file(self, node: Mapping[str, Any], path: str) -> str:
        """Return the name of a file beside the DAG for one that the script makes for a step."""
        name = Path(path).name
        text = node["files"][path].replace(ROOT, str(self.script.root))
        while self.files.setdefault(name, text) != text:
            name = f"{node['name']}_{name}"
        return name

    def _uri(self, uri: str) -> Any:
        if (
            not uri.startswith((ROOT, "/"))
            and not re.match(r"[A-Za-z0-9+.-]+:|[\w.-]+@[\w.-]+:", uri)
            and not uri.startswith(OPEN)
        ):
            uri = f"{ROOT}./{os.path.normpath(uri)}".removesuffix("/.")
            where, _, sub = uri.partition("#")
            uri = where + (f"#{sub}" if sub else "")
        return self._text(uri)

    # --- the file

    def text(self) -> str:
        """Return the file's text."""
        body = self._group(self.top, 1)
        used = [option for option in self.plan.options if option.is_used]
        params = {option.name: self._param(option) for option in used}
        arguments: list[tuple[str, Any]] = [("", self.dag_id), ("schedule", None)]
        if self._shared:
            arguments.append(("default_args", {"experiment_name": self._value(self._shared)}))
        if params:
            arguments.append(("params", params))
        arguments.append(("doc_md", Name("__doc__")))
        head = py.source(Call("with DAG", arguments), 0, 0, 1) + ":"
        imports = "from airflow.sdk import DAG, Param" if used else "from airflow.sdk import DAG"
        names = "MLflowProjectOperator, mlflow_run" if self.top.groups() else "MLflowProjectOperator"
        lines = [self._doc()]
        if self._needs_path or self.files:
            lines += ["from pathlib import Path", ""]
        lines += [imports, f"from mlflow_projects import {names}", ""]
        if self._needs_path:
            lines += [f"PROJECT = {path_expression(self.script.folder, self.file)}"]
        if self.files:
            lines += [f"FILES = Path(__file__).resolve().parent / {py.text(self.files_folder)}"]
        if self._needs_path or self.files:
            lines.append("")
        lines += [head, *body]
        return "\n".join(lines).rstrip() + "\n"

    def write(self) -> None:
        """Write the DAG's file and those beside it.

        :raises OSError: it is there already, or cannot be written
        """
        text, file = self.text(), self.file
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
        for name, content in self.files.items():
            beside = file.parent / self.files_folder / name
            beside.parent.mkdir(exist_ok=True)
            beside.write_text(content, encoding="utf-8", newline="")

    @property
    def files_folder(self) -> str:
        """The folder of :attr:`files`, beside the DAG's file."""
        return f"{self.file.stem}_files"

    def _doc(self) -> str:
        lines = [f'"""The steps of {self.script.file.name}, imported by `mlflow-projects import`.']
        if known := self.notes():
            lines.append("")
            for note in known:
                lines += textwrap.wrap(
                    _doc_text(note), py.WIDTH, initial_indent="- ", subsequent_indent="  ",
                    break_long_words=False, break_on_hyphens=False,
                )  # fmt: skip
            return "\n".join([*lines, '"""', ""])
        return lines[0] + '"""\n'

    def notes(self) -> list[str]:
        """Return what a person should know of the import, a sentence each."""
        calls = [call for step in self.top.steps() for call in step.calls]
        return notes(self.plan, self.script, calls, [f"{self.files_folder}/{name}" for name in self.files])

    def _param(self, option: Option) -> Call:
        kind: Any = option.kind
        if option.value is None:
            kind = ["null", option.kind]
        arguments: list[tuple[str, Any]] = [("", option.value), ("type", kind)]
        if option.choices:
            is_own = option.value in option.choices
            arguments.append(("enum", [*([] if is_own else [option.value]), *option.choices]))
        if not option.may_be_empty:
            arguments.append(("minLength", 1))
        if not option.may_be_absolute:
            arguments.append(("pattern", "^(?!/)"))
        arguments.append(("title", py.title(option.name.rpartition(".")[2])))
        if option.help:
            arguments.append(("description", option.help))
        if "." in option.name:
            arguments.append(("section", option.name.partition(".")[0]))
        return Call("Param", arguments)

    def _group(self, group: Group, depth: int) -> list[str]:
        lines: list[str] = []
        indent = " " * 4 * depth
        order = order_of(group)
        named = {name for line in order for name in re.findall(r"\w+", line)} | self._used_names()
        for item in group.items:
            if isinstance(item, Group):
                assert item.node is not None
                arguments: list[tuple[str, Any]] = [("", item.group_id)]
                experiment = self._experiment(item.node, group)
                if experiment:
                    arguments.append(("experiment_name", experiment))
                run_name = self._run_name(item.node)
                if run_name and run_name != item.group_id:
                    arguments.append(("run_name", self._value(run_name)))
                if item.node["tags"]:
                    arguments.append(("tags", self._value(item.node["tags"])))
                ending = f" as {item.variable}:" if item.variable in named else ":"
                call = py.source(Call("with mlflow_run", arguments), 4 * depth, 0, len(ending))
                lines += (indent + call + ending).split("\n")
                lines += self._group(item, depth + 1)
            else:
                lines += self._step(item, group, depth, item.variable in named)
        return lines + [indent + line if line else line for line in order]

    def _used_names(self) -> set[str]:
        used = set()
        for step in self.top.steps():
            for node in step.calls:
                for found in re.finditer(
                    r"(\w+)\.artifact\(", repr(self._value({k: node[k] for k in ("parameters",)}))
                ):
                    used.add(found[1])
        return used

    @property
    def _shared(self) -> str:
        """The experiment of all steps, where there is no parent run that could say it for them."""
        found = {node["experiment"] for node in self.plan.nodes}
        return next(iter(found)) if len(found) == 1 and len(self.top.items) > 1 and not self.top.groups() else ""

    def _experiment(self, node: Mapping[str, Any], outer: Group) -> Any:
        """Return the experiment's name where it is not that of the enclosing run."""
        while outer.node is None and outer.outer is not None:
            outer = outer.outer
        if outer.node is not None and outer.node["experiment_id"] == node["experiment_id"]:
            return ""
        if outer.node is None and self._shared:
            return ""
        return self._value(node["experiment"])

    def _step(self, step: Step, group: Group, depth: int, is_named: bool) -> list[str]:
        call = step.calls[0]
        arguments: list[tuple[str, Any]] = [("task_id", step.task_id), ("uri", self._uri(call["uri"]))]
        if call["entry_point"] != "main":
            arguments.append(("entry_point", self._value(call["entry_point"])))
        if call["version"]:
            arguments.append(("version", self._value(call["version"])))
        if len(step.calls) == 1 and call["parameters"]:
            arguments.append(("parameters", self._parameters(call)))
        if experiment := self._experiment(call, group):
            arguments.append(("experiment_name", experiment))
        run_name = self._run_name(call)
        if run_name and self._value(run_name) != step.task_id:
            arguments.append(("run_name", self._value(run_name)))
        if call["tags"]:
            arguments.append(("tags", self._value(call["tags"])))
        if call["env_manager"]:
            arguments.append(("env_manager", self._value(call["env_manager"])))
        if call["backend"] != "local":
            arguments.append(("backend", self._value(call["backend"])))
        if call["backend_config"]:
            arguments.append(("backend_config", self._value(call["backend_config"])))
        head = f"{step.variable} = " if is_named else ""
        indent = " " * 4 * depth
        lines = []
        if any(one["is_cached"] for one in step.calls):
            arguments.append(("reuse", True))
            lines.append(f"{indent}# The script looks for an earlier run itself; reuse does that.")
        if len(step.calls) == 1:
            lines += (
                indent + head + py.source(Call("MLflowProjectOperator", arguments), 4 * depth, len(head))
            ).split("\n")
            return lines
        if not self._is_parallel(step):
            lines.append(f"{indent}# One after the other, as in the script; without the limit they run side by side.")
            arguments.append(("max_active_tis_per_dagrun", 1))
        partial = py.source(Call("MLflowProjectOperator.partial", arguments), 4 * depth, len(head))
        last_line = partial.rpartition("\n")[2]
        before = len(last_line) if "\n" in partial else len(head) + len(partial)
        values = [self._parameters(one) for one in step.calls]
        expand = py.source(Call(".expand", [("parameters", values)]), 4 * depth, before)
        if "\n" not in partial and "\n" in expand:  # as a formatter breaks such a chain
            partial = _exploded(Call("MLflowProjectOperator.partial", arguments), 4 * depth)
        return lines + (indent + head + partial + expand).split("\n")

    def _parameters(self, call: Mapping[str, Any]) -> dict[str, Any]:
        # MLflow passes None as a text, Airflow's operator takes it for "not given".
        found = {name: "None" if value is None else self._value(value) for name, value in call["parameters"].items()}
        for name, value in call["parameters"].items():
            path = value if isinstance(value, str) and value in call["files"] else f"{ROOT}{self._below_root}/{value}"
            if path in call["files"]:
                found[name] = Name(f"f{py.text('{FILES}/' + self._file(call, path))}")
        return found

    @property
    def _below_root(self) -> str:
        below = os.path.relpath(self.script.folder, self.script.root)
        return "" if below == "." else f"/{below}"

    def _is_parallel(self, step: Step) -> bool:
        own = {call["run_id"] for call in step.calls}
        return not any(own & set(call["after"]) for call in step.calls)


def _exploded(call: Call, indent: int) -> str:
    lines = [
        " " * (indent + 4) + (f"{name}=" if name else "") + py.source(value, indent + 4, len(name) + 1, 1) + ","
        for name, value in call.arguments
    ]
    return "\n".join([f"{call.name}(", *lines, " " * indent + ")"])


def _doc_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")
