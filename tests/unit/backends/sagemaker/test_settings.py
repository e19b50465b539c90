"""backend_config: text from templates becomes what it should be; each mistake has its sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.backends.sagemaker.settings import CONFIG_KEYS, SageMakerSettings, settings_from
from mlflow_projects.exceptions import ProjectError

NEEDED = {"role": "arn:aws:iam::123456789012:role/mlflow", "s3_uri": "s3://bucket/prefix"}
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tracking-AbCdEf"


def test_defaults_text_and_foreign_keys() -> None:
    given = settings_from({**NEEDED, "grace_seconds": 3, "instance_type": None, "image_uri": ""})
    assert given == SageMakerSettings(**NEEDED)
    assert (given.instance_type, given.max_run, given.deadline_seconds) == ("ml.m5.large", 86400, 90000)
    text = {"instance_count": "2", "max_run": "10", "max_wait": " 20 ", "max_queue_seconds": "30"}
    flags = {"use_spot_instances": "True", "install_requirements": "1", "enable_network_isolation": "false"}
    given = settings_from({**NEEDED, **text, **flags, "encrypt_inter_container_traffic": 0})
    assert (given.instance_count, given.max_run, given.max_wait) == (2, 10, 20)
    assert given.deadline_seconds == 50, "the longer one of max_run and max_wait, and the queue"
    assert (given.use_spot_instances, given.install_requirements) == (True, True)
    assert (given.enable_network_isolation, given.encrypt_inter_container_traffic) == (False, False)


def test_mappings_and_lists() -> None:
    given = settings_from(
        {
            **NEEDED,
            "subnets": ("subnet-1",),
            "security_group_ids": ["sg-1"],
            "environment": {"EPOCHS": 3},
            "tags": {"team": "wine"},
            "image_uri": {"framework": "pytorch", "version": "2.6"},
            "channels": {"data": "s3://b/data", "big": {"InputMode": "FastFile"}},
            "secret_environment": {"A": SECRET, "B": f"{SECRET}:password", "C": f"{SECRET}:key:AWSCURRENT:v1",
                                   "D": SECRET.replace("arn:aws:", "arn:aws-cn:")},
            "overrides": {"Environment": None},
        }
    )  # fmt: skip
    assert (given.subnets, given.security_group_ids) == (["subnet-1"], ["sg-1"])
    assert given.environment == {"EPOCHS": "3"}
    assert given.image_uri == {"framework": "pytorch", "version": "2.6"}
    assert given.channels["big"] == {"InputMode": "FastFile"}
    assert given.overrides == {"Environment": None}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no role": ({"role": ""}, "needs 'role', for example 'arn:aws:iam::123456789012:role/mlflow'"),
    "no s3_uri": ({"s3_uri": None}, r"needs 's3_uri', .*or, for all tasks, in Airflow's option"),
    "s3_uri": ({"s3_uri": "bucket/prefix"}, "'s3_uri' must be like s3://bucket/prefix, not 'bucket/prefix'"),
    "a bucket": ({"s3_uri": "s3://My_Bucket"}, "'s3_uri' must be like s3://bucket/prefix"),
    "checkpoints": ({"checkpoint_s3_uri": "/tmp/c"}, "'checkpoint_s3_uri' must be like s3://"),
    "text": ({"max_run": "1 day"}, "'max_run' must be a whole number, not '1 day'"),
    "half": ({"instance_count": 1.5}, "'instance_count' must be a whole number, not 1.5"),
    "a bool": ({"volume_size": True}, "'volume_size' must be a whole number, not True"),
    "negative": ({"max_run": "-1"}, "'max_run' must be a whole number, 0 or more, not '-1'"),
    "yes": ({"use_spot_instances": "yes"}, "'use_spot_instances' must be true or false, not 'yes'"),
    "no list": ({"subnets": "subnet-1"}, "'subnets' must be a list, not 'subnet-1'"),
    "no mapping": ({"environment": "A=1"}, "'environment' must be a mapping, not 'A=1'"),
    "no mapping either": ({"overrides": ["x"]}, "'overrides' must be a mapping"),
    "spot": ({"use_spot_instances": True}, r"'max_wait' \(0 s\) must be at least 'max_run' \(86400 s\)"),
    "subnets only": ({"subnets": ["subnet-1"]}, "'subnets' and 'security_group_ids' belong together"),
    "groups only": ({"security_group_ids": ["sg-1"]}, "'subnets' and 'security_group_ids' belong together"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    config, sentence = MISTAKES[name]
    with pytest.raises(ProjectError, match=sentence):
        settings_from({**NEEDED, **config})


@pytest.mark.parametrize(
    "value", ["hunter2", "arn:aws:s3:::bucket", "arn:aws:secretsmanager:eu-west-1:12:secret:x", f"{SECRET}:a:b:c:d"]
)
def test_a_secret_as_text_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ProjectError, match=r"'secret_environment\.TOKEN' must be the ARN") as caught:
        settings_from({**NEEDED, "secret_environment": {"TOKEN": value}})
    assert value not in str(caught.value)


def test_every_key_can_be_set_and_is_documented() -> None:
    assert len(CONFIG_KEYS) == len(set(CONFIG_KEYS))
    page = (Path(__file__).resolve().parents[4] / "docs" / "sagemaker.md").read_text(encoding="utf-8")
    assert [name for name in CONFIG_KEYS if f"| `{name}`" not in page] == []
