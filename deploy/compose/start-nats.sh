#!/bin/sh
# Starts NATS, and has it read its files again when admin lets agents in or the secrets change.
set -eu
here=/tmp/nats
mkdir -p "$here"
gather() {
  cp /run/secrets/nats.conf /run/secrets/accounts.conf /agents/agents.conf "$here"
}
stamp() {
  cksum /run/secrets/nats.conf /run/secrets/accounts.conf /agents/agents.conf
}
gather
seen=$(stamp)
nats-server -c "$here/nats.conf" &
server=$!
trap 'kill -TERM "$server" 2>/dev/null' TERM INT
while kill -0 "$server" 2>/dev/null; do
  sleep 1 &
  wait $! || true # a signal ends the wait, not the loop
  now=$(stamp)
  if [ "$now" != "$seen" ]; then
    seen=$now
    gather
    kill -HUP "$server"
  fi
done
wait "$server"
