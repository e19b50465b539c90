"""The steps of four_steps.py, imported by `mlflow-projects import`.

- No step gets the option commit.
"""

from pathlib import Path

from airflow.sdk import DAG, Param
from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECT = Path(__file__).resolve().parents[1] / "drivers"

with DAG(
    "four_steps",
    schedule=None,
    params={
        "data": Param(
            "small",
            type="string",
            title="Data",
            description="small or large",
        ),
        "data_downstream": Param("./data/raw/", type="string", title="Data downstream"),
        "cached_id": Param(
            "",
            type="string",
            title="Cached id",
            description="an earlier run",
        ),
        "train_downstream": Param(
            "./data/model/",
            type="string",
            title="Train downstream",
        ),
        "tensorboard": Param("./data/board/", type="string", title="Tensorboard"),
        "epochs": Param(
            1,
            type="integer",
            title="Epochs",
            description="how often all is seen",
        ),
        "batch_size": Param(32, type="integer", title="Batch size"),
        "workers": Param(4, type="integer", title="Workers"),
        "learning_rate": Param(0.001, type="number", title="Learning rate"),
        "network": Param(
            "plain",
            type="string",
            enum=["plain", "deep", "wide"],
            title="Network",
            description="which network",
        ),
        "dockerfile": Param("./Dockerfile", type="string", title="Dockerfile"),
        "model_file": Param("model_0.onnx", type="string", title="Model file"),
        "report_downstream": Param(
            "./data/report/",
            type="string",
            title="Report downstream",
        ),
    },
    doc_md=__doc__,
):
    with mlflow_run("four_steps"):
        step = MLflowProjectOperator(
            task_id="step",
            uri=f"{PROJECT}/step",
            parameters={
                "data": "{{ params.data }}",
                "to": "{{ params.data_downstream }}",
                "cached": "{{ params.cached_id }}",
            },
            env_manager="local",
        )
        train = MLflowProjectOperator(
            task_id="train",
            uri=f"{PROJECT}/step",
            entry_point="train",
            parameters={
                "data": step.artifact("raw"),
                "to": "{{ params.train_downstream }}",
                "board": "{{ params.tensorboard }}",
                "epochs": "{{ params.epochs }}",
                "batch_size": "{{ params.batch_size }}",
                "workers": "{{ params.workers }}",
                "rate": "{{ params.learning_rate }}",
                "network": "{{ params.network }}",
            },
            env_manager="local",
        )
        build = MLflowProjectOperator(
            task_id="build",
            uri=f"{PROJECT}/step",
            parameters={
                "data": f"{train.artifact()}/" + "{{ params.model_file }}",
                "file": train.artifact("model.json"),
                "dockerfile": "{{ params.dockerfile }}",
            },
            env_manager="local",
        )
        report = MLflowProjectOperator(
            task_id="report",
            uri=f"{PROJECT}/step",
            parameters={
                "data": step.artifact("raw/test"),
                "of": "{{ ti.xcom_pull('four_steps.build')['run_id'] }}",
                "to": "{{ params.report_downstream }}",
            },
            env_manager="local",
        )
        step >> train >> build >> report
