#!/bin/sh
# Installs the Debian packages that tests/fleet wants, where root and apt-get are there; else says
# what will be skipped. Never fails: without a package its tests are skipped by name.
# PROGRAM:PACKAGE
wanted="redis-server:redis-server chromium:chromium chromedriver:chromium-driver promtool:prometheus haproxy:haproxy"
PATH="$PATH:/usr/sbin:/sbin"

missing() {
    for pair in $wanted; do
        command -v "${pair%%:*}" > /dev/null 2>&1 || printf '%s ' "${pair#*:}"
    done
}

lacking=$(missing)
[ -n "$lacking" ] || exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null 2>&1; then
    echo "installing for tests/fleet: $lacking"
    export DEBIAN_FRONTEND=noninteractive
    # One after the other: what cannot be had keeps no other out. No daemon is started for the tests.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod +x "$policy" && ours=yes
    fi
    log=$(mktemp)
    apt-get update -qq > "$log" 2>&1 || true
    for package in $lacking; do
        timeout 600 apt-get install -y -qq --no-install-recommends "$package" >> "$log" 2>&1 \
            || { echo "apt-get cannot install $package:"; tail -n 2 "$log"; }
    done
    rm -f "$log"
    [ -z "${ours:-}" ] || rm -f "$policy"
    lacking=$(missing)
fi
[ -z "$lacking" ] || echo "tests/fleet skips what needs the Debian packages: $lacking"
exit 0
