"""Train an ElasticNet on the red wines; log its errors and the model with its signature."""

import argparse
import math
from importlib.metadata import version

import mlflow
import mlflow.sklearn
import numpy as np
import wine_data
from mlflow.models import infer_signature
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from sklearn.model_selection import train_test_split

SPLIT_SEED = 40
MODEL_SEED = 42
# Named, so that MLflow need not load the model once more, in another process, to find them out.
MODEL_NEEDS = [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas", "scipy", "scikit-learn")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpha", type=float, default=0.5, help="strength of the penalty, 0 or more")
    parser.add_argument("--l1-ratio", type=float, default=0.1, help="share of the L1 penalty, 0 to 1")
    parser.add_argument("--data", default="", help="a CSV file or its URL; default: the 1599 red wines")
    parser.add_argument("--register-as", default="", help="registered model that gets a new version; default: none")
    arguments = parser.parse_args()
    if not (math.isfinite(arguments.alpha) and arguments.alpha >= 0):
        parser.error(f"--alpha must be 0 or more, not {arguments.alpha}")
    if not 0 <= arguments.l1_ratio <= 1:
        parser.error(f"--l1-ratio must be from 0 to 1, not {arguments.l1_ratio}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    wines = wine_data.load(arguments.data)
    if wine_data.QUALITY not in wines:
        raise SystemExit(f"The wine data {arguments.data} lacks the column {wine_data.QUALITY}: nothing to learn.")
    # The generator of before NumPy 1.17, seeded: it is what the known figures were made with.
    train, test = train_test_split(wines, random_state=np.random.RandomState(SPLIT_SEED))
    measured, quality = train[list(wine_data.COLUMNS)], train[wine_data.QUALITY]
    with mlflow.start_run():
        model = ElasticNet(alpha=arguments.alpha, l1_ratio=arguments.l1_ratio, random_state=MODEL_SEED)
        model.fit(measured, quality)
        predicted = model.predict(test[list(wine_data.COLUMNS)])
        expected = test[wine_data.QUALITY]
        metrics = {
            "rmse": math.sqrt(mean_squared_error(expected, predicted)),
            "mae": mean_absolute_error(expected, predicted),
            "r2": r2_score(expected, predicted),
        }
        mlflow.log_params({"alpha": arguments.alpha, "l1_ratio": arguments.l1_ratio})
        mlflow.log_metrics(metrics)
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(measured, model.predict(measured)),
            input_example=measured.head(2),
            pip_requirements=MODEL_NEEDS,
            registered_model_name=arguments.register_as or None,
        )
    print(f"{len(train)} wines to learn from, {len(test)} to test: {metrics}")


if __name__ == "__main__":
    main()
