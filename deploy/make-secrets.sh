#!/bin/sh
# Makes ./secrets (or the folder given): one file per secret, each only where it is missing. The folder is yours alone;
# the files are readable because the containers' users are not you. smtp_url and Stripe's two are yours to fill in.
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
put() { [ -s "$folder/$1" ] || printf '%s' "$2" > "$folder/$1"; chmod 0444 "$folder/$1"; }
url() { printf 'postgresql+psycopg://%s:%s@postgres/%s' "$1" "$2" "$3"; }

put secret_key "k1:$(random)"
put postgres_password "$(random)"
put database_url_bootstrap "$(url postgres "$(cat "$folder/postgres_password")" postgres)"
put database_url "$(url app_rw "$(random)" livery)"
put database_url_platform "$(url platform_rw "$(random)" livery)"
put database_url_queue "$(url queue_rw "$(random)" livery)"
put database_url_migrate "$(url migrate "$(random)" livery)"
for name in smtp_url stripe_secret_key stripe_connect_webhook_secret; do
  [ -e "$folder/$name" ] || : > "$folder/$name"
  chmod 0644 "$folder/$name"
done
