"""Run the DAG ``aws_check`` on AWS, in the home of ``make demo``; see tests/aws/README.md.

Usage: .venv/bin/python tests/aws/run.py --role ARN --s3-uri s3://BUCKET/PREFIX [--region REGION] [--image URI]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from demo import run  # noqa: E402
from home import environment  # noqa: E402

# AWS's own, of the region; whatever has python3 will do.
IMAGE = "763104351884.dkr.ecr.{region}.amazonaws.com/pytorch:2.14.0-cpu-amzn2023-sagemaker"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", required=True, help="ARN of the IAM role of the jobs")
    parser.add_argument("--s3-uri", required=True, help="s3://bucket/prefix for what the jobs read and write")
    parser.add_argument("--region", default=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"))
    parser.add_argument("--image", default=IMAGE, help="of the jobs, with python3")
    options = parser.parse_args()
    if not options.role or not options.s3_uri:
        parser.error("say which role and which bucket: make aws-check ROLE=arn:… S3_URI=s3://bucket/prefix")
    if not options.region:
        parser.error("no AWS region is set; give --region or set AWS_REGION.")
    settings = {
        "role": options.role,
        "s3_uri": options.s3_uri,
        "region_name": options.region,
        "image_uri": options.image.format(region=options.region),
    }
    os.environ["DAG"] = "aws_check"
    os.environ.pop("CONF", None)
    return run(
        {
            **environment(),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "tests" / "aws" / "dags"),
            "AIRFLOW__MLFLOW_PROJECTS__SAGEMAKER": json.dumps(settings),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
