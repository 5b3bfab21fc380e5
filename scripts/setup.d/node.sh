# Finds a Node that is new enough, or brings one. To be sourced by bash scripts.
#
# Private builds live in $QMP_AGENT_NODE_DIR, by default ${XDG_DATA_HOME:-~/.local/share}/qmp-agent-node;
# nothing outside that directory changes, and removing it undoes the installation.

node_min_major=20
node_min_minor=19
# The checksum is that of the release's own SHASUMS256.txt, kept here so that the download's host
# need not be trusted.
node_version=22.20.0
node_sha256=00bbd05e306ea68b6e13e17360d0e2f680b493ef95f2fea1c4296ff7437530bc
node_name="node-v$node_version-linux-x64"
node_url="https://nodejs.org/dist/v$node_version/$node_name.tar.xz"

private_node_dir() {
  printf '%s' "${QMP_AGENT_NODE_DIR:-${XDG_DATA_HOME:-${HOME:-/root}/.local/share}/qmp-agent-node}"
}

version_fits() { # vMAJOR.MINOR.PATCH
  local major minor rest
  IFS=. read -r major minor rest <<<"${1#v}"
  [[ "$major" =~ ^[0-9]+$ && "$minor" =~ ^[0-9]+$ ]] || return 1
  ((major > node_min_major || (major == node_min_major && minor >= node_min_minor)))
}

# Prints the directory that holds a node and an npm that fit; fails where there is none.
fitting_node() {
  local candidate
  for candidate in "$(dirname "$(command -v node 2>/dev/null || echo /nonexistent/node)")" \
    "$(private_node_dir)/$node_name/bin"; do
    if [ -x "$candidate/node" ] && [ -x "$candidate/npm" ] &&
      version_fits "$("$candidate/node" --version 2>/dev/null)"; then
      printf '%s' "$candidate"
      return 0
    fi
  done
  return 1
}

# Puts the fitting Node first on PATH.
use_fitting_node() {
  local dir
  dir="$(fitting_node)" || {
    echo "no Node $node_min_major.$node_min_minor or newer: run scripts/install-needs" >&2
    return 1
  }
  export PATH="$dir:$PATH"
}

distribution_node_fits() {
  local candidate
  candidate="$(apt-cache policy nodejs 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9.]*\).*/\1/p')"
  version_fits "v${candidate:-0.0}"
}

# Fetches the official build, checks it, and moves it into place in one step. curl and wget read the
# proxy variables and the machine's CA bundle themselves.
install_private_node() {
  local dir work archive
  dir="$(private_node_dir)"
  mkdir -p "$dir"
  work="$(mktemp -d "$dir/.new.XXXXXX")"
  archive="$work/node.tar.xz"
  echo "install-needs: fetching $node_name (no Node $node_min_major.$node_min_minor or newer here)" >&2
  if ! fetch_file "$node_url" "$archive"; then
    rm -rf "$work"
    echo "install-needs: cannot fetch $node_url" >&2
    echo "  hint: install Node $node_min_major.$node_min_minor or newer with npm by hand, or set https_proxy" >&2
    return 1
  fi
  if ! echo "$node_sha256  $archive" | sha256sum --check --status; then
    rm -rf "$work"
    echo "install-needs: $node_url has the wrong checksum; it was not used" >&2
    echo "  hint: something between here and there changed the file; try another network" >&2
    return 1
  fi
  tar -xJf "$archive" -C "$work"
  rm -rf "${dir:?}/$node_name"
  mv "$work/$node_name" "$dir/$node_name"
  rm -rf "$work"
}

fetch_file() { # URL FILE
  if command -v curl >/dev/null 2>&1; then
    curl --fail --silent --show-error --location --retry 3 --max-time 600 --output "$2" "$1"
  elif command -v wget >/dev/null 2>&1; then
    wget --quiet --tries=3 --timeout=60 --output-document="$2" "$1"
  elif command -v apt-get >/dev/null 2>&1; then
    apt_install curl && curl --fail --silent --show-error --location --max-time 600 --output "$2" "$1"
  else
    return 1
  fi
}
