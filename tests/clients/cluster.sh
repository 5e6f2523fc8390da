#!/usr/bin/env bash
# cluster.sh BINARY CLUSTER PORT DIRECTORY: makes and runs a cluster of three replicas on this machine until
# SIGTERM. One of its replicas, a backup at first, listens on PORT: clients that know no other address
# are served through it.
set -euo pipefail

binary="$1" cluster="$2" port="$3" directory="$4"
read -r first second < <(python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')
addresses="127.0.0.1:$first,127.0.0.1:$second,127.0.0.1:$port"

servers=()
trap 'kill -TERM "${servers[@]}"; wait "${servers[@]}"; exit' TERM INT
for replica in 0 1 2; do
    file="$directory/$replica.daftari"
    "$binary" format "--cluster=$cluster" "--replica=$replica" --replica-count=3 --development "$file"
    "$binary" start "--addresses=$addresses" --log-level=error --limit-memory=1GiB "$file" &
    servers+=($!)
done
wait -n
echo "a replica has ended by itself" >&2
kill -TERM "${servers[@]}"
exit 1
