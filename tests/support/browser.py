"""Chromium, as a person uses it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
WIDE, TABLET, NARROW = ({"width": width, "height": 900} for width in (1440, 900, 420))
_ARGUMENTS = (
    "--no-sandbox",  # root may not use it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# The machine may be busy with other tests.
PATIENCE = 120_000


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def running_browser() -> Iterator[Any]:
    """Run a headless Chromium; yield playwright's Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(_ARGUMENTS), timeout=PATIENCE)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def person(browser: Any, url: str, user: str, password: str, *, dark: bool = False) -> Iterator[Any]:
    """Log a person in to Airflow; yield their page."""
    context = browser.new_context(viewport=WIDE, base_url=url)
    context.set_default_timeout(PATIENCE)
    context.set_default_navigation_timeout(PATIENCE)
    if dark:
        switch_theme(context, dark=True)
    page = context.new_page()
    page.goto("/")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda address: "/auth/" not in address)
    try:
        yield page
    finally:
        context.close()


def switch_theme(context: Any, *, dark: bool) -> None:
    """Set what Airflow's own toggle sets, for all pages opened from now on."""
    context.add_init_script(f"try {{ localStorage.setItem('theme', '{'dark' if dark else 'light'}') }} catch {{}}")


def shoot(page: Any, name: str) -> Path:
    """Save what a person sees to build/screenshots."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    file = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=file)
    return file
