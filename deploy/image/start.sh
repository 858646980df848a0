#!/bin/sh
# What a container runs: the service that its image was built for, or whatever else `forebay` is told.
set -eu
if [ "$#" = 0 ]; then
  if [ "$FOREBAY_IMAGE" = demo ]; then exec /opt/forebay/bin/python /opt/forebay/demo.py; fi
  set -- run "$FOREBAY_IMAGE"
fi
exec /opt/forebay/bin/forebay "$@"
