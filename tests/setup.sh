#!/bin/sh
# Installs what the tests need besides Python packages: ip (iproute2) and curl.
# Run again it does nothing. Without root it says what is missing; the tests that need it then skip.
set -eu

missing=""
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of package names
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
    exit 0
fi

for package in $missing; do
    case $package in
        iproute2) tests="those of ports and of a Postgres that vanishes (a second network namespace)" ;;
        curl) tests="tests of the examples in the documentation" ;;
    esac
    echo "missing: $package; skipped: $tests"
done
