"""Write a text several times to a file and log that file as an artifact."""

import argparse
import tempfile
from pathlib import Path

import mlflow


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True, help="the text to write")
    parser.add_argument("--num", required=True, type=int, help="how often to write it, at least once")
    arguments = parser.parse_args()
    if arguments.num < 1:
        parser.error(f"--num must be 1 or more, not {arguments.num}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "echo.txt"
        with file.open("w", encoding="utf-8") as stream:
            for _ in range(arguments.num):
                stream.write(f"{arguments.text}\n")
        size = file.stat().st_size
        lines = arguments.num * (arguments.text.count("\n") + 1)
        mlflow.log_artifact(str(file), "downstream")
        mlflow.log_metrics({"lines": lines, "bytes": size})
        print(f"Wrote {lines} line(s), {size} bytes.")


if __name__ == "__main__":
    main()
