#!/bin/sh
# Builds the page in a copy of this folder:  build.sh NPM FOLDER  gives FOLDER/dist.
set -eu
npm=$1
folder=$2
source=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$folder"
rm -rf "$folder/src" "$folder/public" "$folder/dist"
for file in src public index.html package.json package-lock.json tsconfig.json vite.config.ts; do
  cp -R "$source/$file" "$folder/"
done
cd "$folder"
# The packages stay until package-lock.json changes.
if ! cmp -s package-lock.json installed-lock.json; then
  "$npm" ci --no-audit --no-fund --ignore-scripts
  cp package-lock.json installed-lock.json
fi
"$npm" run build
