#!/usr/bin/env bash
# Runs every test of every module with the race detector, against real servers: what is missing of them is installed
# where that is possible. A test that is skipped for want of a server fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing() { ! command -v "$1" >/dev/null 2>&1; }

# install gets Debian packages, if this user may.
install() {
	missing apt-get && return 1
	local sudo=()
	if [ "$(id -u)" != 0 ]; then
		sudo=(sudo -n)
		"${sudo[@]}" true 2>/dev/null || return 1
	fi
	"${sudo[@]}" apt-get update -qq || true
	DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq "$@" >/dev/null
}

if missing redis-server; then
	echo "installing redis-server"
	# Debian would start a server of its own, which no test uses.
	install redis-server || echo "redis-server is missing: apt-get install redis-server"
fi

if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && missing initdb; then
	echo "installing PostgreSQL"
	install postgresql || echo "PostgreSQL is missing: apt-get install postgresql"
fi

if missing mariadbd && [ ! -x /usr/sbin/mariadbd ]; then
	echo "installing MariaDB"
	install mariadb-server || echo "MariaDB is missing: apt-get install mariadb-server"
fi

if missing nginx && [ ! -x /usr/sbin/nginx ]; then
	echo "installing nginx"
	install nginx-light || echo "nginx is missing: apt-get install nginx-light"
fi

if missing chromium && missing chromium-browser && missing google-chrome; then
	echo "installing chromium"
	install chromium || echo "a browser is missing: apt-get install chromium"
fi

# The emulator comes with the Google Cloud CLI, or as a container.
emulator_here() {
	[ -n "${FIRESTORE_EMULATOR_HOST:-}" ] && return 0
	! missing cloud_firestore_emulator && return 0
	local root
	for root in "${CLOUDSDK_ROOT_DIR:-}" /usr/lib/google-cloud-sdk /usr/share/google-cloud-sdk /opt/google-cloud-sdk "${HOME:-}/google-cloud-sdk"; do
		[ -e "$root/platform/cloud-firestore-emulator/cloud_firestore_emulator" ] && return 0
	done
	return 1
}

if ! emulator_here; then
	echo "installing the Firestore emulator"
	if ! install google-cloud-cli-firestore-emulator && docker info >/dev/null 2>&1; then
		container=$(docker run --rm --detach --publish 127.0.0.1::8080 google/cloud-sdk:emulators \
			gcloud emulators firestore start --host-port=0.0.0.0:8080)
		trap 'docker stop "$container" >/dev/null' EXIT
		FIRESTORE_EMULATOR_HOST=$(docker port "$container" 8080/tcp | head -n 1)
		export FIRESTORE_EMULATOR_HOST
		for _ in $(seq 60); do
			(exec 3<>"/dev/tcp/${FIRESTORE_EMULATOR_HOST%:*}/${FIRESTORE_EMULATOR_HOST#*:}") 2>/dev/null && break
			sleep 1
		done
	fi
fi
if [ -z "${FIRESTORE_EMULATOR_HOST:-}" ] && missing java; then
	echo "installing java, which runs the Firestore emulator"
	install default-jre-headless || echo "java is missing: apt-get install default-jre-headless"
fi

export SESSPLUS_REQUIRE_SERVERS=1

git ls-files -co --exclude-standard '*go.mod' | while read -r mod; do
	dir=$(dirname "$mod")
	echo "== go test -race -shuffle=on ./... in $dir"
	(cd "$dir" && go test -race -shuffle=on -timeout 20m ./...) </dev/null
done
