#!/bin/sh
# Sends generated requests, valid and broken, to every operation of docs/openapi.json and checks the
# answers against the document: no status 5xx, only documented statuses, types and shapes, and
# nothing accepted that breaks the schema.
#
#   tests/integration/schemathesis.sh URL [EXAMPLES [MORE OPTIONS...]]
#
# Wants `schemathesis` (tested: 4.32.5) in the PATH and a server with a short context, so that
# requests without a limit of tokens end soon: tern serve --context-length 64.
#
# Requests that the schema allows may be refused for what a schema cannot say (a model's name, ids
# beyond the vocabulary, a grammar that is none): positive_data_acceptance is off.
set -eu
url=$1
examples=${2:-25}
[ $# -ge 2 ] && shift 2 || shift
exec schemathesis run "$(dirname "$0")/../../docs/openapi.json" --url "$url" --seed 1 \
  --max-examples "$examples" --phases examples,coverage,fuzzing --continue-on-failure \
  --exclude-checks positive_data_acceptance --request-timeout 60 "$@"
