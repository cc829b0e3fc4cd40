#!/bin/sh
# Stockfish is the opponent of the chess tasks. Installed by apt where it is missing and we may.
set -eu
if command -v stockfish >/dev/null 2>&1 || [ -x /usr/games/stockfish ] || [ -n "${LMRL_STOCKFISH:-}" ]; then
    exit 0
fi
sudo=""
if [ "$(id -u)" -ne 0 ]; then
    sudo="sudo -n"
fi
if command -v apt-get >/dev/null 2>&1 && $sudo true 2>/dev/null; then
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq stockfish >/dev/null
else
    echo "note: Stockfish is missing and cannot be installed here; the chess tasks and their tests need it" >&2
    echo "      (Debian: apt-get install stockfish; or set LMRL_STOCKFISH to the binary)" >&2
fi
