#!/bin/sh
# Start the MLflow server with users and passwords. Its secrets come in variables and stay out of the command line.
set -eu
umask 077
cat > "$HOME/basic_auth.ini" <<END
[mlflow]
default_permission = READ
database_uri = ${MLFLOW_USERS_STORE_URI}
auth_cache_ttl_seconds = 60
END
export MLFLOW_AUTH_CONFIG_PATH="$HOME/basic_auth.ini"
unset MLFLOW_USERS_STORE_URI
exec mlflow server --host 0.0.0.0 --port 5000 --workers 2 --app-name basic-auth \
  --uvicorn-opts "--timeout-worker-healthcheck 120" \
  --serve-artifacts --artifacts-destination "$MLFLOW_ARTIFACTS"
