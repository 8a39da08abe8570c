#!/bin/sh
# Starts the database, fills it once, and becomes the web server.
set -eu
mkdir -p /run/mysqld
chown mysql:mysql /run/mysqld
mariadbd-safe --user=mysql >/dev/null &
until mariadb-admin ping --silent; do sleep 0.2; done
mariadb <<EOF
CREATE DATABASE IF NOT EXISTS visits;
CREATE TABLE IF NOT EXISTS visits.log (id INT AUTO_INCREMENT PRIMARY KEY, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE USER IF NOT EXISTS 'www-data'@localhost IDENTIFIED VIA unix_socket;
GRANT ALL ON visits.* TO 'www-data'@localhost;
EOF
set +u # it uses what may not be set
. /etc/apache2/envvars
mkdir -p "$APACHE_RUN_DIR" "$APACHE_LOCK_DIR"
exec apache2 -D FOREGROUND
