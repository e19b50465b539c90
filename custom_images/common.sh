# shellcheck shell=bash
# What the scripts beside this file share; it is read by them, never run.

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

# Both engines must write the manifests that SageMaker takes: one image, Docker's format, no attestations.
export BUILDX_NO_DEFAULT_ATTESTATIONS=1 BUILDAH_FORMAT=docker

die() {
  echo "error: $*" >&2
  exit 1
}

# need "$@": an option and its value, which must be there.
need() {
  [ -n "${2:-}" ] || die "$1 needs a value; see --help."
}

# Print the comment at the top of a script, which is its help.
usage() {
  sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$1"
}

# Set ENGINE to an engine that answers.
find_engine() {
  local candidate found=""
  for candidate in ${CONTAINER_ENGINE:-docker podman}; do
    command -v "$candidate" >/dev/null || continue
    found=$candidate
    if "$candidate" info >/dev/null 2>&1; then
      ENGINE=$candidate
      return
    fi
  done
  [ -z "$found" ] || die "$found is installed but does not answer; is its service running?"
  [ -z "${CONTAINER_ENGINE:-}" ] || die "CONTAINER_ENGINE is '$CONTAINER_ENGINE', which is not installed."
  die "Neither docker nor podman is installed; install one of them or set CONTAINER_ENGINE."
}

check_region() {
  [[ $1 =~ ^[a-z]{2}(-[a-z]+)+-[0-9]$ ]] || die "'$1' is not an AWS region; it should look like eu-west-1."
}

# Take a private ECR image apart into ECR_REGISTRY and ECR_REGION; false for any other image.
# shellcheck disable=SC2034
parse_ecr() {
  [[ $1 =~ ^([0-9]{12}\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?)/ ]] || return 1
  ECR_REGISTRY=${BASH_REMATCH[1]}
  ECR_REGION=${BASH_REMATCH[2]}
}

# ask_aws WHAT [REGION [REPOSITORY]]: print the default region, the account or the registry's password,
# or see to it that a repository is there. Through the aws CLI, or without one that works, boto3.
ask_aws() {
  if aws --version >/dev/null 2>&1; then
    case $1 in
      region) aws configure get region ;;
      account) aws sts get-caller-identity --region "$2" --query Account --output text ;;
      password) aws ecr get-login-password --region "$2" ;;
      repository)
        aws ecr describe-repositories --region "$2" --repository-names "$3" >/dev/null 2>&1 ||
          aws ecr create-repository --region "$2" --repository-name "$3" >/dev/null
        ;;
    esac
  elif python3 -c 'import boto3' 2>/dev/null; then
    python3 - "$@" <<'PYTHON'
import base64
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError

what, region, repository = [*sys.argv[1:], None, None][:3]
try:
    session = boto3.Session(region_name=region)
    if what == "region":
        print(session.region_name or "")
    elif what == "account":
        print(session.client("sts").get_caller_identity()["Account"])
    elif what == "password":
        token = session.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
        print(base64.b64decode(token).decode().partition(":")[2])
    else:
        ecr = session.client("ecr")
        try:
            ecr.describe_repositories(repositoryNames=[repository])
        except ecr.exceptions.RepositoryNotFoundException:
            ecr.create_repository(repositoryName=repository)
except (BotoCoreError, ClientError) as error:
    sys.exit(" ".join(str(error).split()))
PYTHON
  else
    echo "neither the aws CLI nor a python3 with boto3 is installed" >&2
    return 1
  fi
}

# ask_aws, but a failure ends the script with a sentence: aws_or_die SENTENCE WHAT …
aws_or_die() {
  local sentence=$1 errors reason
  shift
  errors=$(mktemp)
  if ! ask_aws "$@" 2>"$errors"; then
    reason=$(sed '/^[[:space:]]*$/d' "$errors" | tail -n 1)
    rm -f "$errors"
    die "$sentence${reason:+: $reason}"
  fi
  rm -f "$errors"
}

# Log in to a private ECR registry. The password is an argument of no process: printf is built in.
ecr_login() {
  local registry=$1 region=$2 password
  password=$(aws_or_die "No AWS credentials that may log in to ECR in $region" password "$region")
  printf '%s\n' "$password" | "$ENGINE" login --username AWS --password-stdin "$registry" >/dev/null ||
    die "$ENGINE cannot log in to $registry."
}

# Print the default of a Dockerfile's ARG: dockerfile_default FOLDER NAME
dockerfile_default() {
  sed -n "s/^ARG $2=//p" "$HERE/$1/Dockerfile"
}

check_folder() {
  [ -n "$1" ] || die "Say which image: $(folders)."
  [ -f "$HERE/$1/Dockerfile" ] || die "There is no image '$1' here; choose one of: $(folders)."
}

folders() {
  local file names=""
  for file in "$HERE"/*/Dockerfile; do
    file=${file%/Dockerfile}
    names+="${names:+, }${file##*/}"
  done
  echo "$names"
}

# What build.sh calls an image, unless told otherwise.
default_image() {
  echo "mlflow-projects/${1//_/-}:latest"
}
