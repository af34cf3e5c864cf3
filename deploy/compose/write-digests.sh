#!/bin/sh
# Write compose.digests.yaml: each image that compose.yaml and the Dockerfile take from a registry, pinned to the current
# content of its tag. It needs `docker buildx` and access to the registry.
set -eu
cd "$(dirname "$0")/../.."

pinned() {
    digest=$(docker buildx imagetools inspect "$1" | sed -n 's/^Digest: *//p')
    case $digest in
        sha256:*) echo "$1@$digest" ;;
        *) echo "$1: the registry gave no digest" >&2; exit 1 ;;
    esac
}

# "SERVICE IMAGE" for each service with an image of its own; "SERVICE" for each that is built.
services=$(awk '/^[a-z]/ { service = "" }
    /^  [a-z-]+:/ { sub(":", "", $1); service = $1 }
    service && /^    image: / { print service, $2 }
    service && /^    <<: \*(ours|api)$/ { print service }' compose.yaml)
python=$(pinned "$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)")

{
    echo "services:"
    echo "$services" | while read -r service image; do
        if [ -n "$image" ]; then
            reference=$(pinned "$image")
            echo "  $service: {image: \"$reference\"}"
        else
            echo "  $service: {build: {args: {PYTHON_IMAGE: \"$python\"}}}"
        fi
    done
} >compose.digests.yaml.new
mv compose.digests.yaml.new compose.digests.yaml
