#!/usr/bin/env bash
# Makes a node ready, as setup command of every cluster file: bash install.sh SHARED
#
# Checks the cluster's token and the shared folder SHARED, installs the project and its pinned packages into
# ~/scenetune-env, and puts that first on the PATH of every shell. Given again it only brings things up to date.
set -euo pipefail
shared=${1:?usage: install.sh SHARED, the folder that every node sees under this name}
env=$HOME/scenetune-env
project=$(cd "$(dirname "$0")/.." && pwd)
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
refuse() { echo "install.sh on $(hostname): $1" >&2; exit 1; }

[ -s "$token" ] || refuse "no token in $token; make one as clusters/README.md says, and mount it there"
[ "$(stat -c %a "$token")" = 600 ] || refuse "$token has mode $(stat -c %a "$token"), expected 600: chmod it where it was made"
mkdir -p "$shared/studies" 2> /dev/null && [ -w "$shared/studies" ] || refuse "$shared is not a folder that can be written to; mount it first"

if [ ! -x "$env/bin/python" ]; then
    if python3 -c 'import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2> /dev/null; then
        python3 -m venv "$env"
    else # the nodes of one Ray cluster need one Python
        python3 -m pip install --quiet --user uv || python3 -m pip install --quiet --user --break-system-packages uv
        python3 -m uv venv --quiet --seed --python 3.11 "$env"
    fi
fi
"$env/bin/python" -m pip install --quiet --disable-pip-version-check -c "$project/constraints.txt" -e "${project}[remote]"

# Ray's launcher runs every command in an interactive login shell, which reads this.
touch ~/.bashrc
sed -i '/# scenetune$/d' ~/.bashrc
printf '%s # scenetune\n' \
    "export PATH=\"$env/bin:\$PATH\"" \
    "export RAY_AUTH_MODE=token SCENETUNE_STUDIES=\"$shared/studies\"" \
    | cat - ~/.bashrc > ~/.bashrc.new
mv ~/.bashrc.new ~/.bashrc
