"""Run the stand-in: ``python -m sagemaker_local``."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sagemaker_local.options import Knobs

_NEEDED = ("moto", "flask", "flask_cors", "werkzeug", "boto3")
_REMEDY = "pip install 'mlflow-projects-on-airflow[sagemaker-local]'"
_ENGINES = ("docker", "podman")


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or Ctrl-C."""
    arguments = _parser().parse_args(argv)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return _complain(f"{missing[0]} is not installed; {_REMEDY}")
    engine = ""
    if arguments.containers:
        engine = _find_engine(arguments.engine)
        if not engine:
            tried = arguments.engine or " or ".join(_ENGINES)
            return _complain(f"--containers needs a container engine, and {tried} does not answer.")
    from sagemaker_local.server import serve

    home = arguments.home or Path(tempfile.mkdtemp(prefix="sagemaker-local-"))
    knobs = Knobs(
        home=home.resolve(),
        region=arguments.region,
        start_seconds=arguments.start_seconds,
        grace=arguments.grace,
        interruption_grace=arguments.interruption_grace,
        restart_seconds=arguments.restart_seconds,
        checkpoint_seconds=arguments.checkpoint_seconds,
        poll_seconds=arguments.poll_seconds,
        log_delay=arguments.log_delay,
        engine=engine,
        private_opt_ml=not arguments.base_dir,
        keep=arguments.keep,
        missing_images=tuple(arguments.missing_image),
        passed_variables=tuple(arguments.pass_variable),
    )
    try:
        return serve(knobs, arguments.host, arguments.port, arguments.ready_file, arguments.allow_host)
    finally:
        if not arguments.home and not arguments.keep:
            shutil.rmtree(home, ignore_errors=True)


def _complain(sentence: str) -> int:
    sys.stderr.write(f"sagemaker-local: {sentence}\n")
    return 1


def _find_engine(wanted: str) -> str:
    for engine in [wanted] if wanted else _ENGINES:
        if shutil.which(engine):
            done = subprocess.run(
                [engine, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )
            if done.returncode == 0:
                return engine
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sagemaker_local",
        description="A stand-in for Amazon SageMaker that runs training jobs on this machine.",
        epilog="It does not show AWS itself: no IAM permissions, VPC, GPU, spot prices, warm pools, quotas. "
        "Jobs are commands that run as you: do not let others reach the port.",
    )
    defaults = Knobs(home=Path())
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=4599, help="0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name by which it is reached, such as a container's; repeatable (others are refused)",
    )
    parser.add_argument("--home", type=Path, help="folder for the jobs' files (default: a temporary one)")
    parser.add_argument("--region", default=defaults.region, help="default: %(default)s")
    parser.add_argument("--ready-file", type=Path, help="write URL and variables there as JSON when ready")
    parser.add_argument(
        "--base-dir", action="store_true", help="give jobs SAGEMAKER_BASE_DIR even where /opt/ml can be had"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folders of ended jobs")
    parser.add_argument("--containers", action="store_true", help="run jobs as containers of their TrainingImage")
    parser.add_argument("--engine", choices=_ENGINES, default="", help="default: the first that answers")
    parser.add_argument(
        "--missing-image",
        action="append",
        default=[],
        metavar="NAME",
        help="images that cannot be pulled; repeatable",
    )
    parser.add_argument(
        "--pass-variable",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable of this environment that jobs get too, such as HTTPS_PROXY; repeatable",
    )
    for name, text in (
        ("start-seconds", "from the request to the instances' start"),
        ("grace", "from SIGTERM to SIGKILL when a job is stopped"),
        ("interruption-grace", "the same for a spot interruption"),
        ("restart-seconds", "from a spot interruption to the new start"),
        ("checkpoint-seconds", "how often checkpoints go to S3"),
        ("poll-seconds", "how often a running job is looked at"),
        ("log-delay", "by how much lines come late to CloudWatch"),
    ):
        default = getattr(defaults, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=float, default=default, metavar="SECONDS", help=f"{text} (default: {default:g})"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
