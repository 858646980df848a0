#!/bin/sh
# The order of the official image's start: a new database gets its password and its scripts before it listens to anybody, and
# with the options that it has afterwards.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  initdb -D "$PGDATA" -U postgres -A scram-sha-256 --pwfile="$POSTGRES_PASSWORD_FILE" -E UTF8 --locale=C > /dev/null
  printf 'host all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
  (shift; pg_ctl -D "$PGDATA" -o "$* -c listen_addresses= -c unix_socket_directories=/var/run/postgresql" -w start)
  for script in /docker-entrypoint-initdb.d/*.sql; do
    PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE") psql -v ON_ERROR_STOP=1 --no-psqlrc -h /var/run/postgresql -U postgres -f "$script"
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
