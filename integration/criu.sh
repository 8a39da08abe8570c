#!/bin/sh
# A CRIU that works on this kernel, for the tests of checkpoint and restore: where the system's does not, the one of the next
# suite of the same distribution, unpacked with its libraries below target/testkit/criu (or HULL_TEST_CACHE), 8 MB. The
# system's packages and apt configuration are left alone.
set -eu
cd "$(dirname "$0")/.."
suite=${HULL_CRIU_SUITE:-trixie}
cache=${HULL_TEST_CACHE:-${CARGO_TARGET_DIR:-target}/testkit}
[ "$(id -u)" = 0 ] || { echo "criu: not root: tests of checkpoint will be skipped"; exit 0; }
for criu in "$cache/criu/criu" criu; do
  if command -v "$criu" >/dev/null && "$criu" check >/dev/null 2>&1; then exit 0; fi
done
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
work=$cache/criu.new
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial" "$work/tree"

# The mirror of the running release, with another suite; nothing counts as installed, so that every library comes along.
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
  awk -v release="$release" '$2 == release { print $1; exit }')
[ -n "$mirror" ] || { echo "criu: no apt source of $release: tests of checkpoint will be skipped"; exit 0; }
echo "criu: fetching the one of $suite"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/apt/sources.list"
: >"$work/apt/status"
cat >"$work/apt/apt.conf" <<END
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$work/apt/state";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt/cache";
Acquire::Languages "none";
END
log=$cache/criu.log
if ! { APT_CONFIG=$work/apt/apt.conf apt-get update -q &&
  APT_CONFIG=$work/apt/apt.conf apt-get install -q -y --download-only --no-install-recommends criu; } >"$log" 2>&1; then
  tail -5 "$log"
  echo "criu: not to be had: tests of checkpoint will be skipped"
  exit 0
fi
for package in "$work"/apt/cache/archives/*.deb; do
  dpkg -x "$package" "$work/tree"
done
rm -rf "$work/apt" "$work/tree/usr/share"

# It runs with the loader and the libraries of its own suite.
loader=$(cd "$work/tree" && ls usr/lib*/ld-linux-*.so.* | head -1)
libraries=$(dirname "$(cd "$work/tree" && ls usr/lib/*/libc.so.6)")
cat >"$work/criu" <<END
#!/bin/sh
tree=\$(dirname "\$(readlink -f "\$0")")/tree
exec "\$tree/$loader" --library-path "\$tree/$libraries" "\$tree/usr/sbin/criu" "\$@"
END
chmod +x "$work/criu"
rm -rf "$cache/criu"
mv "$work" "$cache/criu"
trap - EXIT
"$cache/criu/criu" check >"$log" 2>&1 || { tail -5 "$log"; echo "criu: $suite's does not work here either: tests of checkpoint will be skipped"; }
