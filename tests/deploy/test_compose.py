"""The compose file says what the specification allows, hardens every container, and tells services what they take."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from forebay.config import read_settings
from forebay.launch import load_services
from forebay.local.deployment_secrets import Deployment, make_secrets
from forebay.pki.installation import parts_of
from tests.deploy.compose_file import FOLDER, ROOT, TOOLS, read_compose, variables

pytestmark = pytest.mark.deploy
COMPOSE = read_compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MTLS: dict[str, dict[str, Any]] = read_compose(None, "mtls.yaml")["services"]
_PKI = "/etc/forebay/pki"
OURS = {
    "gateway-1": "gateway",
    "scheduler-1": "scheduler",
    "scheduler-2": "scheduler",
    "registry": "registry",
    "admin": "admin",
}
ONE_SHOT = "volumes"
_CHECK = """
import json, sys, compose_spec
read = compose_spec.PyCompose.from_json(sys.stdin.read())
read.validate(), read.validate_secrets(), read.validate_networks(), read.validate_volumes()
print(json.dumps(sorted(read.to_dict()["services"])))
"""


def against_the_specification(compose: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    asked = [str(TOOLS / "python"), "-c", _CHECK]
    return subprocess.run(asked, input=json.dumps(compose), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("over", [(), ("mtls.yaml",)], ids=["alone", "mtls"])
def test_it_is_what_the_compose_specification_allows(over: tuple[str, ...]) -> None:
    done = against_the_specification(read_compose(None, *over))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == sorted(SERVICES)


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ({"read_onyl": True}, "read_onyl"),
        ({"networks": ["moon"]}, "moon"),
        ({"secrets": ["nobody-made-it"]}, "nobody-made-it"),
    ],
)
def test_what_the_specification_does_not_know_is_refused(part: dict[str, Any], wrong: str) -> None:
    broken = {**COMPOSE, "services": {**SERVICES, "admin": {**SERVICES["admin"], **part}}}
    done = against_the_specification(broken)
    assert done.returncode != 0
    assert wrong in done.stderr


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_container_may_do_what_it_must_and_has_its_limits(name: str) -> None:
    container = SERVICES[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in container
    assert set(container["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    if name == ONE_SHOT:
        assert container["cap_add"] == ["CHOWN"]
        assert container["network_mode"] == "none"
        return
    assert "cap_add" not in container
    assert int(container["user"].partition(":")[0]) > 0
    assert container["restart"] == "unless-stopped"
    if name != "otel-collector":  # its image has no program that could ask
        assert container["healthcheck"]["test"][0] == "CMD"


def test_images_are_named_by_version_and_ours_by_the_version_of_this_tree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, container in SERVICES.items():
        image, _, tag = container["image"].rpartition(":")
        assert re.match(r"v?\d+\.\d+", tag), name
        if image.startswith("forebay/"):
            assert tag == version, name
            assert container["build"]["args"]["SERVICE"] == image.removeprefix("forebay/"), name
    assert f"ARG VERSION={version}\n" in (ROOT / "deploy" / "Containerfile").read_text()


def test_secrets_are_files_and_never_in_the_environment(tmp_path: Path) -> None:
    for name, container in SERVICES.items():
        for variable in container.get("environment", {}):
            if re.search("PASSWORD|TOKEN|SEED|PEPPER|SECRET|_KEY|DATABASE_URL", variable):
                assert variable.endswith("_FILE"), (name, variable)
    parts = make_secrets(tmp_path, Deployment())
    made = {f"./secrets/{part}/{file}" for part, files in parts.items() for file in files}
    declared = {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert declared - made == {"./start-nats.sh", "./secrets/grafana/password"}
    assert made - declared == {"./secrets/backup/nats.seed"}  # for whoever makes backups
    assert "secrets/grafana/password" in (FOLDER / "make-secrets").read_text()
    assert "/secrets/" in (FOLDER / ".gitignore").read_text().split()


def test_a_service_reads_its_own_secrets_and_no_other_service_s() -> None:
    for name in OURS:
        prefix = name if name.startswith("gateway") else name.rstrip("-12")
        for secret in SERVICES[name]["secrets"]:
            assert secret["source"].startswith(f"{prefix}-"), (name, secret)


@pytest.mark.parametrize("services", [SERVICES, MTLS], ids=["alone", "mtls"])
@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_takes_what_the_image_and_the_file_tell_it(name: str, services: dict[str, dict[str, Any]]) -> None:
    service, container = OURS[name], services[name]
    (found,) = load_services([service])
    environ = {**image_environment(), **{key: str(value) for key, value in container["environment"].items()}}
    settings = read_settings(found.settings, service, file={}, environ=environ)
    mounted = {f"/run/secrets/{secret['target']}" for secret in container["secrets"]}
    told = {str(value) for key, value in environ.items() if str(value).startswith("/run/secrets/")}
    assert mounted == told
    state = [volume.split(":")[1] for volume in container["volumes"]]
    for field in ("snapshot_dir", "journal_dir", "spool_dir", "content_dir", "agents_file", "bootstrap_key_file"):
        path = getattr(settings, field, None)
        assert path is None or any(str(path).startswith(f"{folder}/") for folder in state), field


def test_with_certificates_each_part_has_its_own_and_no_address_of_another_is_a_plain_one() -> None:
    shown = set(re.findall(r"pki make.*?\$names", (FOLDER / "make-secrets").read_text(), re.DOTALL)[0].split())
    assert {"scheduler=scheduler-1", *(f"nats=nats-{number}" for number in (1, 2, 3))} <= shown
    made = parts_of(gateways=1, schedulers=2)
    for name, container in MTLS.items():
        folders = [one.split(":") for one in container.get("volumes", []) if one.startswith("./secrets/pki/")]
        if name not in (*OURS, "postgres", "nats-1", "nats-2", "nats-3"):
            assert not folders, name
            continue
        ((folder, target, mode),) = folders
        assert (target, mode) == ("/etc/nats/tls" if name.startswith("nats") else _PKI, "ro")
        part = folder.removeprefix("./secrets/pki/")
        assert part in made
        assert name.startswith(part), (name, part)
    for name in OURS:
        environment = MTLS[name]["environment"]
        said = {key: str(value) for key, value in environment.items() if str(value).startswith(f"{_PKI}/")}
        for key, value in said.items():
            ends = {"ca.crt": ("_CA_FILE",), "tls.crt": ("_CERT_FILE", "_CERT"), "tls.key": ("_KEY_FILE", "_KEY")}
            assert key.endswith(ends[value.removeprefix(f"{_PKI}/")]), (name, key, value)
        for key, value in environment.items():
            assert not re.match(r"(http|nats)://", str(value)) or key.startswith("OTEL_"), (name, key, value)
        assert sum("_INTERNAL_" in key for key in environment) == 3


def test_the_published_port_for_commands_is_with_certificates_the_one_that_asks_for_none() -> None:
    admin = MTLS["admin"]["environment"]
    published = {port.rpartition(":")[2] for port in MTLS["admin"]["ports"]}
    assert published == {"8091", admin["FOREBAY_ADMIN_OPERATORS_LISTEN"].partition(":")[2]}
    inner = admin["FOREBAY_ADMIN_LISTEN"].partition(":")[2]
    for name in set(OURS) - {"admin"}:
        (address,) = [value for key, value in MTLS[name]["environment"].items() if key.endswith("_ADMIN_ADDRESS")]
        assert address == f"admin:{inner}", name


def test_who_has_no_tables_does_not_reach_postgresql_and_inner_networks_lead_nowhere_else() -> None:
    on = {
        network: {n for n, c in SERVICES.items() if network in c.get("networks", [])} for network in COMPOSE["networks"]
    }
    assert on["data"] == {"postgres", "admin", "registry"}
    assert SERVICES["postgres"]["networks"] == ["data"]
    assert on["engines"] == {"gateway-1", "registry", "demo"}
    assert all(COMPOSE["networks"][name]["internal"] for name in ("inner", "data", "engines"))
    for name in ("nats-1", "nats-2", "nats-3", "scheduler-1", "scheduler-2"):
        assert SERVICES[name]["networks"] == ["inner"]
        assert "ports" not in SERVICES[name]


def test_what_is_kept_lies_on_three_nats_servers() -> None:
    for name in ("admin", "scheduler-1", "scheduler-2"):
        (replicas,) = [v for key, v in SERVICES[name]["environment"].items() if key.endswith("NATS_REPLICAS")]
        assert replicas == "3"
    assert Deployment().nats_servers == ("nats-1", "nats-2", "nats-3")


def test_a_gateway_is_given_the_time_that_its_streams_may_take() -> None:
    gateway = SERVICES["gateway-1"]
    (minutes,) = re.findall(r"^(\d+)m$", gateway["stop_grace_period"])
    assert int(minutes) * 60 > int(gateway["environment"]["FOREBAY_GATEWAY_DRAIN_S"]) + 15


def test_the_example_of_settings_has_all_there_are_with_what_holds_without_it() -> None:
    lines = [line.lstrip("# ") for line in (FOLDER / ".env.example").read_text().splitlines()]
    shown = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    known = variables()
    assert shown == {name: known[name] for name in shown}
    assert set(known) - set(shown) == {"PROMETHEUS_IMAGE", "GRAFANA_IMAGE", "OTEL_IMAGE"}


def test_prometheus_scrapes_every_service_that_there_is() -> None:
    text = (FOLDER / "prometheus.yml").read_text()
    for name in OURS:
        assert re.search(rf"\b{name}:809[5-8]\b", text), name


def image_environment() -> dict[str, str]:
    """What the Containerfile sets, that services read."""
    text = (ROOT / "deploy" / "Containerfile").read_text()
    return dict(re.findall(r"(FOREBAY_(?!IMAGE)[A-Z_]+)=(\S+)", text))
