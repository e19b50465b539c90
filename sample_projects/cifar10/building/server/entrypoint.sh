#!/bin/sh
# Starts the server that lies beside this file; used by the image and by the process alike.
exec python3 "$(dirname "$0")/server.py" "$@"
