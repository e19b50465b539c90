"""Say who of this month's customers will leave; log them as a CSV file."""

import argparse

import customers
import mlflow
import mlflow.pyfunc
from mlflow.models import get_model_info

THIS_MONTH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-uri", required=True, help="models:/name@alias or models:/name/version")
    parser.add_argument("--customers", type=int, default=500)
    arguments = parser.parse_args()
    month = customers.make(arguments.customers, THIS_MONTH)[list(customers.COLUMNS)]
    with mlflow.start_run():
        # An alias moves: the record says which model it was.
        mlflow.set_tag("churn.model_run_id", get_model_info(arguments.model_uri).run_id)
        leaving = mlflow.pyfunc.load_model(arguments.model_uri).predict(month)
        mlflow.log_metrics({"customers": len(month), "leaving": int(leaving.sum())})
        mlflow.log_text(month.assign(leaving=leaving).to_csv(index=False), "leaving.csv")
    print(f"{int(leaving.sum())} of {len(month)} customers will leave.")


if __name__ == "__main__":
    main()
