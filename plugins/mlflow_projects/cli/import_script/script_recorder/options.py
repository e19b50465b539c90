"""What a script can be told: options of argparse, click and fire, values of a hydra configuration.

The first parser that the script uses says what there is; values that were asked for are put into its arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, ClassVar

from .state import recording

_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


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


def _kind(kind: Any, default: Any) -> str:
    return _TYPES.get(kind) or _TYPES.get(type(default), "string")


def install() -> None:
    _install_argparse()
    with contextlib.suppress(ImportError):
        _install_click()
    with contextlib.suppress(ImportError):
        _install_fire()
    with contextlib.suppress(ImportError):
        _install_hydra()


# --- argparse


def _install_argparse() -> None:
    real = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None, **more: Any) -> Any:
        if args is None and not Values.seen and _is_asked_by_the_script():
            wanted = _take([_of_action(action) for action in _actions(self)], "argparse")
            args = [*sys.argv[1:], *_told(_arguments(self, wanted))]
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


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    simple = (argparse._StoreAction, argparse._StoreTrueAction, argparse._StoreFalseAction)
    flags = getattr(argparse, "BooleanOptionalAction", ())
    return [action for action in parser._actions if isinstance(action, (*simple, flags) if flags else simple)]


def _of_action(action: argparse.Action) -> dict[str, Any]:
    is_flag = action.nargs == 0 or type(action).__name__ == "BooleanOptionalAction"
    default = None if action.default == argparse.SUPPRESS else action.default
    is_list = action.nargs in ("*", "+") or (isinstance(action.nargs, int) and action.nargs > 0)
    return {
        "name": action.dest,
        "type": "boolean" if is_flag else "array" if is_list else _kind(action.type, default),
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
        words = list(map(str, value)) if isinstance(value, list) else [str(value)]
        if isinstance(action, argparse._StoreTrueAction | argparse._StoreFalseAction):
            if bool(value) == action.const:
                found.append(action.option_strings[-1])
        elif type(action).__name__ == "BooleanOptionalAction":
            found.append(next(o for o in action.option_strings if o.startswith("--no-") != bool(value)))
        elif not action.option_strings:
            positional += words
        elif action.nargs is None and action.option_strings[-1].startswith("--"):
            found.append(f"{action.option_strings[-1]}={words[0]}")  # a value may begin with a dash
        else:
            found += [action.option_strings[-1], *words]
    return found + (["--", *positional] if positional else [])


# --- click


def _install_click() -> None:
    import click

    real = click.Command.make_context

    def make_context(self: Any, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        if not isinstance(self, click.Group) and not Values.seen and recording().frames():
            params = [param for param in self.params if param.expose_value]
            wanted = _take([_of_param(param) for param in params], "click")
            args = [*args, *_told(_click_arguments(params, wanted))]
        try:
            return real(self, info_name, args, parent, **extra)
        except click.UsageError as error:
            recording().stop(
                f"refuses its arguments ({error.format_message()}); options are passed as -P NAME=VALUE, other "
                "arguments after --"
            )

    click.Command.make_context = make_context  # type: ignore[method-assign]


def _of_param(param: Any) -> dict[str, Any]:
    import click

    kinds = {
        click.types.IntParamType: "integer",
        click.types.FloatParamType: "number",
        click.types.BoolParamType: "boolean",
    }
    kind = next((name for one, name in kinds.items() if isinstance(param.type, one)), "string")
    default = param.default() if callable(param.default) else param.default
    if type(default).__name__ == "Sentinel" or not isinstance(default, str | int | float | bool | type(None)):
        default = None
    return {
        "name": param.name,
        "type": "array" if param.nargs != 1 or getattr(param, "multiple", False) else kind,
        "default": default if default is not None or not getattr(param, "is_flag", False) else False,
        "choices": [str(choice) for choice in getattr(param.type, "choices", ())],
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
            options = param.opts if value else param.secondary_opts
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
        if inspect.isfunction(component) and command is None and not Values.seen:
            signature = inspect.signature(component)
            inputs = [_of_argument(name, one) for name, one in signature.parameters.items() if one.kind in (1, 3)]
            wanted = _take(inputs, "fire")
            command = [*sys.argv[1:], *_told([f"--{name}={value!r}" for name, value in wanted.items()])]
        return real(component, command, *args, **kwargs)

    fire.Fire = Fire


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
                    {"name": name, "type": _kind(None, value), "default": value, "choices": [], "help": "",
                     "required": value == "???"}
                    for name, value in leaves.items()
                    if not (isinstance(value, str) and "${" in value)
                ]  # fmt: skip
                wanted = _take(inputs, "hydra")
                _told([f"{name}={value}" for name, value in wanted.items()])
                for name, value in wanted.items():
                    OmegaConf.update(config, name, value, force_add=True)
                return function(config)

            return decorate(task)

        return decorator

    hydra.main = main


def _leaves(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return {dotted name: value} of the plain values in a configuration; lists are left out."""
    if isinstance(content, dict):
        return {
            name: value
            for key, inner in content.items()
            for name, value in _leaves(inner, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    is_plain = isinstance(content, str | int | float | bool) and prefix
    return {prefix: content} if is_plain else {}
