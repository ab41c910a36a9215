#!/bin/sh
# Run once by the PostgreSQL image on an empty data directory: a role for the gateway that owns one
# database and may do nothing else.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$WATTGATE_DB_PASSWORD" \
  --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
CREATE ROLE wattgate LOGIN PASSWORD :'password';
CREATE DATABASE wattgate OWNER wattgate;
REVOKE CONNECT ON DATABASE wattgate FROM PUBLIC;
SQL
