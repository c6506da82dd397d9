#!/usr/bin/env bash
# Screen a folder of monolayers or layered crystals: C2DB, JARVIS-2D, 2DMatPedia or MAGNDATA exports.
#
#     launch/screen.sh structures/ table.parquet
#
# Structures with no moments of their own need them by element: MAGMOMS=Cr=3,Mn=5 launch/screen.sh ...
# Interrupted, the same command goes on.
set -euo pipefail

altermag screen "$1" -o "$2" --top "${2%.parquet}.md" ${MAGMOMS:+--magmoms "$MAGMOMS"}
