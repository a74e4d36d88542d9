#!/usr/bin/env bash
# Checks that what the documentation names exists: paths and links in every *.md, `make` targets, wasel commands,
# settings' variables, and the documents that code points to. Prints each miss and exits with 1 if there is one.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/.."

misses=0
miss() {
    echo "$1: $2" >&2
    misses=$((misses + 1))
}

# A path counts from the document's folder, or from the root. Globs and what a build makes are not looked for.
exists() {
    local from=$1 path=$2
    [[ -e "$(dirname "$from")/$path" || -e "$path" ]]
}

# Everything but what builds, runs and tools leave behind.
files=$(find . \( -name .git -o -name target -o -name node_modules -o -name 'wasel*-data' -o -name corpus \) -prune \
    -o -type f -print | sed 's,^\./,,' | sort)
# The folders and files at the top: a text in backticks that starts with one of them is a path.
tops=$(sed 's,/.*,,' <<<"$files" | sort -u)
is_path() {
    local first=${1%%/*}
    [[ "$1" == */* || "$1" == *.md || "$1" == *.toml ]] && grep -qxF -- "$first" <<<"$tops"
}

documents=$(grep -E '\.md$' <<<"$files")
for document in $documents; do
    # [text](link), without anchors and addresses.
    while IFS= read -r link; do
        link=${link%%#*}
        if [[ -z "$link" || "$link" == *://* || "$link" == mailto:* ]]; then continue; fi
        [[ -e "$(dirname "$document")/$link" ]] || miss "$document" "the link $link leads nowhere"
    done < <(grep -oE '\]\([^) ]+\)' "$document" | sed 's/^](//; s/)$//' || true)

    # `path` in backticks.
    while IFS= read -r path; do
        if [[ "$path" =~ [\<\>\*\{\}\$…\ ] ]] || ! is_path "$path"; then continue; fi
        exists "$document" "${path%/}" || miss "$document" "there is no $path"
    done < <(grep -oE '`[^`]+`' "$document" | tr -d '`' || true)

    # `name.rs` or the end of a path in backticks: some file must be called so. (secrets.toml and acme.toml are the
    # reader's own.)
    while IFS= read -r name; do
        if [[ "$name" == secrets.toml || "$name" == acme.toml ]]; then continue; fi
        grep -qE "(^|/)${name//./\\.}$" <<<"$files" || miss "$document" "no file is called $name"
    done < <(grep -oE '`[A-Za-z0-9_./-]+\.(rs|sql|sh|toml|md|js|ts|tsx)`' "$document" | tr -d '`' | sed 's,^\(\.\./\)*,,' || true)

    # make targets, in backticks or at the start of a line in a block.
    while IFS= read -r target; do
        if [[ ! -f Makefile ]] || ! grep -qE "^([a-z-]+ )*$target( [a-z-]+)*:" Makefile; then
            miss "$document" "the Makefile has no target $target"
        fi
    done < <(grep -oE '(^|`)make [a-z][a-z-]*' "$document" | sed 's/.*make //' | sort -u || true)

    # wasel commands, against the command line's own list.
    while IFS= read -r command; do
        [[ -f "crates/server/src/cli/$command.rs" || -d "crates/server/src/cli/$command" ]] || miss "$document" "there is no command \`wasel $command\`"
    done < <(grep -v 'Not yet' "$document" | grep -oE '(^|`)wasel [a-z]+' | sed 's/.*wasel //' | sort -u || true)
done

# Documents that code, SQL and settings point to.
while IFS=: read -r file path; do
    [[ -e "$path" ]] || miss "$file" "there is no $path"
done < <(grep -E '(\.(rs|sql|toml|ts|tsx)|^Makefile)$' <<<"$files" | tr '\n' '\0' |
    xargs -0 grep -HoE '\bdocs/[A-Za-z0-9_/.-]+\.md' || true)

# Variables the documents name are those of the settings.
settings=$(cat crates/config/config.default.toml)
while IFS=: read -r file variable; do
    grep -qE "\b${variable%_FILE}\b" <<<"$settings" || miss "$file" "there is no variable $variable"
done < <(grep -HoE '\bWASEL_(SERVER|DATABASE|AUTH|PROVIDERS|LIMITS|OUTBOX|RETENTION|LOGGING)_[A-Z_]+' /dev/null $documents || true)

if ((misses > 0)); then
    echo "$misses things that the documentation names do not exist" >&2
    exit 1
fi
echo "documentation: every path, link, make target and command exists"
