"""What a person sees in Airflow's UI, in a real browser: forms, buttons and the two tabs "MLflow"."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from mlflow_projects.tracking.client import now
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.record import resolve_experiment
from mlflow_projects.tracking.server import TrackingSettings
from tests.conftest import ROOT
from tests.support.airflow import SECRET, USERS, Deployment, running_airflow
from tests.support.browser import (
    NARROW,
    PATIENCE,
    TABLET,
    find_chromium,
    person,
    running_browser,
    shoot,
    switch_theme,
)
from tests.support.waiting import wait

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is missing: apt-get install chromium"),
]
NIGHTS = 20


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    dag_files = [ROOT / "dags" / "echo_zip.py", ROOT / "tests" / "system" / "dags" / "ui.py"]
    home = tmp_path_factory.mktemp("ui")
    shutil.copytree(ROOT / "tests" / "projects" / "curves", home / "projects" / "curves")
    gate = {"TESTS_GATE": str(home / "gate")}
    with running_airflow(home, dag_files, ["echo_zip", "nightly"], gate) as running:
        wait(lambda: dags_of(running) == {"curves", "echo_zip", "nightly"}, "the DAGs")
        yield running


@pytest.fixture(scope="module")
def airflow(deployment: Deployment) -> Iterator[httpx.Client]:
    with deployment.client() as http:
        yield http


@pytest.fixture(scope="module", autouse=True)
def runs(airflow: httpx.Client) -> dict[str, str]:
    """Start what takes long before the first test: a run that waits, and one whose second step fails."""
    return {
        "waiting": trigger(airflow, "curves", waits="yes"),
        "failed": trigger(airflow, "curves", code=3),
    }


@pytest.fixture(scope="module")
def nights(deployment: Deployment, airflow: httpx.Client) -> list[str]:
    """Twenty finished runs of the DAG ``nightly``; in the last one the accuracy fell."""
    return make_nights(airflow, deployment.mlflow_url)


@pytest.fixture(scope="module")
def browser(deployment: Deployment) -> Iterator[Any]:  # after Airflow is up: both start slowly
    with running_browser() as running:
        yield running


@pytest.fixture
def page(browser: Any, deployment: Deployment) -> Iterator[Any]:
    with person(browser, deployment.url, "admin", USERS["admin"]) as opened:
        yield opened


def test_a_filled_form_starts_echo_zip_and_leads_to_mlflow_and_back(
    page: Any, airflow: httpx.Client, deployment: Deployment
) -> None:
    page.goto("/dags/echo_zip")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.locator("[role=dialog][data-state=open]")
    start = form.get_by_role("button", name="Trigger")
    text, lines = form.locator("[name=element_text]"), form.locator("[name=element_num]")
    form.get_by_text("How often echo writes the text.").wait_for()
    text.fill("")
    text.blur()
    form.get_by_text("This field is required").wait_for()
    wait(start.is_disabled, "the form to refuse a wrong value")
    shoot(page, "trigger_form")
    text.fill("from the browser")
    lines.fill("0")
    lines.blur()
    wait(lambda: lines.input_value() == "1", "a number below the bound to become the bound")
    lines.fill("3")
    lines.blur()
    start.click()
    form.wait_for(state="hidden")
    # The DAG has a schedule, so there may be a run of last night too.
    manual = wait(lambda: [run for run in dag_runs(airflow, "echo_zip") if run["run_type"] == "manual"], "the run")
    run_id = manual[0]["dag_run_id"]
    assert ended(airflow, "echo_zip", run_id) == "success"

    tab = open_tab(page, "echo_zip", run_id)
    tab.get_by_text("DAG run success").wait_for()
    assert cards(tab) == {"pipeline": "finished", "echo": "finished", "zip": "finished"}
    echo = tab.locator(".run", has=tab.get_by_role("heading", name="echo", exact=True))
    assert table(echo, "params") == {"text": "from the browser", "num": "3"}
    wait(lambda: table(echo, "files") == {"downstream/echo.txt": "51 B"}, "the artifact with its size")
    assert table(echo, "metrics")["lines"] == "3"
    with page.context.expect_page() as opened:
        echo.get_by_role("link", name="Open echo in MLflow").click()
    mlflow = opened.value
    assert mlflow.url.startswith(f"{deployment.mlflow_url}/#/experiments/")
    back = mlflow.get_by_role("link", name=re.compile(r"Airflow task pipeline\.echo")).first
    back.wait_for(timeout=PATIENCE)
    assert (back.get_attribute("href") or "").startswith(f"{deployment.url}/dags/echo_zip/runs/")
    mlflow.goto(back.get_attribute("href"))
    mlflow.get_by_text("pipeline.echo").first.wait_for()


def test_the_tab_and_the_button_work_while_the_step_runs(
    page: Any, airflow: httpx.Client, deployment: Deployment, runs: dict[str, str]
) -> None:
    run_id = runs["waiting"]
    tab = open_tab(page, "curves", run_id)
    train = tab.locator(".run", has=tab.get_by_role("heading", name="train", exact=True))
    train.locator("svg.sparkline").nth(1).wait_for()
    assert cards(tab) == {"training": "running", "train": "running"}
    assert table(train, "params")["steps"] == "60"
    shoot(page, "run_running")
    instance = f"/dags/curves/runs/{quote(run_id)}/tasks/training.train"
    button_page = page.context.new_page()
    button_page.goto(f"{instance}/details")
    button = button_page.get_by_role("link", name="MLflow run")
    button.wait_for()
    assert (button.get_attribute("href") or "").startswith(f"{deployment.mlflow_url}/#/experiments/")
    shoot(button_page, "task_button")
    button_page.close()

    (deployment.home / "gate").touch()
    tab.get_by_text("DAG run success").wait_for(timeout=2 * PATIENCE)  # the page was not reloaded
    assert cards(tab)["evaluate <b>not bold</b>"] == "finished", "a nested run, and its name is text"
    wait(lambda: table(train, "files") == {"model/weights.txt": "4.00 kB"}, "the artifact")
    assert "attempt 1" in train.locator(".facts").inner_text()
    shoot(page, "run_light")
    assert SECRET not in page.content() + tab.locator("html").inner_html()


def test_a_failed_run_says_why_in_dark_and_narrow(
    browser: Any, deployment: Deployment, airflow: httpx.Client, runs: dict[str, str]
) -> None:
    assert ended(airflow, "curves", runs["failed"]) == "failed"
    measure_machine(deployment.mlflow_url, runs["failed"])
    with person(browser, deployment.url, "admin", USERS["admin"], dark=True) as page:
        tab = open_tab(page, "curves", runs["failed"])
        failed = tab.locator(".run", has=tab.get_by_role("heading", name="check", exact=True))
        failed.nth(1).wait_for()
        assert ["attempt 1" in facts for facts in failed.locator(".facts").all_inner_texts()] == [True, False]
        assert "exit status 3" in failed.first.locator(".reason").inner_text()
        assert failed.first.locator(".cause").inner_text() == "user error"
        processor = failed.first.get_by_text("system/cpu_utilization_percentage")
        assert not processor.is_visible()
        failed.first.get_by_text("System metrics (1)").click()
        assert processor.is_visible()
        failed.first.get_by_text("Last lines of output").click()
        assert "The curves are drawn." in failed.first.locator("pre").inner_text()
        assert text_colour(tab) == (236, 238, 242)
        tab.locator("svg.sparkline").first.wait_for()
        shoot(page, "run_dark")
        page.evaluate("document.documentElement.classList.remove('dark')")
        wait(lambda: text_colour(tab) == (24, 33, 47), "the page to follow Airflow's toggle")
        page.evaluate("document.documentElement.classList.add('dark')")
        page.set_viewport_size(TABLET)
        wait(lambda: no_sideways_scrolling(tab), "the page to fit")
        shoot(page, "run_dark_tablet")


def measure_machine(mlflow_url: str, dag_run: str) -> None:
    """Log a metric of the machine to the first failed try, as MLflow does with system_metrics=True."""
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_url)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    of_task = f"tags.`airflow.run_id` = '{dag_run}' and tags.`airflow.task_id` LIKE '%check'"
    for run in client.search_runs(experiments, of_task):
        client.log_metric(run.info.run_id, "system/cpu_utilization_percentage", 41.5)


def test_a_regression_is_visible_at_a_glance(page: Any, deployment: Deployment, nights: list[str]) -> None:
    page.goto("/dags/nightly/plugin/mlflow")
    tab = page.frame_locator("iframe[title=MLflow]")
    tab.get_by_text("1 metric of the newest run left the usual range.").wait_for()
    assert tab.locator(".verdict").inner_text() == (
        "Newest: 0.71, −21.8 % against the median 0.908 of 19 earlier runs."
    )
    assert tab.locator(".tile").first.inner_text().split("\n")[:2] == ["train", "accuracy"]
    assert tab.locator(".plot .dot").count() == NIGHTS
    rows = tab.locator(".runs tbody tr")
    assert rows.count() == NIGHTS
    assert rows.first.locator("th").inner_text() == nights[-1]
    shoot(page, "compare_light")
    tab.get_by_label("Metric", exact=True).select_option("train · loss")
    tab.get_by_text("Newest: 0.3").wait_for()
    switch_theme(page.context, dark=True)
    page.reload()
    tab.locator(".plot").wait_for()
    shoot(page, "compare_dark")
    tab.get_by_role("link", name=nights[-1]).focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/dags/nightly/runs/.+/plugin/mlflow-run"))
    tab.get_by_role("heading", name="train", exact=True).wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_pages_fit_a_phone(
    browser: Any, deployment: Deployment, runs: dict[str, str], nights: list[str], airflow: httpx.Client, dark: bool
) -> None:
    """Airflow's own pages need about 800 pixels; below that, a person opens the tab's page by itself."""
    assert ended(airflow, "curves", runs["failed"]) == "failed"
    mode = "dark" if dark else "light"
    with person(browser, deployment.url, "admin", USERS["admin"]) as page:
        page.emulate_media(color_scheme=mode)
        page.set_viewport_size(NARROW)
        page.goto(f"/mlflow_projects/dags/curves/run?run_id={quote(runs['failed'])}")
        page.locator(".sparkline").first.wait_for()
        assert no_sideways_scrolling(page)
        shoot(page, f"run_narrow_{mode}")
        page.goto("/mlflow_projects/dags/nightly/compare")
        page.locator(".plot").wait_for()
        assert no_sideways_scrolling(page)
        shoot(page, f"compare_narrow_{mode}")


def test_the_connection_form_explains_itself_and_its_test_button_works(page: Any, deployment: Deployment) -> None:
    page.goto("/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.locator("[role=dialog][data-state=open]")
    form.locator("input[name=connection_id]").fill("mlflow_form")
    form.locator("input[role=combobox]").fill("MLflow")
    page.keyboard.press("Enter")
    address, _, port = deployment.mlflow_url.rpartition(":")
    form.get_by_placeholder("http://mlflow.example.com").fill(address)
    form.locator("input[name=port]").fill(port)
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    form.get_by_text("What your browser calls the server, if not the tracking URI; for links.").wait_for()
    form.element_handle().wait_for_element_state("stable")
    shoot(page, "connection_form")
    form.get_by_role("button", name="Save").click()
    form.wait_for(state="hidden")
    row = page.get_by_role("row", name=re.compile("mlflow_form"))
    with page.expect_response(lambda answer: answer.url.endswith("/connections/test")) as tested:
        row.get_by_role("button", name="Test Connection").click()
    content = tested.value.json()
    assert content.get("status") is True, content
    assert content["message"].startswith(f"MLflow answers at {deployment.mlflow_url}; ")
    shoot(page, "connection_tested")


def test_an_absent_tracking_server_is_a_message_and_comes_back(
    page: Any, deployment: Deployment, runs: dict[str, str], nights: list[str]
) -> None:
    deployment.proxy.down = True
    try:
        tab = open_tab(page, "curves", runs["failed"])
        notice = tab.get_by_role("alert")
        notice.get_by_text("does not answer").wait_for()
        assert "connection mlflow_default" in notice.inner_text()
        shoot(page, "server_down")
        other = page.context.new_page()
        other.goto("/dags/nightly/plugin/mlflow")
        other_tab = other.frame_locator("iframe[title=MLflow]")
        other_tab.get_by_role("alert").get_by_text("does not answer").wait_for()
    finally:
        deployment.proxy.down = False
    other_tab.get_by_role("button", name="Try again").click()
    other_tab.locator(".plot").wait_for()
    tab.get_by_role("heading", name="training").wait_for()
    assert not notice.is_visible()


def test_a_person_without_permission_sees_nothing_of_a_dags_runs(
    browser: Any, deployment: Deployment, runs: dict[str, str], nights: list[str]
) -> None:
    run = f"run_id={quote(nights[0])}"
    private = ["compare", "compare.json", f"run?{run}", f"run.json?{run}", f"details.json?{run}&mlflow_run_id=abc"]
    with deployment.client("outsider") as outsider:
        for address in private:
            answer = outsider.get(f"/mlflow_projects/dags/nightly/{address}")
            assert answer.status_code == 403, address
            assert "You have no permission" in answer.text
            assert "accuracy" not in answer.text
        # Another DAG's address opens no door to this DAG's runs; nor does a DAG that does not exist.
        for dag_id in ("curves", "~", "%7BDAG_ID%7D"):
            answer = outsider.get(f"/mlflow_projects/dags/{dag_id}/run.json?{run}")
            assert answer.status_code in (403, 404), (dag_id, answer.text)
        stolen = httpx.get(
            f"{deployment.mlflow_url}/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": "nightly"}
        ).json()["experiment"]["experiment_id"]
        found = connect(TrackingSettings(uri=deployment.mlflow_url)).search_runs([stolen], "", limit=1)[0]
        own = f"run_id={quote(runs['failed'])}"
        answer = outsider.get(f"/mlflow_projects/dags/curves/details.json?{own}&mlflow_run_id={found.run_id}")
        assert (answer.status_code, answer.json()) == (404, {"problem": "This DAG run has no such MLflow run."})
        assert outsider.get(f"/mlflow_projects/dags/curves/run.json?{own}").status_code == 200
    nobody = httpx.get(f"{deployment.url}/mlflow_projects/dags/curves/compare.json")
    assert (nobody.status_code, nobody.json()) == (401, {"problem": "Your session has ended."})
    login = httpx.get(f"{deployment.url}/mlflow_projects/dags/curves/compare")
    assert 'href="/auth/login?next=' in login.text
    with person(browser, deployment.url, "outsider", USERS["outsider"]) as page:
        page.goto("/mlflow_projects/dags/nightly/compare")
        page.get_by_text("You have no permission to read the runs of this DAG.").wait_for()
        shoot(page, "no_permission")


def test_the_pages_load_nothing_from_elsewhere_and_hold_no_secret(
    deployment: Deployment, runs: dict[str, str]
) -> None:
    with deployment.client() as http:
        answer = http.get(f"/mlflow_projects/dags/curves/run?run_id={quote(runs['failed'])}")
        assert "default-src 'none'; script-src 'nonce-" in answer.headers["Content-Security-Policy"]
        data = http.get(f"/mlflow_projects/dags/curves/run.json?run_id={quote(runs['failed'])}").text
        assert SECRET not in answer.text + data
        assert http.get("/mlflow_projects/dags/curves/run").status_code == 422
        assert http.get("/mlflow_projects/dags/curves/run.json?run_id=no_such").status_code == 404
        for name in ("page.css", "run.js", "compare.js", "common.js", "plot.js", "theme.js"):
            code = http.get(f"/mlflow_projects/static/{name}").text
            assert not re.search(
                r"innerHTML|insertAdjacentHTML|document\.write|https?://(?!www\.w3\.org/2000/svg)", code
            )


def make_nights(airflow: httpx.Client, mlflow_url: str) -> list[str]:
    client = connect(TrackingSettings(uri=mlflow_url))
    experiment = resolve_experiment(client, "nightly")
    first = datetime.now(timezone.utc).replace(hour=2, minute=0, second=0, microsecond=0) - timedelta(days=NIGHTS)
    made = []
    for night in range(NIGHTS):
        date = first + timedelta(days=night)
        run_id = f"nightly__{date:%Y-%m-%d}"
        body = {"dag_run_id": run_id, "logical_date": date.isoformat(), "run_after": date.isoformat()}
        post(airflow, "/api/v2/dags/nightly/dagRuns", body)
        tags = {
            "airflow.dag_id": "nightly", "airflow.run_id": run_id, "airflow.task_id": "train",
            "airflow.try_number": "1", "mlflow_projects.role": "step",
        }  # fmt: skip
        run = client.create_run(experiment, "train", now(), tags)
        accuracy = 0.71 if night == NIGHTS - 1 else 0.9 + 0.002 * (night * 7 % 9)
        client.log_batch(run.run_id, metrics={"accuracy": accuracy, "loss": 0.3 + 0.005 * (night * 5 % 7)})
        client.update_run(run.run_id, "FINISHED", (run.start_time or 0) + 60_000 + 900 * (night * 3 % 5))
        made.append(run_id)
    client.close()
    wait(lambda: {run["state"] for run in dag_runs(airflow, "nightly")} == {"success"}, "twenty nights")
    return made


def trigger(airflow: httpx.Client, dag_id: str, **conf: Any) -> str:
    return str(post(airflow, f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])


def post(airflow: httpx.Client, path: str, content: dict[str, Any]) -> Any:
    """Post to Airflow's REST API; again if its SQLite database is locked, as happens on a busy machine."""

    def answer() -> httpx.Response | None:
        got = airflow.post(path, json=content)
        return None if got.status_code >= 500 else got

    made = wait(answer, f"an answer to POST {path}")
    assert made.is_success, made.text
    return made.json()


