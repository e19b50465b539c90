"""Runs an MLflow Project's command in the container of a SageMaker training job.

The worker puts this folder on S3 as one file that Python runs (zipapp), ``spec.json`` beside it, and names ``python3
/opt/ml/input/data/job/runner.pyz`` as the container's entry point. AWS's own start-up code is left out on purpose: it
does not forward SIGTERM, so a stopped job would lose its last checkpoint. Python 3.8 or newer and its standard
library are enough; boto3 is wanted only for secrets, mlflow only for inputs.

``spec.json`` holds ``version`` (1), ``command`` (for ``bash -c``) and, all optional:

- ``sha256``: of the project's archive
- ``inputs``: ``{"token", "uri"}`` each; the URI is downloaded, its quoted path takes the token's place
- ``environment``: variables of the command
- ``secret_environment``: variables whose values are in AWS Secrets Manager, by ARN as Amazon ECS writes them
- ``install``: arguments for ``pip install``, into an environment that also sees the image's packages
- ``run_id``, ``experiment_id``: the attempt's MLflow run; on several instances the first one alone logs to it
- ``restarts``: whether the platform may start this job again after it stopped it

The exit status is the command's own, 128 + n after signal n. What fails before the command starts has another:
70 a mistake of the runner, 71 spec.json, 72 the archive, 73 a secret, 74 an input, 75 the packages, 76 the command
cannot be started; 143 (SIGTERM) or 130 (SIGINT) if the job was stopped by then. Whatever fails is told in
``/opt/ml/output/failure``, which SageMaker shows as FailureReason.
"""
