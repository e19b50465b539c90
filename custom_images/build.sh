#!/usr/bin/env bash
# Build one of the images of this folder.
#
# Usage: build.sh IMAGE_FOLDER [--base-image IMAGE] [--name NAME] [-- ENGINE ARGUMENTS]
#
#   IMAGE_FOLDER        airflow, cifar10, sagemaker_pytorch or sagemaker_cpu
#   --base-image IMAGE  default: BASE_IMAGE of the folder's Dockerfile
#   --name NAME         name and tag of the result; default: mlflow-projects/<folder with dashes>:latest
#   --help              print this
#   -- …                arguments for "docker build", such as --no-cache
#
# Environment: CONTAINER_ENGINE (docker or podman; default: the first that answers),
# PLATFORM (default: linux/amd64, which is what SageMaker's x86 instances run).
# The last line of output is the name of the image.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

folder="" base="" name=""
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage "$0" && exit ;;
    --base-image) need "$@" && base=$2 && shift 2 ;;
    --name) need "$@" && name=$2 && shift 2 ;;
    --) shift && break ;;
    -*) die "There is no option '$1'; see --help." ;;
    *) folder=${1%/} && shift ;;
  esac
done
check_folder "$folder"
base=${base:-$(dockerfile_default "$folder" BASE_IMAGE)}
name=${name:-$(default_image "$folder")}

context=$HERE/$folder
# An image that holds the library is built from the root of the repository, and its Dockerfile names files so.
[ -z "$(sed -n '/^COPY custom_images\//p' "$context/Dockerfile")" ] || context=$(dirname -- "$HERE")

find_engine
if parse_ecr "$base" && ! "$ENGINE" image inspect "$base" >/dev/null 2>&1; then
  die "The base image $base is not on this machine; pull it first: $HERE/pull_base_image.sh $base"
fi
"$ENGINE" build --platform "${PLATFORM:-linux/amd64}" --build-arg "BASE_IMAGE=$base" --tag "$name" \
  --file "$HERE/$folder/Dockerfile" "$@" "$context" >&2 || die "$name could not be built; the engine's own message is above."
echo "$name"