def dags_of(deployment: Deployment) -> set[str]:
    with deployment.client() as http:
        return {dag["dag_id"] for dag in http.get("/api/v2/dags").json()["dags"]}


def dag_runs(airflow: httpx.Client, dag_id: str) -> list[dict[str, Any]]:
    return list(airflow.get(f"/api/v2/dags/{dag_id}/dagRuns").json()["dag_runs"])


def ended(airflow: httpx.Client, dag_id: str, run_id: str) -> str:
    def look() -> str:
        state = str(airflow.get(f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id)}").json()["state"])
        return state if state in ("success", "failed") else ""

    return str(wait(look, f"the end of {dag_id}"))


def open_tab(page: Any, dag_id: str, run_id: str) -> Any:
    """Click the tab on the DAG run's page; return its frame."""
    page.goto(f"/dags/{dag_id}/runs/{quote(run_id)}")
    page.get_by_role("link", name="MLflow", exact=True).click()
    return page.frame_locator("iframe[title=MLflow]")


def cards(tab: Any) -> dict[str, str]:
    tab.locator(".run").first.wait_for()
    return {
        card.locator("h2").inner_text(): card.locator("header .badge").inner_text()
        for card in tab.locator(".run").all()
    }


def table(card: Any, kind: str) -> dict[str, str]:
    return {
        row.locator("th").inner_text(): row.locator("td").first.inner_text()
        for row in card.locator(f"section.{kind} tr").all()
    }


def text_colour(tab: Any) -> tuple[int, ...]:
    found = tab.locator("body").evaluate("body => getComputedStyle(body).color")
    return tuple(int(part) for part in re.findall(r"\d+", found))


def no_sideways_scrolling(tab: Any) -> bool:
    return bool(tab.locator("html").evaluate("page => page.scrollWidth <= page.clientWidth"))
