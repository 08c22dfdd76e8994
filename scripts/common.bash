# Shared by the scripts beside it, which source it: where things are, how they speak.
# shellcheck shell=bash

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/target/venv
# The same names whoever reads them: the two variables below are for the callers.
# shellcheck disable=SC2034
python=$venv/bin/python
# shellcheck disable=SC2034
bin=$root/target/release

# Everything is built in one place, whatever the caller's own settings are.
export CARGO_TARGET_DIR=$root/target
export CARGO_NET_RETRY=${CARGO_NET_RETRY:-5}
# Python must leave no compiled files among the sources.
export PYTHONDONTWRITEBYTECODE=1
# rustup's directory is not on the PATH of a shell that began before Rust was installed.
if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-${HOME:-/root}/.cargo}/bin/cargo ]]; then
    PATH=${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH
fi

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The header of a script is its help: the comment lines after '#!', up to the first other line.
usage() { sed -n '2,${/^#/!q; s/^# \{0,1\}//; p}' "$0"; }

# Our servers listen on this machine: a proxy must not be asked for them, and settings for
# another remote must not reach them.
local_remotes_only() {
    export no_proxy="127.0.0.1,localhost${no_proxy:+,$no_proxy}"
    export NO_PROXY="127.0.0.1,localhost${NO_PROXY:+,$NO_PROXY}"
    unset PARQUEDB_REMOTE_URL PARQUEDB_TOKEN
}

# "3 min 07 s" for 187 seconds.
duration() {
    if (($1 < 60)); then
        printf '%d s' "$1"
    else
        printf '%d min %02d s' $(($1 / 60)) $(($1 % 60))
    fi
}
