#!/usr/bin/env bash
# Checks what two builds are made of, as docs/licensing.md promises: without the feature linked-phones nothing of the
# libraries that hold AGPL code, and in the default build nothing that accepts the certificates of a simulated WhatsApp.
set -euo pipefail
cd "$(dirname "$0")/.."

# What is linked or runs while building; not what only tests use.
tree() { cargo tree --locked -p wasel-server --edges "normal,build$1" --prefix none "${@:2}"; }

misses=0
miss() {
    echo "$1" >&2
    misses=$((misses + 1))
}

permissive=$(tree "" --no-default-features)
grep -q '^wasel-server v' <<<"$permissive" || miss "cargo tree does not show wasel-server"
if found=$(grep -oE '^(wacore[a-z-]*|waproto|whatsapp-rust[a-z-]*|wasel-sessions) v[0-9.]+' <<<"$permissive" | sort -u); then
    miss "the build without default features links: $(tr '\n' ' ' <<<"$found")"
fi

default=$(tree ",features")
if grep -nE 'danger-skip-cert-chain-verify|trust-simulator|simulated-phones' <<<"$default" >&2; then
    miss "the default build accepts the certificates of a simulated WhatsApp"
fi

if ((misses > 0)); then exit 1; fi
echo "licences: the build without linked phones has no AGPL library, the default build trusts no simulated WhatsApp"
