#!/usr/bin/env bash
# Push an image to your own ECR registry; the repository is made if it is missing.
#
# Usage: push.sh IMAGE_FOLDER [--image IMAGE] [--repository NAME] [--tag TAG] [--region REGION] [--account ID]
#
#   IMAGE_FOLDER       sagemaker_pytorch or sagemaker_cpu
#   --image IMAGE      the local image; default: what build.sh calls it
#   --repository NAME  default: mlflow-projects/<folder with dashes>
#   --tag TAG          default: mlflow-<version>
#   --region REGION    default: AWS_REGION, AWS_DEFAULT_REGION, or the profile's
#   --account ID       refuse to push with credentials of any other account
#   --help             print this
#
# Environment: CONTAINER_ENGINE (docker or podman; default: the first that answers), and what the aws CLI reads.
# The last line of output is the URI: the backend_config's "image_uri".
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

folder="" image="" repository="" tag="" account="" region=${AWS_REGION:-${AWS_DEFAULT_REGION:-}}
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage "$0" && exit ;;
    --image) need "$@" && image=$2 && shift 2 ;;
    --repository) need "$@" && repository=$2 && shift 2 ;;
    --tag) need "$@" && tag=$2 && shift 2 ;;
    --region) need "$@" && region=$2 && shift 2 ;;
    --account) need "$@" && account=$2 && shift 2 ;;
    -*) die "There is no option '$1'; see --help." ;;
    *) folder=${1%/} && shift ;;
  esac
done
check_folder "$folder"
image=${image:-$(default_image "$folder")}
repository=${repository:-mlflow-projects/${folder//_/-}}
tag=${tag:-mlflow-$(dockerfile_default "$folder" MLFLOW_VERSION)}

find_engine
"$ENGINE" image inspect "$image" >/dev/null 2>&1 ||
  die "There is no image $image on this machine; build it first: $HERE/build.sh $folder"

region=${region:-$(ask_aws region 2>/dev/null || true)}
[ -n "$region" ] || die "No AWS region is set; give --region or set AWS_REGION."
check_region "$region"
owner=$(aws_or_die "No AWS credentials that work in $region" account "$region")
[[ $owner =~ ^[0-9]{12}$ ]] || die "AWS named no account in $region."
if [ -n "$account" ] && [ "$account" != "$owner" ]; then
  die "The AWS credentials belong to account $owner, not $account."
fi

registry=$owner.dkr.ecr.$region.amazonaws.com
[[ $region != cn-* ]] || registry+=.cn
uri=$registry/$repository:$tag
aws_or_die "The repository $repository in $region is missing and cannot be made" repository "$region" "$repository"
ecr_login "$registry" "$region"
"$ENGINE" tag "$image" "$uri" || die "$image cannot be tagged as $uri."
"$ENGINE" push "$uri" >&2 || die "$uri cannot be pushed; may these credentials write to the repository?"
echo "$uri"
