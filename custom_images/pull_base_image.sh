#!/usr/bin/env bash
# Pull a base image, AWS's PyTorch training image unless another is given.
#
# Usage: pull_base_image.sh [--region REGION] [IMAGE]
#
#   IMAGE            default: BASE_IMAGE of sagemaker_pytorch/Dockerfile
#   --region REGION  take AWS's registry in this region instead of the one in IMAGE
#   --help           print this
#
# AWS's registry wants a login, which needs any valid AWS credentials; images elsewhere are pulled as they are.
# Environment: CONTAINER_ENGINE (docker or podman; default: the first that answers), and what the aws CLI reads.
# The last line of output is the image that was pulled.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

region="" image=""
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage "$0" && exit ;;
    --region) need "$@" && region=$2 && check_region "$region" && shift 2 ;;
    -*) die "There is no option '$1'; see --help." ;;
    *) image=$1 && shift ;;
  esac
done
image=${image:-$(dockerfile_default sagemaker_pytorch BASE_IMAGE)}

find_engine
if parse_ecr "$image"; then
  if [ -n "$region" ]; then
    image=${image/.ecr.$ECR_REGION./.ecr.$region.}
    parse_ecr "$image"
  fi
  ecr_login "$ECR_REGISTRY" "$ECR_REGION"
elif [ -n "$region" ]; then
  die "--region is for images in a private ECR registry; $image is in none."
fi
"$ENGINE" pull --platform "${PLATFORM:-linux/amd64}" "$image" >&2 ||
  die "$image cannot be pulled; is the tag right, and does AWS's account have this repository in this region?"
echo "$image"
