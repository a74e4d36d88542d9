#!/usr/bin/env bash
# Checks what two builds are made of, as docs/licensing.md promises: without the feature linked-phones nothing of the
# libraries that hold AGPL code, and in the default build nothing that accepts the certificates of a simulated WhatsApp.
set -euo pipefail
cd "$(dirname "$0")/.."

# Each crate that is linked or runs while building, with its features; not what only tests use.
crates() { cargo tree --locked -p wasel-server --edges normal,build --prefix none --format '{p} [{f}]' "$@"; }

misses=0
miss() {
    echo "$1" >&2
    misses=$((misses + 1))
}

agpl='^(wacore[a-z-]*|waproto|whatsapp-rust[a-z-]*|wasel-sessions) '
trusting='^[a-z-]+ .*[[,](danger-skip-cert-chain-verify|trust-simulator|simulated-phones)[],]'

permissive=$(crates --no-default-features)
default=$(crates)
demo=$(crates --features simulated-phones)

if found=$(grep -E "$agpl" <<<"$permissive"); then
    miss "the build without default features links: $found"
fi
if found=$(grep -E "$trusting" <<<"$default"); then
    miss "the default build accepts the certificates of a simulated WhatsApp: $found"
fi
# Names change; then this would look for nothing.
grep -qE '^wacore-libsignal ' <<<"$default" || miss "the default build has no wacore-libsignal: look for its successor here"
grep -qE '^wacore-noise .*[[,]danger-skip-cert-chain-verify[],]' <<<"$demo" ||
    miss "no feature danger-skip-cert-chain-verify with simulated-phones: look for its successor here"

if ((misses > 0)); then exit 1; fi
echo "licences: the build without linked phones has no AGPL library, the default build trusts no simulated WhatsApp"
