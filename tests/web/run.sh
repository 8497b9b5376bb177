#!/bin/sh
# One test of the web page; exit 77 and a reason when what it needs is not there.
#
#   run.sh units|bundle|chromium|screenshots WORK_FOLDER [TERN_BINARY]
#
#   units      the parts that need no browser
#   bundle     web/dist is what web/ gives today
#   chromium   the page in the installed Chromium against a real server
#   screenshots  makes docs/images/web_*.png anew (no test)
set -eu
mode=$1
mkdir -p "$2"
work=$(cd "$2" && pwd)
tern=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
web=$(cd "$here/../../web" && pwd)

skip() {
  echo "$1"
  exit 77
}

command -v node >/dev/null || skip "node is not installed"
command -v npm >/dev/null || skip "npm is not installed"

# install FOLDER: `npm ci` of its lock file, once until that changes.
install() {
  cmp -s "$1/package-lock.json" "$1/installed-lock.json" && return
  (cd "$1" && npm ci --no-audit --no-fund --ignore-scripts >npm.log 2>&1) ||
    skip "npm ci failed: $(tail -n 1 "$1/npm.log")"
  cp "$1/package-lock.json" "$1/installed-lock.json"
}

# The tests run at the same time and share the packages.
prepare() {
  exec 9>"$work/lock"
  flock 9
  mkdir -p "$work/page" "$work/browser"
  cp "$web/package.json" "$web/package-lock.json" "$work/page/"
  cp "$here/package.json" "$here/package-lock.json" "$work/browser/"
  install "$work/page"
  case $mode in chromium | screenshots) install "$work/browser" ;; esac
  flock -u 9
}

case $mode in
  units)
    prepare
    "$work/page/node_modules/.bin/esbuild" --bundle --format=esm --log-level=warning \
      --outfile="$work/units.mjs" "$here/units_entry.ts"
    TERN_WEB_UNITS="$work/units.mjs" exec node "$here/units_test.mjs"
    ;;
  bundle)
    prepare
    "$web/build.sh" npm "$work/page"
    if ! diff -r "$work/page/dist" "$web/dist" >"$work/bundle.diff"; then
      head -c 2000 "$work/bundle.diff"
      echo
      echo "web/dist is not what web/ gives: run \`npm ci && npm run build\` in web/ and commit it."
      exit 1
    fi
    echo "web/dist is what web/ gives."
    ;;
  chromium | screenshots)
    browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
      skip "chromium is not installed"
    prepare
    script=chromium_test.mjs
    [ "$mode" = chromium ] || script=screenshots.mjs
    TERN_WEB_CHROMIUM=$browser TERN_WEB_BINARY=$tern \
      TERN_WEB_PLAYWRIGHT="$work/browser/node_modules/playwright-core/index.mjs" \
      TERN_WEB_WORK=$work exec node "$here/$script"
    ;;
  *)
    echo "run.sh: expected units, bundle, chromium or screenshots, not \"$mode\"." >&2
    exit 2
    ;;
esac
