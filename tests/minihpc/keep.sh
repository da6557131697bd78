#!/bin/bash
# keep.sh: the cluster for as long as stdin is open. Says "up" when it is; at the end it is taken down and its state
# folder deleted, also when whoever held stdin was killed.
here=$(dirname "$(readlink -f "$0")")
"$here/up.sh" </dev/null && echo up && cat >/dev/null
exec "$here/down.sh" --purge
