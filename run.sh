#!/bin/sh
# Installs what is missing, builds Tern and starts the server with the bundled model. Arguments go to
# `tern serve`:  ./run.sh --port 9000 --model model.gguf
#
# The server itself prints the URL and a curl command when it is ready.
set -eu
root=$(cd "$(dirname "$0")" && pwd)

"$root/scripts/deps.sh" build
# Paths in the arguments are relative to where the caller is, so only the build changes folder.
"$root/scripts/build.sh" release tern
exec "$root/build/release/tern" serve "$@"
