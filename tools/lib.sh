# Shared by the scripts beside it; sourced, not run.
# shellcheck shell=bash

# Says a line on standard error, under the name of the script that runs.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# Says why the script cannot go on, in one sentence, and ends it.
die() {
    say "$*"
    exit 1
}

# A command on the PATH?
have() {
    command -v "$1" >/dev/null 2>&1
}

# An option of cargo: in CI nothing but Cargo.lock says what is built.
locked=()
[[ -z ${CI:-} ]] || locked=(--locked)

# What static programs are built for: this machine.
static_triple() {
    rustc -vV | sed -n 's/^host: //p'
}

# Builds static programs as the images have them, with further options of cargo: they are in target/<triple>/<profile>.
# With --target the flags are for the programs alone, and not for what runs during the build. Packed relocations are a
# hundredth in size of what they are otherwise, and the start need not read those pages.
static_build() {
    RUSTFLAGS='-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs' \
        nice cargo build --quiet "${locked[@]}" --target "$(static_triple)" "$@"
}

# Where tools that `make test` needs are kept, outside the tree, so that a fresh clone need not build them again.
tool_cache() {
    printf '%s/kubedaemon-test\n' "${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}"
}

# shellcheck disable=SC2034 # used by the scripts that source this
# Versions of those tools. A new version is built beside the old one.
readonly CARGO_DENY_VERSION=0.20.2 CARGO_MACHETE_VERSION=0.9.2

# Prints the path of a tool from crates.io, of exactly this version, and builds it first when it is not in the cache.
cargo_tool() {
    local name=$1 version=$2 root
    root=$(tool_cache)/$name-$version
    if [[ ! -x $root/bin/$name ]]; then
        say "building $name $version into $root (once)"
        # From elsewhere: the tree's own target directory and configuration are not for tools.
        (cd / && env -u CARGO_TARGET_DIR CARGO_TERM_PROGRESS_WHEN=never \
            cargo install --locked --quiet --root "$root" "$name@$version") >&2 || return 1
    fi
    printf '%s\n' "$root/bin/$name"
}

# Whether the tests know what version $2 of RabbitMQ does, of Debian suite $1: suites move on.
is_known_rabbitmq() {
    case $1-$2 in trixie-4.0.* | sid-4.3.*) ;; *) return 1 ;; esac
}
