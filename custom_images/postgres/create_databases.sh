# PostgreSQL's image runs this once, when its volume is empty: each part gets a database and a user of its own.
# The passwords go through stdin, so that no process list shows them.
for part in airflow celery mlflow; do
  case $part in
    airflow) password=$AIRFLOW_DB_PASSWORD ;;
    celery) password=$CELERY_DB_PASSWORD ;;
    mlflow) password=$MLFLOW_DB_PASSWORD ;;
  esac
  psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<SQL
CREATE USER $part PASSWORD '$password';
CREATE DATABASE $part OWNER $part;
REVOKE CONNECT ON DATABASE $part FROM PUBLIC;
SQL
done
