#!/usr/bin/env bash
# Install the programs that tests use: ffmpeg, sox, flac and lame to compare audio with, a
# browser, and npm for the browser demo.
#
#     bash tools/install_test_programs.sh
#
# For Debian and Ubuntu, as root or by sudo. Elsewhere, and if the installation fails, it
# says so and succeeds: the tests that need a missing program are skipped.
set -uo pipefail

packages=(ffmpeg sox libsox-fmt-all flac lame vorbis-tools opus-tools chromium npm)
programs=(ffmpeg sox flac lame oggenc opusenc chromium npm)

log() { echo "install_test_programs: $*"; }
missing() { for name in "${programs[@]}"; do command -v "$name" >/dev/null || echo "$name"; done; }

if [ -z "$(missing)" ]; then exit 0; fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo --non-interactive); fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >/dev/null; }
if command -v apt-get >/dev/null; then
    apt update && apt install --yes --no-install-recommends "${packages[@]}"
fi
left=$(missing | paste -sd ' ')
if [ -n "$left" ]; then
    log "not installed: $left (tests that need them are skipped; packages: ${packages[*]})"
fi
