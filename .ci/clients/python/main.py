"""The whole main job by a client generated from openapi/client.json, with `ruff` in PATH:

openapi-python-client generate --path client.json --output-path portal_client --meta none --overwrite --fail-on-warning
"""

import json
import os
import re
import time
from typing import Any, TypeVar

import attrs
import httpx
from portal_client import AuthenticatedClient, Client, models as m
from portal_client.api.audit import audit_list
from portal_client.api.containers import container_create, container_delete, container_find, container_list
from portal_client.api.containers import container_start, container_stop, container_update, template_list
from portal_client.api.containers import service_create, service_delete, service_list, service_update
from portal_client.api.containers import snapshot_create, snapshot_delete, snapshot_list
from portal_client.api.jobs import job_find, job_output_list
from portal_client.api.login import login_create, login_delete, session_list, token_create, token_delete
from portal_client.api.nginx import nginx_find
from portal_client.api.nodes import node_list, node_test
from portal_client.api.quotas import quota_own, quota_update
from portal_client.types import Response

PORTAL = os.environ["PORTAL_URL"].rstrip("/")
USER = os.environ["PORTAL_USER"]
T = TypeVar("T")
Moved = TypeVar("Moved", m.Progress, m.Deleted)


def step(what: str) -> None:
    print(f"python: {what}", flush=True)


def exact(value: Any) -> None:
    """Nothing came that the contract does not name."""
    if isinstance(value, list):
        for item in value:
            exact(item)
    elif attrs.has(type(value)) and not isinstance(value, m.ProblemErrors):
        assert not getattr(value, "additional_properties", None), value
        for field in attrs.fields(type(value)):
            exact(getattr(value, field.name))


def got(answer: Response[T | m.Problem], status: int = 200) -> T:
    assert answer.status_code == status, answer.content
    assert answer.parsed is not None and not isinstance(answer.parsed, m.Problem), answer.content
    exact(answer.parsed)
    return answer.parsed


def gone(answer: Response[Any]) -> None:
    assert answer.status_code == 204 and answer.content == b"", answer.content


def refused(answer: Response[Any], status: int) -> m.Problem:
    assert answer.status_code == status, answer.content
    assert isinstance(answer.parsed, m.Problem) and answer.parsed.status == status, answer.content
    exact(answer.parsed)
    return answer.parsed


def client(token: str, prefix: str = "Bearer", header: str = "Authorization") -> AuthenticatedClient:
    return AuthenticatedClient(
        PORTAL, token=token, prefix=prefix, auth_header_name=header, raise_on_unexpected_status=True
    )


def token_of(username: str, password: str, scopes: list[str]) -> m.NewlyMade:
    """Signs in, makes a token and ends the session again."""
    account = m.Credentials(username=username, password=password)
    login = login_create.sync_detailed(client=Client(PORTAL), body=account)
    assert got(login).success and "HttpOnly" in login.headers["set-cookie"]
    session = client(login.headers["set-cookie"].split(";")[0], prefix="", header="Cookie")
    wish = m.TokenRequest(name=f"python-{os.getpid()}", scopes=[m.TokenRequestScopesItem(scope) for scope in scopes])
    token = got(token_create.sync_detailed(client=session, body=wish), 201)
    assert (token.username, token.name, token.scopes) == (username, wish.name, scopes)
    assert any(s.current for s in got(session_list.sync_detailed(client=session)))
    got(login_delete.sync_detailed(client=session))
    refused(session_list.sync_detailed(client=session), 401)
    step(f"{username} signed in, made token {token.id}, signed out")
    return token


def follow(api: AuthenticatedClient, job_id: int) -> m.Job:
    for _ in range(600):
        job = got(job_find.sync_detailed(job_id, client=api))
        if job.status not in (m.JobState.PENDING, m.JobState.RUNNING):
            assert job.status == m.JobState.SUCCESS and job.finished_at, job
            return job
        time.sleep(0.1)
    raise AssertionError(f"job {job_id} does not end")


