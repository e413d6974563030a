#!/usr/bin/env bash
# Everything that must hold before a change lands: `./test.sh`, or `./test.sh STEP…` for some steps.
#
# Needs Rust (rustup), Go, Python 3.10 or later, a C and a C++ compiler (for libFuzzer). What else the tests use goes into
# .tools/ (ignored by git), pinned, once. A missing tool is a failure that names it, never a skip.
# Logs: target/test-logs/<step>.log. The last line is `N passed, N failed`; exit 1 on any failure.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2

CARGO_DENY_VERSION=0.20.2
LITESTREAM_VERSION=v0.5.18
VERSITYGW_VERSION=v1.8.0
DYNOXIDE_VERSION=3.2.0

TOOL_STEPS=(python cargo-deny litestream dynoxide versitygw systemd-analyze)
CHECK_STEPS=(scripts fmt clippy doc build deny test fuzz aws demo)

ROOT=$PWD
TOOLS=$ROOT/.tools
LOGS=$ROOT/target/test-logs
mkdir -p "$TOOLS/bin" "$TOOLS/stamps" "$LOGS"
export PATH="$TOOLS/bin:$PATH" CARGO_TERM_COLOR=never
# The same cases each time, so that a change is judged by what it changed; to explore, run a suite without it.
export PROPTEST_RNG_SEED=1
[ -n "${CI:-}" ] && export CARGO_INCREMENTAL=0

# --- tools: each function leaves a working program in .tools/, or says why it cannot -------------

