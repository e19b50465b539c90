"""Learn who leaves; log the model, and what it says of customers that it has not seen."""

import argparse
from importlib.metadata import version

import customers
import mlflow
import mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

AT_LEAST = 100
SEED = 7
# Named, so that MLflow need not load the model once more, in another process, to find them out.
MODEL_NEEDS = [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas", "scipy", "scikit-learn")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=2000, help=f"how many to make up, at least {AT_LEAST}")
    parser.add_argument("--freedom", type=float, default=1.0, help="C of the logistic regression, above 0")
    arguments = parser.parse_args()
    if arguments.customers < AT_LEAST:
        raise SystemExit(f"{arguments.customers} customers are too few to learn from: give at least {AT_LEAST}.")
    known = customers.make(arguments.customers, SEED)
    learn, test = train_test_split(known, test_size=0.3, random_state=SEED, stratify=known[customers.LEFT])
    columns = list(customers.COLUMNS)
    with mlflow.start_run():
        model = make_pipeline(StandardScaler(), LogisticRegression(C=arguments.freedom))
        model.fit(learn[columns], learn[customers.LEFT])
        mlflow.log_metric("train_accuracy", model.score(learn[columns], learn[customers.LEFT]))
        unseen = test[[customers.LEFT]].assign(said=model.predict_proba(test[columns])[:, 1])
        mlflow.log_text(unseen.to_csv(index=False), "unseen.csv")
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(learn[columns], model.predict(learn[columns])),
            pip_requirements=MODEL_NEEDS,
        )
    print(f"{len(learn)} customers to learn from, {len(test)} unseen.")


if __name__ == "__main__":
    main()
