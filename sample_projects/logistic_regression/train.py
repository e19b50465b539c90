"""Fit a logistic regression to six points; log its score and the model."""

from importlib.metadata import version

import mlflow
import mlflow.sklearn
import numpy as np
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

# Named, so that MLflow need not load the model once more, in another process, to find them out.
MODEL_NEEDS = [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "scipy", "scikit-learn")]


def main() -> None:
    points = np.array([-2, -1, 0, 1, 2, 1]).reshape(-1, 1)
    classes = np.array([0, 0, 1, 1, 1, 0])
    with mlflow.start_run():
        model = LogisticRegression().fit(points, classes)
        score = model.score(points, classes)
        mlflow.log_params({"C": model.C, "solver": model.solver})
        mlflow.log_metric("score", score)
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(points, model.predict(points)),
            pip_requirements=MODEL_NEEDS,
        )
    print(f"Score: {score}")


if __name__ == "__main__":
    main()
