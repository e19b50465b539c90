# What the official image's entry point does: make the database and its user once, then become mysql and run.
set -eu
if [ "$(id -u)" = 0 ]; then
  chown mysql:mysql /var/lib/mysql
  exec setpriv --reuid=mysql --regid=mysql --init-groups sh "$0" "$@"
fi
if [ ! -d /var/lib/mysql/mysql ]; then
  mariadb-install-db --skip-test-db --auth-root-authentication-method=socket >/dev/null
  mariadbd --bootstrap <<SQL
FLUSH PRIVILEGES;
CREATE DATABASE \`$MYSQL_DATABASE\`;
CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';
GRANT ALL ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';
SQL
fi
exec mariadbd --bind-address=0.0.0.0
