"""How templates of our operators are rendered: what stands in a template is never guessed to be a number.

With ``render_template_as_native_obj=True`` Airflow reads each text that a template gives as Python, so that the tag
``"1.10"`` becomes 1.1 and the parameter ``"0x10"`` becomes 16. Here a template that is one expression gives the
expression's own value (so a null param stays None, without that argument too), and any other gives text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_EXPRESSION = re.compile(r"\{\{[-+]?(.*?)[-+]?\}\}", re.DOTALL)


def render_text(content: str, context: Mapping[str, Any], env: Any) -> Any:
    """Return what a template gives.

    :param env: the DAG's jinja2.Environment, native or not
    """
    if "{" not in content:
        return content
    import jinja2

    found = _EXPRESSION.fullmatch(content)
    if found and _is_one_expression(env.parse(content).body):
        value = env.compile_expression(found[1], undefined_to_none=False)(**context)
        return str(value) if isinstance(value, jinja2.Undefined) else value
    template = env.from_string(content)
    try:
        parts = list(template.root_render_func(template.new_context(dict(context))))
    except Exception:
        env.handle_exception()
        raise
    return "".join(map(str, parts))


def _is_one_expression(body: Sequence[Any]) -> bool:
    """Tell it from ``{{ a }}-{{ b }}``, which begins and ends like one."""
    return len(body) == 1 and len(getattr(body[0], "nodes", ())) == 1


def text_or_none(value: Any) -> str | None:
    """Return a rendered argument as text; None for nothing, also where a template of another operator spelled it."""
    return None if value in (None, "", "None") else str(value)


def as_native(text: str) -> Any:
    """Return what Airflow's native rendering makes of a text: a Python value, if it is written as one."""
    from jinja2.nativetypes import native_concat

    return native_concat([text])
