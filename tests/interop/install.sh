#!/bin/sh
# Installs and builds what the interop suites need, from the lock files. Idempotent; fails loudly.
set -eu
cd "$(dirname "$0")"

fail() {
    echo "interop/install.sh: $*" >&2
    exit 1
}

# For stations in network namespaces (tests/nat.rs): Debian packages, installed where their programs are missing.
missing=
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v iptables >/dev/null 2>&1 || missing="$missing iptables"
command -v sysctl >/dev/null 2>&1 || missing="$missing procps"
if [ -n "$missing" ] && [ "$(id -u)" -ne 0 ]; then
    # The rest works all the same; these tests say that they are skipped, and fail with CI=true.
    echo "interop/install.sh: only root can install$missing and make network namespaces" >&2
elif [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || fail "apt-get is missing: install$missing"
    # shellcheck disable=SC2086 # a list
    apt-get update && apt-get install -y --no-install-recommends $missing || fail "apt-get install$missing failed"
fi

for tool in node npm cargo go; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing"
done
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 20 ] || fail "node $major is too old (version 20 or newer is needed)"

# `npm ci` empties node_modules first, so it runs only when the lock file has changed since.
for folder in nostr-tools js-libp2p; do
    stamp=$folder/node_modules/.installed-lock
    if cmp -s "$folder/package-lock.json" "$stamp"; then
        echo "interop: $folder is up to date"
    else
        (cd "$folder" && npm ci) || fail "npm ci failed in $folder"
        cp "$folder/package-lock.json" "$stamp"
    fi
done
(cd nostr-tools && node --input-type=module -e '
import { nip77 } from "nostr-tools"
import { Relay } from "nostr-tools/relay"
import { WebSocket } from "ws"
if (!nip77.NegentropySync || !Relay.connect || !WebSocket) process.exit(1)
') || fail "nostr-tools is installed but does not load"
seed=0000000000000000000000000000000000000000000000000000000000000001
node js-libp2p/station.mjs identity "$seed" >/dev/null || fail "js-libp2p is installed but does not run"

# OpenSSH's server, for the `ssh` tunnel. Debian's package starts nothing where policy-rc.d forbids it, as in a container.
if [ ! -x /usr/sbin/sshd ]; then
    how="apt-get update && apt-get install -y --no-install-recommends openssh-server"
    [ "$(id -u)" -eq 0 ] || fail "/usr/sbin/sshd is missing; as root: $how"
    sh -c "DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; $how" || fail "/usr/sbin/sshd is missing, and this failed: $how"
fi
for tool in /usr/sbin/sshd ssh scp ssh-keygen; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing"
done

# A debug build: it takes less than half of the release build's processor time, and is fast enough.
(cd rust-nostr && cargo build --locked --target-dir target) || fail "cargo build failed in rust-nostr"
rust-nostr/target/debug/rust-nostr-relay serve </dev/null >/dev/null || fail "rust-nostr is built but does not run"

# nostr_relay, a relay without NIP-77, and what it needs, as pinned.
stamp=nostr-relay/.venv/.installed-requirements
if cmp -s nostr-relay/requirements.txt "$stamp"; then
    echo "interop: nostr-relay is up to date"
else
    command -v python3 >/dev/null 2>&1 || fail "python3 is missing"
    (cd nostr-relay && rm -rf .venv && python3 -m venv .venv && .venv/bin/pip install --quiet --no-deps -r requirements.txt) ||
        fail "pip install failed in nostr-relay (Debian has venv in the package python3-venv)"
    nostr-relay/.venv/bin/python -c 'import nostr_relay.web, uvicorn, alembic' || fail "nostr-relay is installed but does not load"
    cp nostr-relay/requirements.txt "$stamp"
fi

# aiosmtpd, a mail server, and what it needs, as pinned.
stamp=mail/.venv/.installed-requirements
if cmp -s mail/requirements.txt "$stamp"; then
    echo "interop: mail is up to date"
else
    command -v python3 >/dev/null 2>&1 || fail "python3 is missing"
    (cd mail && rm -rf .venv && python3 -m venv .venv && .venv/bin/pip install --quiet --no-deps -r requirements.txt) ||
        fail "pip install failed in mail (Debian has venv in the package python3-venv)"
    mail/.venv/bin/python -c 'import aiosmtpd.smtp' || fail "aiosmtpd is installed but does not load"
    cp mail/requirements.txt "$stamp"
fi

(cd go-nostr && go build -buildvcs=false -o bin/go-nostr-sync .) || fail "go build failed in go-nostr"
(cd khatru && go build -buildvcs=false -o bin/khatru-relay .) || fail "go build failed in khatru"

(cd mailpit && go build -buildvcs=false -o bin/mailpit github.com/axllent/mailpit) || fail "go build failed in mailpit"
mailpit/bin/mailpit version --no-release-check || fail "mailpit is built but does not run"

(cd kubo && go build -buildvcs=false -o bin/ipfs github.com/ipfs/kubo/cmd/ipfs) || fail "go build failed in kubo"
kubo/bin/ipfs version || fail "kubo is built but does not run"

echo "interop: ready"