# current NAME KEY: is the tool NAME there, as KEY (its version, its requirements) asks?
current() { [ "$(cat "$TOOLS/stamps/$1" 2>/dev/null)" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$TOOLS/stamps/$1"; }

step_python() {
    local requirements=tests/aws/requirements.txt key
    [ -f "$requirements" ] || { echo "missing file: $requirements"; return 1; }
    key="$(python3 --version) $(sha256sum <"$requirements")"
    current python "$key" && return 0
    rm -rf "$TOOLS/venv"
    python3 -m venv "$TOOLS/venv" || { echo "missing tool: python3 with the venv module"; return 1; }
    limit 900 "$TOOLS/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r "$requirements" && stamp python "$key"
}

# crate_tool NAME CRATE VERSION OPTION…: a debug build, since the time to build it is all that counts,
# in a target directory of its own, so that it does not wait for the workspace's.
crate_tool() {
    local name=$1 crate=$2 version=$3
    shift 3
    current "$name" "$version $*" && return 0
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$TOOLS/build" \
        limit 1500 cargo install "$crate" --version "$version" --locked --debug "$@" \
        --root "$TOOLS" && rm -rf "$TOOLS/build" && stamp "$name" "$version $*"
}

step_cargo-deny() { crate_tool cargo-deny cargo-deny "$CARGO_DENY_VERSION"; }
# DynamoDB on one port, over SQLite.
step_dynoxide() { crate_tool dynoxide dynoxide-rs "$DYNOXIDE_VERSION" \
    --no-default-features --features cli,http-server,native-sqlite; }

# go_tool NAME PACKAGE VERSION: both programs here are pure Go, so no C compiler is asked for.
go_tool() {
    current "$1" "$3" && return 0
    CGO_ENABLED=0 GOBIN="$TOOLS/bin" GOFLAGS=-buildvcs=false \
        limit 1200 go install -ldflags='-s -w' "$2@$3" && stamp "$1" "$3"
}

step_litestream() { go_tool litestream github.com/benbjohnson/litestream/cmd/litestream "$LITESTREAM_VERSION"; }
step_versitygw() { go_tool versitygw github.com/versity/versitygw/cmd/versitygw "$VERSITYGW_VERSION"; }

# The machine's own, else Debian's package: installed by root, unpacked into .tools/ by others.
step_systemd-analyze() {
    systemd-analyze --version && return 0
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd
    else
        local unpacked=$TOOLS/systemd
        rm -rf "$unpacked" && mkdir -p "$unpacked/debs"
        (cd "$unpacked/debs" && apt-get download systemd libsystemd0 libsystemd-shared) &&
            for deb in "$unpacked"/debs/*.deb; do dpkg -x "$deb" "$unpacked" || return 1; done
        local libraries
        libraries=$(dirname "$(find "$unpacked" -name 'libsystemd-shared-*.so' | head -n 1)")
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' \
            "$libraries" "$unpacked/usr/bin/systemd-analyze" >"$TOOLS/bin/systemd-analyze"
        chmod +x "$TOOLS/bin/systemd-analyze"
    fi
    systemd-analyze --version || { echo "missing tool: systemd-analyze (Debian: apt install systemd)"; return 1; }
}

# --- checks -----------------------------------------------------------------------------------

step_scripts() {
    local script
    for script in test.sh demo.sh .ci/run fuzz/run; do
        bash -n "$script" && [ -x "$script" ] || { echo "not an executable bash script: $script"; return 1; }
    done
}

step_fmt() { cargo fmt --all --check; }
step_clippy() { limit 1500 cargo clippy --workspace --all-targets -- -D warnings; }
# Private items too: the programs' modules are read by those who work on them.
step_doc() { RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' limit 900 cargo doc --no-deps --workspace --document-private-items; }
step_deny() { cargo deny check --hide-inclusion-graph licenses bans sources; }
step_build() { limit 1500 cargo build --workspace --bins --tests; }
step_test() {
    local programs=$LOGS/test-programs.json
    limit 1500 cargo test --workspace --no-run --message-format=json-render-diagnostics >"$programs" || return 1
    offline limit 3600 python3 tests/suites.py <"$programs" && offline limit 600 cargo test --workspace --doc
}
step_aws() { limit 600 cargo fetch --locked && offline limit 3600 tests/aws/run; }
# Each target for 15 seconds, guided by coverage; an hour each by hand: fuzz/run 3600.
step_fuzz() { FUZZ_SEED=1 limit 900 fuzz/run 15; }
step_demo() { limit 600 ./demo.sh; }

# For steps that talk to servers on this machine: no proxy, no certificate bundle for the AWS
# clients (it stops Litestream's), and none of the caller's AWS identity.
offline() {
    (
        unset HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
        unset AWS_CA_BUNDLE AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL
        unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION AWS_DEFAULT_REGION
        export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
        "$@"
    )
}

# In the foreground group, so that an interrupt reaches what runs.
limit() { timeout --foreground --kill-after=20 "$@"; }

# --- running steps -----------------------------------------------------------------------------

# tests_of STEP: prints "passed failed" of a step whose log counts its tests, else nothing.
tests_of() {
    case $1 in
        test)
            awk '/^test result: / { passed += $4; failed += $6; ignored += $8; seen = 1 }
                # A test that is switched off is a failure: nothing here is skipped.
                END { if (seen) print passed + 0, failed + ignored }' "$LOGS/test.log"
            ;;
        aws) sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$LOGS/aws.log" | tail -n 1 ;;
    esac
}

# Errors of a build; and of each failed test how it says it failed.
what_failed() { awk '/^error|^test .* FAILED$/; /^---- .* stdout ----$/ { left = 40 } left-- > 0' "$1"; }

run_step() {
    local name=$1 started=$SECONDS passed failed status=ok
    "step_$name" >"$LOGS/$name.log" 2>&1 </dev/null || status=FAILED
    read -r passed failed < <(tests_of "$name")
    if [ -z "${passed:-}" ]; then
        passed=1 failed=0
        [ "$status" = ok ] || passed=0 failed=1
    elif [ "$failed" != 0 ]; then
        status=FAILED
    elif [ "$status" != ok ]; then
        failed=1
    fi
    echo "$status $passed $failed $((SECONDS - started))" >"$LOGS/$name.result"
    if [ "$status" = ok ]; then
        printf '%-16s ok      %4d s\n' "$name" $((SECONDS - started))
    else
        printf '%-16s FAILED  %4d s  (%s)\n%s\n' "$name" $((SECONDS - started)) "$LOGS/$name.log" \
            "$({ what_failed "$LOGS/$name.log" | head -n 150; tail -n 40 "$LOGS/$name.log"; } | cut -c -400 | sed 's/^/    | /')"
    fi
}

# What a check needs from .tools/.
tools_of() {
    case $1 in
        deny) echo cargo-deny ;;
        test) echo litestream dynoxide versitygw systemd-analyze ;;
        aws) echo python ;;
    esac
}

if [ $# -gt 0 ]; then
    checks=() tools=()
    for name in "$@"; do
        case " ${TOOL_STEPS[*]} " in *" $name "*) tools+=("$name"); continue ;; esac
        case " ${CHECK_STEPS[*]} " in
            *" $name "*) checks+=("$name"); for tool in $(tools_of "$name"); do tools+=("$tool"); done ;;
            *) echo "unknown step: $name (steps: ${TOOL_STEPS[*]} ${CHECK_STEPS[*]})" >&2; exit 2 ;;
        esac
    done
else
    checks=("${CHECK_STEPS[@]}") tools=("${TOOL_STEPS[@]}")
fi
for name in "${tools[@]}" "${checks[@]}"; do rm -f "$LOGS/$name.result"; done

for program in cargo go python3 cc c++ git; do
    command -v "$program" >/dev/null || echo "missing tool: $program (the steps that need it will fail)"
done

# Tools are fetched and built beside the first checks, which need none of them.
(for name in "${tools[@]}"; do run_step "$name"; done) &
tools_lane=$!
trap 'kill "$tools_lane" 2>/dev/null' EXIT
for name in "${checks[@]}"; do
    [ -z "$(tools_of "$name")" ] && [ "$name" != demo ] || continue
    run_step "$name"
done
wait "$tools_lane"
trap - EXIT
for name in "${checks[@]}"; do
    [ -f "$LOGS/$name.result" ] || run_step "$name"
done

total_passed=0 total_failed=0
printf '\n%-16s %-7s %7s %7s %8s\n' step result passed failed seconds
for name in "${tools[@]}" "${checks[@]}"; do
    read -r status passed failed seconds <"$LOGS/$name.result" || { status=LOST passed=0 failed=1 seconds=0; }
    printf '%-16s %-7s %7d %7d %8d\n' "$name" "$status" "$passed" "$failed" "$seconds"
    total_passed=$((total_passed + passed)) total_failed=$((total_failed + failed))
done
printf '%-16s %-7s %7s %7s %8d\n\n' total '' '' '' "$SECONDS"
echo "$total_passed passed, $total_failed failed"
[ "$total_failed" = 0 ]
