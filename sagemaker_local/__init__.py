"""An executing stand-in for Amazon SageMaker training jobs, for laptops and tests.

``python -m sagemaker_local`` serves S3, STS, CloudWatch Logs, Secrets Manager, ECR and IAM from moto, and runs
training jobs for real: requests are checked against SageMaker's own model, channels are downloaded, the entry point
runs as a process with a private ``/opt/ml`` (or as a container), its output goes to CloudWatch Logs, its results to
S3, and Stop, time limits, spot interruptions and failures do what AWS documents.

It does not show AWS itself: no IAM permissions, no VPC, no GPU or instance type, no spot prices or capacity, no
warm pools, no encryption, no quotas, no start-up times. What passes here has not been seen on AWS.

The rooms: ``wire`` reads and answers requests, ``control`` is the endpoint for tests, ``api`` the operations of
SageMaker, ``rules`` what it refuses, ``jobs`` a job's record, ``lifecycle`` what happens to it, ``machine`` and
``instance`` the processes, ``storage`` the way to S3 and the logs, ``server`` puts them together.
"""
