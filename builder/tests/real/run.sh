#!/bin/bash
# Builds real images from the package registries that this host reaches, looks at each of them running, and prints what
# it took, beside buildah where that is wanted. By hand: it needs the network, root, and a few minutes.
#
# usage: builder/tests/real/run.sh [--buildah] [CASE...]
#
#   REAL_BUILDS   directory of the stores and the base image (default: target/real); kept between runs
#   HULL_BUILD    the builder, HULL the runtime (default: the release build)
#
# Steps reach the registries as the host does: certificates, proxies and client configuration of the host are passed in
# by --volume, --run-env and --build-arg for the time of the steps, and that nothing of it is in an image is looked at.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=$PWD/builder/tests/real
place=${REAL_BUILDS:-$PWD/target/real}
release=$PWD/target/x86_64-unknown-linux-musl/release
hull_build=${HULL_BUILD:-$release/hull-build}
export HULL_BUILD_RUNTIME=${HULL:-$release/hull} HULL_ROOT=$place/store
all=(python node nginx flask rust c-static lamp)
peer=''
[ "${1:-}" != --buildah ] || { peer=1; shift; }
cases=("${@:-${all[@]}}")
mkdir -p "$place"
failures=0

# --- what the host's clients are configured with ---

run_env=() volumes=() arguments=()
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
if [ -f "$bundle" ]; then
  volumes+=(--volume "$bundle:/run/host-ca.pem:ro")
  # A place of its own: the package ca-certificates writes the usual one.
  for name in SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS NPM_CONFIG_CAFILE CARGO_HTTP_CAINFO; do
    run_env+=("$name=/run/host-ca.pem")
  done
fi
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL NPM_CONFIG_REGISTRY npm_config_registry; do
  [ -z "${!name:-}" ] || run_env+=("$name=${!name}")
done
for name in http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY; do
  [ -z "${!name:-}" ] || arguments+=(--build-arg "$name")
done
cargo=${CARGO_HOME:-$HOME/.cargo}/config.toml
[ ! -f "$cargo" ] || volumes+=(--volume "$cargo:/root/.cargo/config.toml:ro")
for part in /etc/apt/apt.conf /etc/apt/apt.conf.d/*proxy*; do
  [ ! -f "$part" ] || volumes+=(--volume "$part:/etc/apt/apt.conf.d/host-${part##*/}:ro")
done
[ -z "${PIP_DEFAULT_TIMEOUT:-}" ] || run_env+=("PIP_DEFAULT_TIMEOUT=$PIP_DEFAULT_TIMEOUT")

hull() { "$hull_build" "$@"; }

# --- the base ---

