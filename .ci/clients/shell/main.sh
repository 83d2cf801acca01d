#!/bin/bash
# What scripts do with curl and jq: register a container from an allowed machine, pull nginx.conf as cron would.
# main.sh OUT_DIR; PORTAL_URL, PORTAL_USER, PORTAL_ADMIN and PORTAL_ADMIN_PASSWORD come from the environment.
set -euo pipefail
cd "$1"
portal=${PORTAL_URL%/}
step() { echo "shell: $*"; }
fail() { echo "shell: $*" >&2; exit 1; }

curl -fsS -c jar -o signed.json -d username="$PORTAL_ADMIN" -d password="$PORTAL_ADMIN_PASSWORD" "$portal/login"
node=$(curl -fsS -b jar "$portal/nodes" | jq -er '.[0].name')
step "signed in by a cookie, node $node"

# The container that the script registers: made in Proxmox VE, as a script on a hypervisor does.
pve=$(curl -fsS -b jar "$portal/nodes" | jq -er '.[0].apiUrl')/api2/json
proxmox() { # further options, then a path
    curl -fsSk -b "PVEAuthCookie=$ticket" -H "CSRFPreventionToken: $csrf" "${@:1:$#-1}" "$pve${*: -1}"
}
login=$(curl -fsSk --data-urlencode username="$PORTAL_ADMIN@pve" --data-urlencode password="$PORTAL_ADMIN_PASSWORD" "$pve/access/ticket")
ticket=$(jq -er .data.ticket <<<"$login") csrf=$(jq -er .data.CSRFPreventionToken <<<"$login")
template=$(proxmox "/nodes/$node/storage/local/content" | jq -er '[.data[].volid | select(test("debian-12-standard"))][0]')
proxmox --data-urlencode vmid=64001 --data-urlencode hostname=sh-seed --data-urlencode ostemplate="$template" \
    --data-urlencode rootfs=local:4 --data-urlencode net0=name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:64:01,ip=dhcp \
    "/nodes/$node/lxc" >made.json
for _ in $(seq 100); do
    ! proxmox "/nodes/$node/lxc/64001/config" 2>/dev/null | jq -e '.data.lock == null' >/dev/null || break
    sleep 0.1
done
step "made CT 64001 on $node"

pull() { # the HTTP status; nginx.conf stays when nothing is new
    curl -fsS --etag-save etag --etag-compare etag -o nginx.conf -w '%{http_code}' "$portal/nginx.conf"
}
register() { # further fields; the status is the last line
    curl -sS -w '\n%{http_code}' --data-urlencode hostname=sh-seed --data-urlencode ipv4Address=127.9.0.64 \
        --data-urlencode username="$PORTAL_USER" --data-urlencode osRelease=debian --data-urlencode containerId=64001 \
        --data-urlencode macAddress=BC:24:11:00:64:01 --data-urlencode aiContainer=N --data-urlencode httpPort=8080 \
        "$@" "$portal/containers"
}
expect() { # STATUS, then an answer of `register`, whose JSON it prints
    [ "${2##*$'\n'}" = "$1" ] || fail "$1 expected, not: $2"
    printf '%s' "${2%$'\n'*}"
}

rm -f etag nginx.conf
[ "$(pull)" = 200 ] || fail "first pull"
grep -q 'http {' nginx.conf

answer=$(expect 200 "$(register --data-urlencode additionalProtocols=RDP,dns --data-urlencode node="$node")")
id=$(jq -e .containerId <<<"$answer")
jq -e '.success and .containerId == .data.id and .data.containerId == 64001' <<<"$answer" >registered.json
kinds=$(jq -er '.data.services[] | "\(.type)/\(.internalPort)/\(.externalPort // .externalHostname)"' <<<"$answer")
[[ $kinds == http/8080/sh-seed$'\n'tcp/*$'\n'tcp/3389/*$'\n'udp/53/* ]] || fail "services: $kinds"
step "registered as $id: $(paste -sd' ' <<<"$kinds")"

again=$(expect 200 "$(register --data-urlencode additionalProtocols=RDP,dns --data-urlencode node="$node")")
[ "$(jq -c .data.services <<<"$again")" = "$(jq -c .data.services <<<"$answer")" ] || fail "services changed: $again"
problem=$(expect 400 "$(register --data-urlencode additionalProtocols=gopher --data-urlencode node="$node")")
jq -e '.status == 400 and (.errors.additionalProtocols | contains("gopher"))' <<<"$problem" >refused.json ||
    fail "$problem"
step "registered again without a change; $(jq -r .detail <<<"$problem")"

[ "$(pull)" = 200 ] || fail "the pull after the registration"
grep -q '127\.9\.0\.64:8080' nginx.conf || fail "the container is not in nginx.conf"
size=$(stat -c %s nginx.conf)
[ "$(pull)" = 304 ] || fail "the pull without news"
[ "$(stat -c %s nginx.conf)" = "$size" ] || fail "304 changed the file"
step "nginx.conf: 200, 200 with news, 304 without"

curl -fsS -b jar -X DELETE -H 'Accept: application/json' "$portal/containers/$id" | jq -e .success >deleted.json
[ "$(pull)" = 200 ] || fail "the last pull"
! grep -q '127\.9\.0\.64:8080' nginx.conf || fail "the container is still in nginx.conf"
curl -fsS -b jar -X POST -H 'Accept: application/json' "$portal/logout" | jq -e .success >signed.json
step "deleted the container, signed out"
