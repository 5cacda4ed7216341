#!/usr/bin/env bash
# On the head node: from now on `ssh` speaks to the machines in ~/.ssh/scenetune_hosts only if they show the
# keys given there, whatever Ray's launcher tells it (which checks none).
#
# A connection goes to the machine over another one of ssh's own, which checks the key, and from there to the
# machine's own SSH server.
set -euo pipefail
mkdir -p ~/.ssh
: > ~/.ssh/scenetune_config
while read -r names _; do
    for name in ${names//,/ }; do
        port=22
        if [[ $name =~ ^\[(.*)\]:([0-9]+)$ ]]; then
            name=${BASH_REMATCH[1]} port=${BASH_REMATCH[2]}
        fi
        cat >> ~/.ssh/scenetune_config << CONFIG
Host $name
    ProxyCommand ssh -F none -q -p $port -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=~/.ssh/scenetune_hosts -i ~/ray_bootstrap_key.pem -W localhost:$port %r@%h
CONFIG
    done
done < <(grep -v '^[#|]' ~/.ssh/scenetune_hosts)
touch ~/.ssh/config
grep -q '^Include scenetune_config$' ~/.ssh/config || printf 'Include scenetune_config\n%s\n' "$(cat ~/.ssh/config)" > ~/.ssh/config
