# Steps that quickstart, test and lab share. To be sourced by bash scripts that have a fitting Node
# on PATH and are in the project's root.

# Runs `npm ci` unless node_modules already holds what package-lock.json names.
install_dependencies() {
  if node scripts/setup.d/dependencies-match.cjs; then return 0; fi
  npm ci --no-audit --no-fund
}

# Prints "name: 12.3 s" for the step that it runs, and hands on its exit code.
timed() { # NAME COMMAND…
  local name=$1 started=$EPOCHREALTIME code=0
  shift
  printf '\n== %s\n' "$name"
  "$@" || code=$?
  awk -v name="$name" -v from="$started" -v to="$EPOCHREALTIME" -v code="$code" \
    'BEGIN { printf "== %s: %.1f s%s\n", name, to - from, code ? " (failed, exit code " code ")" : "" }'
  return "$code"
}
