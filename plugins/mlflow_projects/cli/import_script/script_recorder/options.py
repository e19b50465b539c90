"""What a script can be told: options of argparse, click, fire, hydra's configuration.

The first parser that the script uses says what there is; values that were asked for are put into its arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import itertools
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, ClassVar

from .state import recording

_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", list: "array"}


class Values:
    """The values that the script gets instead of its defaults, by option."""

    wanted: ClassVar[dict[str, Any]] = {}
    seen = False  # a parser has been asked already


def _take(inputs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Note the options of the first parser; return the values for it.

    :raises SystemExit: there is no such option
    """
    if Values.seen:
        return {}
    Values.seen = True
    recording().inputs.extend(inputs)
    known = {one["name"] for one in inputs}
    if unknown := [key for key in Values.wanted if key not in known]:
        there = f"it has {', '.join(sorted(known))}" if known else "it has none"
        recording().stop(f"has no option {unknown[0]!r} ({name}); {there}")
    return dict(Values.wanted)


def _told(arguments: list[str]) -> list[str]:
    """Note the arguments that stand for options."""
    recording().arguments = arguments
    return arguments


def _correct(values: Mapping[str, Any]) -> None:
    """Take values that stand in the script's arguments for the options' defaults."""
    for one in recording().inputs:
        value = values.get(one["name"])
        if one["type"] != "array" and isinstance(value, str | int | float) and one["name"] not in Values.wanted:
            one.update(default=value, required=False)


def _kind(kind: Any, default: Any) -> str:
    return _TYPES.get(kind) or _TYPES.get(type(default), "string")


def install() -> None:
    _install_argparse()
    for package in ("click", "typer._click"):  # typer has one of its own
        if package in sys.modules:
            _install_click(sys.modules[f"{package}.core"])
    with contextlib.suppress(ImportError):
        _install_fire()
    with contextlib.suppress(ImportError):
        _install_hydra()


# --- argparse


def _install_argparse() -> None:
    real = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None, **more: Any) -> Any:
        if args in (None, sys.argv[1:]) and not Values.seen and _is_asked_by_the_script():
            given = sys.argv[1:]
            at, command = _sub_command(self, given)
            parsers = [self, *([command] if command else [])]
            wanted = _take([_of_action(action) for one in parsers for action in _actions(one)], "argparse")
            told = [_arguments(one, wanted) for one in parsers]
            _told(list(itertools.chain(*told)))
            args = [*given[:at], *told[0], *given[at:], *(told[1] if command else [])]
            found = real(self, args, namespace, **more)
            _correct(vars(found[0]))
            return found
        return real(self, args, namespace, **more)

    argparse.ArgumentParser.parse_known_args = parse_known_args  # type: ignore[method-assign]
    argparse.ArgumentParser.error = lambda self, message: recording().stop(  # type: ignore[method-assign]
        f"refuses its arguments ({message}); options are passed as -P NAME=VALUE, other arguments after --"
    )


def _is_asked_by_the_script() -> bool:
    """Tell whether its own code parses, rather than a library such as hydra."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename == argparse.__file__:
        frame = frame.f_back
    return frame is not None and recording().is_own(frame.f_code.co_filename)


def _sub_command(parser: argparse.ArgumentParser, given: list[str]) -> tuple[int, argparse.ArgumentParser | None]:
    """Return where a sub-command stands in the arguments, and its parser; their end and None without one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for at, word in enumerate(given):
                if word in action.choices:
                    return at, action.choices[word]
    return len(given), None


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    others = (argparse._HelpAction, argparse._VersionAction, argparse._SubParsersAction)
    return [action for action in parser._actions if not isinstance(action, others)]


def _of_action(action: argparse.Action) -> dict[str, Any]:
    is_flag = isinstance(action, argparse._StoreTrueAction | argparse._StoreFalseAction) or _is_pair(action)
    is_repeated = isinstance(action, argparse._AppendAction | argparse._AppendConstAction)
    default = None if action.default == argparse.SUPPRESS else action.default
    is_list = is_repeated or action.nargs in ("*", "+") or (isinstance(action.nargs, int) and action.nargs > 0)
    is_other = not (is_flag or is_list) and action.nargs == 0
    return {
        "name": action.dest,
        "type": "boolean"
        if is_flag
        else "array"
        if is_list
        else "other"
        if is_other
        else _kind(action.type, default),
        "default": default if isinstance(default, str | int | float | bool | type(None)) else str(default),
        "choices": [str(choice) if action.type in (None, str) else choice for choice in action.choices or ()],
        "help": action.help or "",
        "required": bool(action.required),
    }


