#!/usr/bin/env bash
# Packs the program and its kernel tests for a machine with a GPU but without Rust; see usage() below.
set -u

usage() {
    cat <<'END'
Builds the program and its kernel tests, and packs them with scripts and data for a machine without Rust and network.

    scripts/gpu-pack.sh [FILE]           writes FILE [default: target/gpu-check.tar.gz], one folder alexnet-split-gpu/
    scripts/gpu-pack.sh --folder DIR     leaves the folder as DIR instead

There: tar xzf gpu-check.tar.gz && alexnet-split-gpu/scripts/gpu-check.sh
END
}

# Some machines take no more in one transfer.
readonly LIMIT_MB=60

die() {
    echo "gpu-pack: $*" >&2
    exit 1
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
file="" folder=""
case ${1-} in
    -h | --help) usage && exit 0 ;;
    --folder)
        (($# == 2)) || die "--folder needs a name and nothing else; see --help"
        folder=$2
        # Only what an earlier call has left is written over.
        if [[ -e $folder && ! -f $folder/VERSION && -n $(ls -A "$folder") ]]; then
            die "$folder is there and was not made by this script"
        fi
        ;;
    -*) die "unknown flag $1; see --help" ;;
    *)
        (($# <= 1)) || die "one file at most; see --help"
        file=${1:-$root/target/gpu-check.tar.gz}
        ;;
esac
for tool in cargo strip objdump tar; do
    command -v $tool >/dev/null || die "$tool is missing"
done

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
[[ -n $folder ]] || folder=$work/alexnet-split-gpu

# executable NAME COMMAND...: builds, and prints where cargo put the executable NAME.
executable() {
    local name=$1
    shift
    (cd "$root" && "$@" --release --locked --message-format=json-render-diagnostics) >"$work/messages" || return
    grep "\"name\":\"$name\"" "$work/messages" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

program=$(executable alexnet-split cargo build) || die "the program does not build"
operations=$(executable operations cargo test --no-run --test operations) || die "the tests do not build"
[[ -x $program && -x $operations ]] || die "cargo does not say where it put the programs"

rm -rf "${folder:?}"/{bin,scripts,data,VERSION}
mkdir -p "$folder"/{bin,scripts} || die "cannot write to $folder"
fill() {
    strip -o "$folder/bin/alexnet-split" "$program" &&
        strip -o "$folder/bin/operations" "$operations" &&
        cp "$root"/scripts/*.sh "$root"/scripts/*.py "$folder/scripts/" &&
        cp -r "$root/data" "$folder/data"
}
fill || die "cannot write to $folder"

# The newest function of the C library that a program asks for: an older library does not start it.
glibc=$(objdump -T "$folder"/bin/* | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
commit=$(git -C "$root" describe --always --abbrev=12 2>/dev/null || echo "unknown commit")
dirty=""
[[ -z $(git -C "$root" status --porcelain 2>/dev/null) ]] || dirty=" with changes that are not committed"
{
    echo "$("$program" --version), $commit$dirty"
    echo "packed $(date -u '+%Y-%m-%d %H:%M UTC') on $(uname -sm), built by $(rustc --version)${RUSTFLAGS:+, RUSTFLAGS=$RUSTFLAGS}"
    echo "needs glibc ${glibc#GLIBC_} or newer"
} >"$folder/VERSION"

if [[ -n $file ]]; then
    mkdir -p "$(dirname "$file")" || exit 1
    tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner -czf "$file" alexnet-split-gpu || die "cannot write $file"
    bytes=$(stat -c %s "$file")
else
    file=$folder
    bytes=$(du -sb "$folder" | cut -f 1)
fi
cat "$folder/VERSION"
echo "$file: $((bytes / 1000)) kB"
((bytes <= LIMIT_MB * 1000000)) || die "this is over $LIMIT_MB MB"
