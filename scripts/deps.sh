#!/bin/sh
# Installs the Debian packages that Tern needs. Non-interactive; as root or through sudo.
# Does nothing, and needs no network, when everything is there.
#
#   scripts/deps.sh                  what building and testing needs
#   scripts/deps.sh build            only what building needs
#   scripts/deps.sh build test optional
#
# This is the only list of packages; Dockerfile, run.sh and test.sh use it.
set -eu

build_packages="
  ca-certificates cmake g++ git ninja-build pkg-config
  libboost1.81-dev libcli11-dev libnuma-dev libpcre2-dev libspdlog-dev libssl-dev libtbb-dev
  libtomlplusplus-dev libutf8proc-dev nlohmann-json3-dev prometheus-cpp-dev"

test_packages="
  curl libbenchmark-dev libgmock-dev libgtest-dev librapidcheck-dev python3 python3-jinja2
  python3-jsonschema python3-yaml"

# Node and Python clients of the API tests, the web page's build and its browser, Prometheus, HAProxy, formatting and
# static checks, fuzzers, the Debian package, the aarch64 kernels, a BLAS to intercept. Tests skip without them. (Debian's
# prometheus and haproxy start services; to have only the programs, mask those first.)
optional_packages="
  ccache chromium clang clang-format clang-tidy dpkg-dev g++-aarch64-linux-gnu haproxy
  libblas-dev libclang-rt-dev nodejs npm prometheus python3-venv qemu-user-static"

[ $# -gt 0 ] || set -- build test

wanted=""
for group in "$@"; do
  case $group in
    build) wanted="$wanted $build_packages" ;;
    test) wanted="$wanted $test_packages" ;;
    optional) wanted="$wanted $optional_packages" ;;
    *)
      echo "deps.sh: groups are build, test and optional, not \"$group\"." >&2
      exit 2
      ;;
  esac
done

if ! command -v dpkg-query >/dev/null; then
  echo "deps.sh: this system has no dpkg; install the equivalents of:$wanted" >&2
  exit 1
fi

# npm comes inside Node packages that are not Debian's own.
is_there() {
  case $1 in
    npm) command -v npm >/dev/null ;;
    *) [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
  esac
}

missing=""
for package in $wanted; do
  is_there "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "deps.sh: not root and no sudo; install as root:$missing" >&2
    exit 1
  fi
  as_root=sudo
fi

echo "deps.sh: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq >&2
# env: sudo drops the variable otherwise.
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