def _arguments(parser: argparse.ArgumentParser, wanted: dict[str, Any]) -> list[str]:
    found: list[str] = []
    positional: list[str] = []
    for action in _actions(parser):
        if action.dest not in wanted:
            continue
        value = wanted[action.dest]
        is_list = action.nargs not in (None, "?")
        words = [str(one) for one in value] if isinstance(value, list) else [str(value)]
        if is_list and isinstance(value, str):
            words = shlex.split(value)
        if action.type is bool and str(value).lower() in ("false", "0", "no", "off"):
            words = [""]  # any other text is true
        if isinstance(action, argparse._StoreTrueAction | argparse._StoreFalseAction):
            if _is_true(value) == action.const:
                found.append(action.option_strings[-1])
        elif _is_pair(action):
            found.append(next(o for o in action.option_strings if o.startswith("--no-") != _is_true(value)))
        elif isinstance(action, argparse._CountAction):
            found += [action.option_strings[-1]] * int(value)
        elif not action.option_strings:
            positional += words
        elif action.nargs is None and action.option_strings[-1].startswith("--"):
            found.append(f"{action.option_strings[-1]}={words[0]}")  # a value may begin with a dash
        else:
            found += [action.option_strings[-1], *words]
    return found + (["--", *positional] if positional else [])


def _is_pair(action: argparse.Action) -> bool:
    return type(action).__name__ == "BooleanOptionalAction"


def _is_true(value: Any) -> bool:
    return value.lower() in ("true", "1", "yes", "on") if isinstance(value, str) else bool(value)


# --- click