base() {
  hull images -q real/debian:12 | grep -q . && return
  local tree=$place/debian.new
  rm -rf --one-file-system "$tree"
  debootstrap --variant=minbase bookworm "$tree" >"$place/debootstrap.log"
  rm -rf "$tree"/var/cache/apt/*.bin "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/dev/*
  tar --numeric-owner --sort=name -C "$tree" -c . | hull import -c 'CMD ["bash"]' - real/debian:12
  rm -rf --one-file-system "$tree"
}

buildah() {
  command buildah --storage-driver overlay --root "$place/buildah" --runroot "$place/buildah-run" "$@"
}

buildah_base() {
  buildah inspect --type image localhost/real/debian:12 >/dev/null 2>&1 && return
  hull save -o "$place/base.tar" real/debian:12
  buildah tag "$(buildah pull -q "docker-archive:$place/base.tar")" localhost/real/debian:12
  rm "$place/base.tar"
}

# --- building ---

more() { # CASE: what only this one needs
  case $1 in rust) echo --build-context "toolchain=$(rustc --print sysroot)" ;; esac
}

timed() { # NAME COMMAND...: sets NAME to "wall, processor" in seconds
  local name=$1 out
  shift
  TIMEFORMAT='%R %U %S'
  { out=$({ time "$@" >"$place/$name.log" 2>&1; } 2>&1); } || { tail -20 "$place/$name.log"; return 1; }
  printf -v "$name" '%s' "$(awk '{ printf "%.2f, %.2f", $1, $2 + $3 }' <<<"$out")"
}

hull_builds() { # CASE FLAG
  local flags=()
  for pair in "${run_env[@]}"; do flags+=(--run-env "$pair"); done
  # shellcheck disable=SC2046 # words
  hull build --progress plain $2 -t "real/$1" "${volumes[@]}" "${flags[@]}" "${arguments[@]}" $(more "$1") "$here/$1"
}

# It has no flag for variables of the steps alone: for a comparison of time they may be in the image.
buildah_builds() { # CASE FLAG
  local flags=()
  for pair in "${run_env[@]}"; do flags+=(--env "$pair"); done
  # shellcheck disable=SC2046 # words
  buildah build --isolation chroot --layers $2 -t "real/$1" "${volumes[@]}" "${flags[@]}" "${arguments[@]}" $(more "$1") "$here/$1"
}

# Nothing of the host is left: neither in the configuration and the history nor as a file.
is_clean() { # CASE
  local words
  words=$(hull inspect -f '{{json .Config}}' "real/$1"; hull history --no-trunc "real/$1")
  ! grep -F -e host-ca.pem -e "$bundle" <<<"$words" || return 1
  rm -rf --one-file-system "$place/bundle"
  hull unpack "real/$1" "$place/bundle"
  [ ! -e "$place/bundle/rootfs/run/host-ca.pem" ] && [ ! -s "$place/bundle/rootfs/root/.cargo/config.toml" ]
}

# --- looking at it ---

says() { # CASE TEXT ARGUMENTS...: a container that prints it
  local name=$1 text=$2 said
  shift 2
  said=$(hull run --rm "real/$name" "$@")
  [ "$said" = "$text" ] || { echo "$name says: $said"; return 1; }
}

serves() { # CASE PORT PATH TEXT: a container in the background that answers, on a network of its own and on the host's
  published "$1" 18080 "$3" "$4" -p "18080:$2" && published "$1" "$2" "$3" "$4" --network host
}

published() { # CASE PORT PATH TEXT FLAGS...
  local name=$1 port=$2 path=$3 text=$4 said=''
  shift 4
  hull run -d --name "real-$name" "$@" "real/$name" >/dev/null || return 1
  for _ in $(seq 150); do
    said=$(curl -fsS --noproxy '*' "http://127.0.0.1:$port$path" 2>/dev/null) && break
    sleep 0.2
  done
  [ "$said" = "$text" ] || { echo "$name answers: $said"; hull logs "real-$name" | tail; }
  hull stop "real-$name" >/dev/null
  hull rm "real-$name" >/dev/null
  [ "$said" = "$text" ]
}

works() {
  case $1 in
    python) says python 'python 3' ;;
    node) serves node 8080 '/?name=curl' 'hello from node curl' ;;
    nginx) serves nginx 80 / '<p>hello from nginx</p>' ;;
    flask) serves flask 5000 '/?name=curl' 'hello from flask curl' ;;
    rust) says rust '{"numbers":[4,5],"sum":9}' 4 5 ;;
    c-static) says c-static 'hello from scratch, you' you ;;
    lamp) serves lamp 80 / 'visit 1, PHP 8' ;;
  esac
}

base
[ -z "$peer" ] || buildah_base
printf '%-10s %10s %16s %16s %10s %16s %16s\n' case size cold warm works 'buildah: cold' warm
for name in "${cases[@]}"; do
  cold='' warm='' state=no other_cold='' other_warm=''
  if timed cold hull_builds "$name" --no-cache && timed warm hull_builds "$name" '' && is_clean "$name" && works "$name"; then
    state=yes
  else
    failures=$((failures + 1))
  fi
  if [ -n "$peer" ]; then
    timed other_cold buildah_builds "$name" --no-cache || other_cold=fails
    timed other_warm buildah_builds "$name" '' || other_warm=fails
  fi
  size=$(hull images --format '{{.Size}}' "real/$name" | head -1)
  printf '%-10s %10s %16s %16s %10s %16s %16s\n' "$name" "$size" "$cold" "$warm" "$state" "$other_cold" "$other_warm"
done
[ $failures = 0 ] || { echo "$failures of ${#cases[@]} do not work; logs in $place"; exit 1; }
