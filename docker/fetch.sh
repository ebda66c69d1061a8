#!/usr/bin/env bash
# fetch NAME URL TAG [COMMIT]: check a tag out into /src/NAME and note its commit in /sources/NAME.
# A tag can be moved; a build that names the commit refuses any other.
set -euo pipefail

name=$1 url=$2 tag=$3 commit=${4:-}
git clone --quiet --depth 1 --branch "$tag" --recurse-submodules --shallow-submodules "$url" "/src/$name"
found=$(git -C "/src/$name" rev-parse HEAD)
if [[ -n $commit && $found != "$commit" ]]; then
    echo "$name $tag is commit $found, not $commit; tell ${name^^}_COMMIT the one you trust" >&2
    exit 1
fi
mkdir -p /sources
echo "$tag $found" >"/sources/$name"
