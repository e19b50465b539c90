"""The web app behind the tabs. Only Airflow's API server imports this module.

Airflow mounts a plugin's app without any protection of its own: every route with data asks Airflow's auth manager
whether the user may read the runs of that DAG, and shows nothing of another DAG.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from mlflow_projects.hooks.closing_queue import waiting_dag_runs
from mlflow_projects.tracking.client import TrackingClient
from mlflow_projects.ui import pages, reading, waiting, webhook
from mlflow_projects.ui.sources import DagRunRecord, PageProblem, connection_ids, last_dag_runs

COMPARED_DAG_RUNS = 20

_STATIC = Path(__file__).parent / "static"
# Every page lives at dags/…/…, two levels below the app.
_STATIC_FROM_PAGE = "../../static/"
_SENTENCES = {
    401: "Your session has ended.",
    403: "You have no permission to read the runs of this DAG.",
    404: "There is no such page.",
    422: "This address is incomplete.",
}

_WAITS = (
    "What is still open here is about to be closed: Airflow's triggerer asks the tracking server until it is done."
)

# The dependency looks for a path parameter of exactly this name: dag_id.
router = APIRouter(prefix="/dags/{dag_id}", dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))])


def build_app() -> FastAPI:
    """Return the app; it holds no state."""
    app = FastAPI(title="MLflow Projects", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(router)
    app.include_router(webhook.router)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(PageProblem, _problem)
    return app


@router.get("/run", response_class=HTMLResponse)
async def run_page(dag_id: str, run_id: str = Query(max_length=250)) -> Response:
    """Return the page of a DAG run."""
    html, headers = pages.page("run", "MLflow runs", _STATIC_FROM_PAGE, dag_id=dag_id, run_id=run_id)
    return HTMLResponse(html, headers=headers)


@router.get("/compare", response_class=HTMLResponse)
async def compare_page(dag_id: str) -> Response:
    """Return the page of a DAG."""
    html, headers = pages.page("compare", "MLflow metrics", _STATIC_FROM_PAGE, dag_id=dag_id)
    return HTMLResponse(html, headers=headers)


@router.get("/run.json")
async def run_data(request: Request, dag_id: str, run_id: str = Query(max_length=250)) -> Response:
    """Return the MLflow runs of a DAG run."""
    dag_run = await run_in_threadpool(_dag_run, dag_id, run_id)
    described = {"state": dag_run.state, "start": dag_run.start, "end": dag_run.end, "ended": dag_run.ended}
    waits = dag_run.ended and await run_in_threadpool(_waits, dag_id, run_id)

    def look(client: TrackingClient) -> dict[str, Any]:
        return {"dag_run": described, **reading.tree(client, dag_id, dag_run)}

    return await _read(request, dag_id, [run_id], look, [_WAITS] if waits else [])


@router.get("/details.json")
async def details_data(
    request: Request,
    dag_id: str,
    run_id: str = Query(max_length=250),
    mlflow_run_id: str = Query(pattern=r"^[\w-]{1,64}$"),
) -> Response:
    """Return files and metric histories of one MLflow run of a DAG run."""
    await run_in_threadpool(_dag_run, dag_id, run_id)
    return await _read(
        request, dag_id, [run_id], lambda client: reading.details(client, dag_id, run_id, mlflow_run_id)
    )


@router.get("/compare.json")
async def compare_data(request: Request, dag_id: str) -> Response:
    """Return the metrics of the DAG's last runs."""
    dag_runs = await run_in_threadpool(last_dag_runs, dag_id, limit=COMPARED_DAG_RUNS)
    run_ids = [dag_run.run_id for dag_run in dag_runs]
    return await _read(request, dag_id, run_ids, lambda client: reading.comparison(client, dag_id, dag_runs))


def _dag_run(dag_id: str, run_id: str) -> DagRunRecord:
    found = last_dag_runs(dag_id, limit=1, run_id=run_id)
    if not found:
        raise PageProblem("There is no such DAG run.", 404)
    return found[0]


def _waits(dag_id: str, run_id: str) -> bool:
    """Tell whether a triggerer is about to close what is open of a DAG run."""
    return any((one.dag_id, one.run_id) == (dag_id, run_id) for one in waiting_dag_runs() if not one.given_up)


async def _read(
    request: Request,
    dag_id: str,
    run_ids: list[str],
    look: Callable[[TrackingClient], dict[str, Any]],
    more: Sequence[str] = (),
) -> Response:
    connection, *others = await run_in_threadpool(connection_ids, dag_id, run_ids)

    def answer(client: TrackingClient) -> Response:
        content = look(client)
        notes = [f"Steps also used the connection {name}; its runs are not shown." for name in others]
        content |= {"connection": connection, "notes": [*more, *content["notes"], *notes]}
        return JSONResponse(content, headers={"Cache-Control": "no-store"})

    return await waiting.read(request, connection, answer)


def _refused(request: Request, error: Exception) -> Response:
    """Answer 401, 403 and the like: JSON to a script, a page to a person."""
    status = error.status_code if isinstance(error, HTTPException) else 422
    sentence = _SENTENCES.get(status, "This cannot be shown.")
    if request.url.path.endswith(".json"):
        return JSONResponse({"problem": sentence}, status)
    here = f"{request.url.path}?{request.url.query}"
    login = get_auth_manager().get_url_login(next_url=here) if status == 401 else ""
    html, headers = pages.notice(sentence, _STATIC_FROM_PAGE, login)
    return HTMLResponse(html, status, headers)


def _problem(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return JSONResponse({"problem": str(error)}, error.status if isinstance(error, PageProblem) else 500)