def settled(api: AuthenticatedClient, answer: Response[Moved | m.Problem]) -> None:
    """A change is done at once (200), or a job goes on with it (202)."""
    later = answer.status_code == 202
    progress: Moved = got(answer, 202 if later else 200)
    assert progress.success and isinstance(progress.job_id, int) == later, progress
    if isinstance(progress.job_id, int):
        follow(api, progress.job_id)


def create(api: AuthenticatedClient, bearer: str) -> m.Container:
    templates = got(template_list.sync_detailed(client=api))
    names = [t.os_release for t in templates if isinstance(t.os_release, str)]
    release = next(name for name in names if name.startswith("debian"))
    step(f"{len(templates)} templates")

    hostname = f"py-{os.getpid()}-{int(time.time()) % 100_000}"
    request = m.ContainerRequest(
        init=True, hostname=hostname, os_release=release, http_port=8080, additional_protocols=["rdp"]
    )
    bad = attrs.evolve(request, hostname="Not A Label", http_port=1)
    problem = refused(container_create.sync_detailed(client=api, body=bad, dry_run=True), 400)
    assert isinstance(problem.errors, m.ProblemErrors)
    assert sorted(problem.errors.additional_keys) == ["hostname", "httpPort"]
    step(f"400: {problem.detail}")
    step(f"404: {refused(container_find.sync_detailed(999_999_999, client=api), 404).detail}")

    plan = got(container_create.sync_detailed(client=api, body=request, dry_run=True))
    assert plan.success and plan.node and not plan.job_id
    step(f"dry run: would be on {plan.node}")

    asked = got(container_create.sync_detailed(client=api, body=request, idempotency_key=hostname), 202)
    again = got(container_create.sync_detailed(client=api, body=request, idempotency_key=hostname), 202)
    assert isinstance(asked.id, int) and isinstance(asked.job_id, int)
    assert (again.id, again.job_id) == (asked.id, asked.job_id)
    stream = httpx.get(f"{PORTAL}/api/stream/{asked.job_id}", headers={"Authorization": f"Bearer {bearer}"}, timeout=60)
    assert stream.headers["content-type"].split(";")[0] == "text/event-stream"
    events = stream.text.rstrip().split("\n\n")
    assert events[-1] == "event: close\ndata: Process finished with status: success", events[-1]
    text = "".join(json.loads(line) for line in re.findall(r'^data: (".*)', stream.text, re.M))
    made = follow(api, asked.job_id)
    assert (made.container_id, made.kind) == (asked.id, "container_create")
    output = got(job_output_list.sync_detailed(asked.job_id, client=api))
    assert "".join(chunk.output for chunk in output) == text and "Ready:" in text
    step(f"container {asked.id} made by job {asked.job_id}, {len(events)} events, {len(text)} characters of output")

    listed = container_list.sync_detailed(client=api)
    assert int(listed.headers["x-total-count"]) == len(got(listed))
    assert asked.id in [c.id for c in got(listed)]
    container = got(container_find.sync_detailed(asked.id, client=api))
    assert (container.hostname, container.username, container.status) == (hostname, USER, "running")
    assert any(s.type_ == m.ServiceKind.TCP and s.internal_port == 3389 and s.external_port for s in container.services)
    assert isinstance(container.ipv_4_address, str) and container.ipv_4_address.startswith("127.")
    assert isinstance(container.url, str)
    step(f"listed and shown: {container.url}, {len(container.services)} services")
    return container


