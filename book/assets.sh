#!/bin/sh
# Offline copies of the browser assets that the book's pages use: MathJax and the widget manager, from npm.
# Without npm the pages load them from the usual CDN; the build says so.
set -eu
target=_build/assets
test -e "$target/.done" && exit 0
if ! command -v npm >/dev/null 2>&1; then
    echo "npm is not installed: the book will load MathJax and the widget manager from their CDN when online"
    exit 0
fi
echo "Fetching the book's browser assets (once) ..."
mkdir -p _build/npm "$target"
npm install --silent --no-audit --no-fund --prefix _build/npm \
    mathjax@3.2.2 @jupyter-widgets/html-manager@1.0.15 requirejs@2.3.7 >/dev/null
cp -r _build/npm/node_modules/mathjax/es5 "$target/mathjax"
cp _build/npm/node_modules/@jupyter-widgets/html-manager/dist/embed-amd.js "$target/embed-amd.js"
cp _build/npm/node_modules/requirejs/require.js "$target/require.js"
touch "$target/.done"
