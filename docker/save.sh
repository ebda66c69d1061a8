#!/usr/bin/env bash
# save.sh IMAGE TAG: write IMAGE:TAG to IMAGE-TAG.tar.gz here, under that name only once it is whole.
set -euo pipefail

image=$1 tag=$2
file=${image//\//-}-$tag.tar.gz
part=$file.part

if ! command -v docker >/dev/null; then
    echo "docker is not on PATH; make save needs the engine that built $image:$tag" >&2
    exit 1
fi
if ! docker image inspect "$image:$tag" >/dev/null 2>&1; then
    echo "docker has no image $image:$tag; build it first: make docker IMAGE=$image TAG=$tag" >&2
    exit 1
fi
trap 'rm -f "$part"' EXIT
docker save "$image:$tag" | "$(command -v pigz || command -v gzip)" >"$part"
mv "$part" "$file"
echo "$file holds $image:$tag, $(du -h "$file" | cut -f1)"
