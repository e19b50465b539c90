"""The HTML around the pages' scripts. Data never goes into it: the scripts ask for it and set text only."""

from __future__ import annotations

import secrets
from html import escape
from string import Template

from mlflow_projects import __version__

_PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="stylesheet" nonce="$nonce" href="${static}page.css?v=$version">
<script type="module" nonce="$nonce" src="${static}$script.js?v=$version"></script>
</head>
<body>
<main id="page" $attributes>$content</main>
</body>
</html>
"""
)


def page(script: str, title: str, static: str, *, content: str = "", **attributes: str) -> tuple[str, dict[str, str]]:
    """Return a page and its headers.

    :param script: a module of ``static/``
    :param static: relative address of ``static/`` as seen from the page, ending with a slash
    :param content: trusted HTML
    :param attributes: what the script needs to know, as ``data-…`` of the main element
    """
    nonce = secrets.token_urlsafe(16)
    html = _PAGE.substitute(
        title=escape(title),
        nonce=nonce,
        static=escape(static),
        script=script,
        version=__version__,
        content=content,
        attributes=" ".join(f'data-{name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items()),
    )
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
    }
    return html, headers


def notice(sentence: str, static: str, login_url: str = "") -> tuple[str, dict[str, str]]:
    """Return a page that holds one sentence, and a link to log in if there is one."""
    link = f' <a href="{escape(login_url)}">Log in</a>' if login_url else ""
    return page("theme", "MLflow", static, content=f'<p class="notice" role="alert">{escape(sentence)}{link}</p>')