def change(api: AuthenticatedClient, container: m.Container) -> None:
    cid = container.id

    def status() -> object:
        return got(container_find.sync_detailed(cid, client=api)).status

    added = got(service_create.sync_detailed(cid, client=api, body=m.ServiceRequest(protocol="9000/tcp")), 201)
    changed = got(service_update.sync_detailed(cid, added.id, client=api, body=m.ServiceUpdate(internal_port=9001)))
    assert (changed.internal_port, changed.external_port) == (9001, added.external_port)
    assert changed in got(service_list.sync_detailed(cid, client=api))
    gone(service_delete.sync_detailed(cid, added.id, client=api))
    assert added.id not in [s.id for s in got(service_list.sync_detailed(cid, client=api))]
    step(f"service {added.id} added, changed, removed")

    settled(api, container_stop.sync_detailed(cid, client=api))
    assert status() == "stopped"
    settled(api, container_start.sync_detailed(cid, client=api))
    assert status() == "running"
    step("stopped and started")

    assert isinstance(container.memory, int)
    memory = container.memory + 512
    settled(api, container_update.sync_detailed(cid, client=api, body=m.ContainerUpdate(memory=memory)))
    assert got(container_find.sync_detailed(cid, client=api)).memory == memory
    step(f"resized to {memory} MiB")

    settled(api, snapshot_create.sync_detailed(cid, client=api, body=m.SnapshotRequest(name="before-upgrade")))
    assert [s.name for s in got(snapshot_list.sync_detailed(cid, client=api))] == ["before-upgrade"]
    settled(api, snapshot_delete.sync_detailed(cid, "before-upgrade", client=api))
    assert got(snapshot_list.sync_detailed(cid, client=api)) == []
    step("snapshot taken, listed, deleted")

    settled(api, container_delete.sync_detailed(cid, client=api))
    refused(container_find.sync_detailed(cid, client=api), 404)
    step("container deleted")


def administer(admin: AuthenticatedClient, api: AuthenticatedClient, cid: int, token_id: int) -> None:
    nodes = got(node_list.sync_detailed(client=admin))
    node = next(n for n in nodes if n.enabled)
    check = got(node_test.sync_detailed(node.id, client=admin))
    assert check.problems == [] and re.match(r"\d+\.\d+", str(check.version)), check
    step(f"admin: {len(nodes)} nodes, {node.name} has Proxmox VE {check.version}")

    entries = got(audit_list.sync_detailed(client=admin, username=USER, target=f"/containers/{cid}", newest=True))
    entry = next(e for e in entries if e.action == "container_delete")
    assert (entry.username, entry.via, entry.token_id) == (USER, "token", token_id)
    assert entry.status == 202
    step(f"admin: {len(entries)} audit entries about container {cid}")

    before = got(quota_own.sync_detailed(client=api))
    wish = m.QuotaRequest(containers=7, memory=65536)
    limited = got(quota_update.sync_detailed(USER, client=admin, body=wish))
    assert limited.own_limits.to_dict() == wish.to_dict()
    assert got(quota_own.sync_detailed(client=api)).limits.containers == 7
    reset = m.QuotaRequest.from_dict(before.own_limits.to_dict())
    assert got(quota_update.sync_detailed(USER, client=admin, body=reset)) == before
    refused(quota_update.sync_detailed(USER, client=api, body=reset), 403)
    step(f"admin: quota of {USER} set and reset")

    conf = nginx_find.sync_detailed(client=admin)
    assert "http {" in got(conf)
    same = nginx_find.sync_detailed(client=admin, if_none_match=conf.headers["etag"])
    assert same.status_code == 304 and same.content == b""
    step("admin: nginx.conf, 304 the second time")


def main() -> None:
    user = token_of(USER, os.environ["PORTAL_PASSWORD"], ["containers:write", "jobs"])
    boss = token_of(os.environ["PORTAL_ADMIN"], os.environ["PORTAL_ADMIN_PASSWORD"], ["admin"])
    api, admin = client(user.token), client(boss.token)
    before = got(quota_own.sync_detailed(client=api))
    assert before.username == USER
    step(f"quota: {before.used.containers} containers used")
    container = create(api, user.token)
    change(api, container)
    assert got(quota_own.sync_detailed(client=api)).used == before.used
    administer(admin, api, container.id, user.id)
    for token in (user, boss):
        gone(token_delete.sync_detailed(token.id, client=admin))
        refused(quota_own.sync_detailed(client=client(token.token)), 401)
    step("tokens deleted")


main()
