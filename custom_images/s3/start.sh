#!/bin/sh
# Start SeaweedFS with three users: the administrator, and MLflow and Airflow with their own buckets only.
set -eu
umask 077
rights() {
  for bucket in "$@"; do
    printf '"Read:%s", "Write:%s", "List:%s", "Tagging:%s", ' "$bucket" "$bucket" "$bucket" "$bucket"
  done | sed 's/, $//'
}
identity() {
  printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [%s]}' "$1" "$1" "$2" "$3"
}
{
  printf '{"identities": ['
  identity "$S3_ACCESS_KEY" "$S3_SECRET_KEY" '"Admin", "Read", "Write", "List", "Tagging"'
  printf ','
  identity mlflow "$MLFLOW_S3_SECRET_KEY" "$(rights mlflow)"
  printf ','
  identity airflow "$AIRFLOW_S3_SECRET_KEY" "$(rights airflow-logs airflow-checkpoints)"
  printf ']}\n'
} > /tmp/s3.json
unset S3_ACCESS_KEY S3_SECRET_KEY MLFLOW_S3_SECRET_KEY AIRFLOW_S3_SECRET_KEY
exec weed server -dir=/data -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false \
  -volume.max=100 -master.volumeSizeLimitMB="${S3_VOLUME_MB:-1024}" \
  -s3 -s3.ip.bind=0.0.0.0 -s3.port=8333 -s3.config=/tmp/s3.json -s3.iam=false -s3.autoCreateBucket=false \
  -s3.port.iceberg=0 -s3.port.lance=0
