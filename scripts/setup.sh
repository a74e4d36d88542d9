#!/usr/bin/env bash
# Makes sure that what Wasel needs is on this machine; installs what is missing. Safe to run again: with everything in
# place it only looks. Names what it installs and why before it does.
#
#   scripts/setup.sh          what building and running needs: a C compiler, Rust, Postgres
#   scripts/setup.sh test     and what the tests need: Node.js with npm, Chromium, cargo-nextest
#   scripts/setup.sh lint     only what the compiler and its linters need
set -euo pipefail
cd "$(dirname "$0")/.."

purpose="${1:-run}"
case "$purpose" in run | test | lint) ;; *) echo "setup: unknown purpose '$purpose' (run, test or lint)" >&2; exit 2 ;; esac

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

packages=()
reasons=()
# need PACKAGE WHY
need() { packages+=("$1"); reasons+=("$1 ($2)"); }

# The newest Postgres the server would find: in PATH, else where distributions and Homebrew put it.
have_postgres() {
  have initdb && have postgres && return
  local program
  for program in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb /usr/libexec/postgresql*/initdb \
    /opt/homebrew/opt/postgresql*/bin/initdb /usr/local/opt/postgresql*/bin/initdb; do
    [ -x "$program" ] && return
  done
  return 1
}

# rustup puts itself here; a shell that was open before does not look there.
export PATH="$HOME/.cargo/bin:$PATH"

have cc || need build-essential "a C compiler: Rust links with it"
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ "$(uname -s)" != Linux ] || need ca-certificates "to fetch crates over TLS"
if ! have cargo && ! have rustup; then
  if have apt-cache && [ -n "$(apt-cache policy rustup 2>/dev/null | sed -n 's/^  Candidate: \([^(].*\)/\1/p')" ]; then
    need rustup "the Rust compiler in the version that rust-toolchain.toml names"
  elif have apt-cache && [ "$(id -u)" = 0 ] && [ -z "$(ls /var/lib/apt/lists/*_Packages 2>/dev/null)" ]; then
    need rustup "the Rust compiler in the version that rust-toolchain.toml names"
  else
    stop "Rust is missing: install it from rustup.rs and run this again"
  fi
fi
if [ "$purpose" != lint ]; then
  have_postgres || need postgresql "the database; Wasel runs a private one of its own"
fi
if [ "$purpose" = test ]; then
  have psql || need postgresql-client "the tests write rows by plain SQL"
  have node || need nodejs "the tests use the real supabase-js and Twilio clients"
  have npm || need npm "fetches those clients"
  if ! have chromium; then
    need chromium "the tests open the inbox in a real browser"
    need fonts-dejavu-core "so that the browser can draw Arabic"
  fi
fi

install_packages() {
  if ! have apt-get; then
    stop "missing: ${reasons[*]}; install them with your package manager and run this again"
  fi
  if [ "$(id -u)" != 0 ]; then
    stop "something is missing; run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}"
  fi
  say "installs with apt-get: $(printf '%s, ' "${reasons[@]}" | sed 's/, $//')"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  case " ${packages[*]} " in
    *' postgresql '*)
      # Debian's package would start a cluster of its own on port 5432, which nothing here needs. Where the file is
      # there already, the machine's owner has decided.
      if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        apt-get install -y -q --no-install-recommends postgresql-common
        sed -i -E 's/^#?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
        say "set create_main_cluster = false in /etc/postgresql-common/createcluster.conf: no Postgres starts on port 5432"
      fi
      ;;
  esac
  if ! apt-get install -y -q --no-install-recommends "${packages[@]}"; then
    case " ${packages[*]} " in
      *' rustup '*) stop "apt-get failed; if it has no rustup here, install Rust from rustup.rs and run this again" ;;
      *) stop "apt-get failed; see above" ;;
    esac
  fi
}

[ ${#packages[@]} = 0 ] || install_packages

# rustup fetches the toolchain that rust-toolchain.toml names when cargo is first asked for anything.
if ! cargo --version >/dev/null 2>&1; then
  say "fetches the Rust toolchain that rust-toolchain.toml names"
  version="$(sed -nE 's/^channel = "(.*)"/\1/p' rust-toolchain.toml)"
  rustup toolchain install "$version" --profile minimal --component rustfmt --component clippy ||
    stop "the Rust toolchain could not be installed; see above"
  cargo --version >/dev/null || stop "cargo does not run; install Rust from rustup.rs and run this again"
fi

if [ "$purpose" = test ]; then
  node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' ||
    stop "the tests need Node.js 20 or later, and this is $(node --version): install a newer one and run this again"
  if ! cargo nextest --version >/dev/null 2>&1; then
    say "installs cargo-nextest, which runs the Rust tests; this takes some minutes, once"
    cargo install cargo-nextest --locked
  fi
  if [ ! -d tests/js/node_modules ] || [ tests/js/package-lock.json -nt tests/js/node_modules/.package-lock.json ]; then
    say "fetches the JavaScript clients that the tests use (npm ci in tests/js)"
    (cd tests/js && npm ci --no-audit --no-fund)
  fi
  if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    say "fetches what the React hooks are built and tested with (npm ci)"
    npm ci --no-audit --no-fund
  fi
fi

say "everything is in place"
