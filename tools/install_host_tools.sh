#!/bin/sh
# What `make test-cluster` makes hosts of (ip, sshd, rsync). Installed by apt where it is missing and we may.
set -eu
missing=""
for tool in ip unshare nsenter setpriv ssh ssh-keygen rsync /usr/sbin/sshd; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
if [ -z "$missing" ]; then
    exit 0
fi
sudo=""
if [ "$(id -u)" -ne 0 ]; then
    sudo="sudo -n"
fi
if command -v apt-get >/dev/null 2>&1 && $sudo true 2>/dev/null; then
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends \
        iproute2 openssh-server openssh-client rsync util-linux >/dev/null
else
    echo "error: missing, and not to be installed here:$missing" >&2
    echo "       (Debian: apt-get install iproute2 openssh-server openssh-client rsync util-linux)" >&2
    exit 1
fi