def _install_click(click: Any) -> None:
    real = click.Command.make_context

    def make_context(self: Any, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        if not Values.seen and recording().frames():
            params = [param for param in self.params if param.expose_value]
            if hasattr(self, "commands"):  # its options come before the command
                Groups.inputs += [_of_param(param) for param in params]
                told = _click_arguments(params, Values.wanted)
                Groups.told += told
                args = [*told, *args]
            else:
                wanted = _take([*Groups.inputs, *(_of_param(param) for param in params)], "click")
                told = _click_arguments(params, wanted)
                _told([*Groups.told, *told])
                args = [*args, *told]
        try:
            context = real(self, info_name, args, parent, **extra)
            _correct(context.params)
            return context
        except click.UsageError as error:
            recording().stop(
                f"refuses its arguments ({error.format_message()}); options are passed as -P NAME=VALUE, other "
                "arguments after --"
            )

    click.Command.make_context = make_context


class Groups:
    """What click's groups of commands take before the command."""

    inputs: ClassVar[list[dict[str, Any]]] = []
    told: ClassVar[list[str]] = []


def _of_param(param: Any) -> dict[str, Any]:
    kinds = {"IntParamType": "integer", "FloatParamType": "number", "BoolParamType": "boolean"}
    own = getattr(param, "type", None)
    kind = next((kinds[one.__name__] for one in type(own).__mro__ if one.__name__ in kinds), "string")
    choices = getattr(own, "choices", ())
    if described := getattr(param, "type_descriptor", None):  # typer's
        kind = _TYPES.get(described.annotation, "string")
        members: dict[str, Any] = getattr(described.annotation, "__members__", {})
        choices = [member.value for member in members.values()]
    default = param.default() if callable(param.default) else param.default
    if isinstance(default, list | tuple):
        default = str(list(default))
    if type(default).__name__ == "Sentinel" or not isinstance(default, str | int | float | bool | type(None)):
        default = None
    if kind == "number" and type(default) is int:
        default = float(default)
    return {
        "name": param.name,
        "type": "array" if param.nargs != 1 or getattr(param, "multiple", False) else kind,
        "default": default if default is not None or not getattr(param, "is_flag", False) else False,
        "choices": [str(choice) for choice in choices],
        "help": getattr(param, "help", None) or "",
        "required": bool(param.required),
    }


def _click_arguments(params: Sequence[Any], wanted: dict[str, Any]) -> list[str]:
    found: list[str] = []
    positional: list[str] = []
    for param in params:
        if param.name not in wanted:
            continue
        value = wanted[param.name]
        if param.param_type_name == "argument":
            positional += list(map(str, value)) if isinstance(value, list) else [str(value)]
        elif getattr(param, "is_flag", False):
            options = param.opts if _is_true(value) else param.secondary_opts
            found += options[-1:]
        else:
            for one in value if isinstance(value, list) else [value]:
                found += (
                    [f"{param.opts[-1]}={one}"] if param.opts[-1].startswith("--") else [param.opts[-1], str(one)]
                )
    return found + (["--", *positional] if positional else [])


# --- fire


def _install_fire() -> None:
    import fire

    real = fire.Fire

    @functools.wraps(real)
    def Fire(component: Any = None, command: Any = None, *args: Any, **kwargs: Any) -> Any:
        if component is None:
            frame = sys._getframe(1)
            component = {**frame.f_globals, **frame.f_locals}
        functions = _functions(component, sys.argv[1:2])
        if functions and command is None and not Values.seen:
            parameters = {name: one for function in functions for name, one in _parameters(function).items()}
            wanted = _take([_of_argument(name, one) for name, one in parameters.items()], "fire")
            command = [*sys.argv[1:], *_told([f"--{name}={value!r}" for name, value in wanted.items()])]
        return real(component, command, *args, **kwargs)

    fire.Fire = Fire


def _functions(component: Any, words: Sequence[str]) -> list[Callable[..., Any]]:
    """Return the functions that get fire's options: the component, or what a word names in it."""
    if inspect.isfunction(component):
        return [component]
    name = "".join(words).replace("-", "_")
    member = component.get(name) if isinstance(component, dict) else getattr(component, name, None)
    made = [component] if inspect.isclass(component) and component.__init__ is not object.__init__ else []
    return made + ([member] if inspect.isfunction(member) or inspect.ismethod(member) else [])


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters
    is_of_object = not inspect.isclass(function) and next(iter(found), "") == "self"
    return {name: one for name, one in [*found.items()][is_of_object:] if one.kind in (1, 3)}


def _of_argument(name: str, one: inspect.Parameter) -> dict[str, Any]:
    is_required = one.default is inspect.Parameter.empty
    default = None if is_required else one.default
    return {
        "name": name,
        "type": _kind(one.annotation, default),
        "default": default if isinstance(default, str | int | float | bool | type(None)) else str(default),
        "choices": [],
        "help": "",
        "required": is_required,
    }


# --- hydra


def _install_hydra() -> None:
    import hydra
    from omegaconf import DictConfig, OmegaConf

    real = hydra.main

    @functools.wraps(real)
    def main(*args: Any, **kwargs: Any) -> Any:
        decorate = real(*args, **kwargs)
        # Not a folder of the minute; nor notes of its own in it.
        for override in ("hydra.run.dir=.", "hydra.output_subdir=null"):
            if not any(argument.startswith(override.partition("=")[0]) for argument in sys.argv):
                sys.argv.append(override)

        def decorator(function: Callable[[Any], Any]) -> Any:
            @functools.wraps(function)
            def task(config: DictConfig) -> Any:
                leaves = _leaves(OmegaConf.to_container(config, resolve=False))
                inputs = [
                    {"name": name, "type": _kind(None, value), "choices": [], "help": "", "required": value == "???",
                     "default": str(value) if isinstance(value, list) else value}
                    for name, value in leaves.items()
                    if not (isinstance(value, str) and "${" in value)
                ]  # fmt: skip
                wanted = _take(inputs, "hydra")
                _told([f"{name}={value}" for name, value in wanted.items()])
                for name, value in wanted.items():
                    if isinstance(value, str):
                        value = _as_override(name, value)
                    OmegaConf.update(config, name, value, force_add=True)
                return function(config)

            return decorate(task)

        return decorator

    hydra.main = main


def _leaves(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return {dotted name: value} of the plain values and the lists in a configuration."""
    if isinstance(content, dict):
        return {
            name: value
            for key, inner in content.items()
            for name, value in _leaves(inner, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: content} if prefix and isinstance(content, str | int | float | bool | list | type(None)) else {}


def _as_override(name: str, text: str) -> Any:
    """Return the value that hydra reads in a text: a number, a list …"""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"{name}={text}").value()
    except HydraException:
        return text
