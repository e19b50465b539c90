"""Record runs the way the MLflow hands-on does: parameters and metrics, then files, then nested runs.

The run that ``mlflow run`` (or Airflow) opened is SampleA itself: no run stands between it and the caller.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow

PARAMETERS = {"Dence": 128, "Dropout": 0.1, "Activation": "relu"}
MSE = (100, 80)
RMSE = (50, 30)


def log_training(parameters: dict[str, object], mse: Sequence[float], rmse: Sequence[float]) -> None:
    """Log parameters, and metrics with one value per step, in the active run."""
    mlflow.log_params(parameters)
    for step, values in enumerate(zip(mse, rmse, strict=True)):
        mlflow.log_metrics(dict(zip(("mse", "rmse"), values, strict=True)), step=step)


def draw(file: Path) -> None:
    """Draw both metrics over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    axes.plot(MSE, marker="o", label="mse")
    axes.plot(RMSE, marker="s", label="rmse")
    axes.set(title="SampleA", xlabel="step", ylabel="error", xticks=range(len(MSE)))
    axes.legend()
    figure.savefig(file)


def step2() -> None:
    """Record a tag, parameters and metrics."""
    mlflow.set_tag("tagA", "hoge")
    log_training(PARAMETERS, MSE, RMSE)


def step3() -> None:
    """Record what step2 does, and three files."""
    step2()
    mlflow.log_text("Hello world", "file1.txt")
    mlflow.log_dict({"var1": 1.0, "var2": "fugafuga"}, "file2.json")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "sample.png"
        draw(picture)
        mlflow.log_artifact(str(picture))


def step4() -> None:
    """Record two runs below this one."""
    mlflow.set_tag("parentTagA", "hoge")
    with mlflow.start_run(run_name="ChildrenSampleB", nested=True):
        mlflow.set_tag("childrenTagA", "fuga")
        log_training(PARAMETERS, MSE, RMSE)
    with mlflow.start_run(run_name="ChildrenSampleC", nested=True):
        mlflow.set_tag("childrenTagA", "hogehoge")
        log_training({"Dence": 256, "Dropout": 0.3, "Activation": "relu"}, mse=(120, 60), rmse=(70, 10))


STEPS = {"step2": step2, "step3": step3, "step4": step4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=STEPS)
    step = parser.parse_args().step
    with mlflow.start_run():
        # start_run(run_name=...) would leave the name of a run that the caller opened.
        mlflow.set_tag("mlflow.runName", "SampleA")
        STEPS[step]()
    print(f"Recorded {step} as SampleA.")


if __name__ == "__main__":
    main()
