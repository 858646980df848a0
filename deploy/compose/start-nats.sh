#!/bin/sh
# Starts NATS, and has it read its files again when admin lets agents in, or the secrets or its certificate change.
set -eu
here=/tmp/nats
mkdir -p "$here"
gather() {
  cp /run/secrets/nats.conf /run/secrets/accounts.conf /agents/agents.conf "$here"
}
stamp() {
  # Without mtls.yaml there is no certificate.
  cat /run/secrets/nats.conf /run/secrets/accounts.conf /agents/agents.conf /etc/nats/tls/* 2>/dev/null | cksum
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
