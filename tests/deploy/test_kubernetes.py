"""The Kubernetes manifests: rendered by the real `kubectl kustomize`, valid for three versions, and right in what they say
of each other (names, ports, secrets, settings, who may speak to whom). No API server runs here: what a cluster makes of them
is not shown."""

from __future__ import annotations

import inspect
import ipaddress
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import jsonschema
import pytest
import yaml

from forebay.config import read_settings
from forebay.launch import load_services
from forebay.local.deployment_secrets import Deployment, make_secrets
from forebay.metrics import Metrics
from forebay_gateway import service as gateway_service
from forebay_scheduler.doorway import Doorway
from forebay_scheduler.meters import add_meters

pytestmark = pytest.mark.deploy
ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "k8s"
TOOLS = ROOT / "build" / "deploy" / "bin"
SCHEMAS = {
    (schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"]): schema
    for schema in (json.loads(file.read_text()) for file in (Path(__file__).parent / "schemas").glob("*.json"))
}
VERSIONS = ("1.35", "1.36", "1.37")
OVERLAYS = ("dev", "prod", "air-gapped")
VARIANTS = {
    "variants": ("keda", "tracing", "cert-manager", "external-secrets"),
    "on-host": ("agent-on-host",),
}
"""What no overlay has, on the bare services and agents."""
ALL = (*OVERLAYS, *VARIANTS)
SERVICES = ("gateway", "scheduler", "registry", "admin")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
NAME = "app.kubernetes.io/name"

Doc = dict[str, Any]


# --- what is rendered -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manifests:
    """All that one overlay makes."""

    docs: list[Doc]
    text: str

    def of(self, *kinds: str) -> list[Doc]:
        return [doc for doc in self.docs if doc["kind"] in kinds]

    def one(self, kind: str, name: str, namespace: str = "forebay") -> Doc:
        (found,) = (d for d in self.of(kind) if (name_of(d), namespace_of(d)) == (name, namespace))
        return found

    @property
    def workloads(self) -> list[Workload]:
        return [Workload(doc) for doc in self.of(*WORKLOADS)]

    def workload(self, name: str) -> Workload:
        (found,) = (w for w in self.workloads if w.name == name)
        return found


@dataclass(frozen=True)
class Workload:
    doc: Doc

    @property
    def name(self) -> str:
        return name_of(self.doc)

    @property
    def namespace(self) -> str:
        return namespace_of(self.doc)

    @property
    def pod(self) -> Doc:
        pod: Doc = self.doc["spec"]["template"]["spec"]
        return pod

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.doc["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def containers(self) -> list[Doc]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def main(self) -> Doc:
        container: Doc = self.pod["containers"][0]
        return container

    @property
    def ports(self) -> dict[str, int]:
        return {p["name"]: p["containerPort"] for c in self.containers for p in c.get("ports", [])}

    @property
    def pod_names(self) -> list[str]:
        """Those that last."""
        spec = self.doc["spec"]
        if self.doc["kind"] != "StatefulSet":
            return []
        first = spec.get("ordinals", {}).get("start", 0)
        return [f"{self.name}-{first + number}" for number in range(spec.get("replicas", 2))]

    def mount_of(self, path: str) -> Doc | None:
        """Of the main container, the innermost that this path lies in."""
        around = [m for m in self.main["volumeMounts"] if Path(path).is_relative_to(m["mountPath"])]
        return max(around, key=lambda m: len(m["mountPath"]), default=None)

    def volume(self, name: str) -> Doc:
        claims = [{"name": c["metadata"]["name"], "claim": c} for c in self.doc["spec"].get("volumeClaimTemplates", [])]
        volumes: list[Doc] = [*self.pod.get("volumes", []), *claims]
        (found,) = (v for v in volumes if v["name"] == name)
        return found


def name_of(doc: Doc) -> str:
    name: str = doc["metadata"]["name"]
    return name


def namespace_of(doc: Doc) -> str:
    namespace: str = doc["metadata"].get("namespace", "")
    return namespace


def selects(selector: Doc | None, labels: dict[str, str]) -> bool:
    """As Kubernetes reads a label selector; an empty one selects all."""
    if selector is None:
        return False
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    assert Path(command[0]).exists(), f"{command[0]} is not there: run `make test-deploy`"
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests, with secrets as an operator makes them for `dev`, and with the variants as overlays."""
    tree = tmp_path_factory.mktemp("k8s") / "k8s"
    shutil.copytree(MANIFESTS, tree, ignore=shutil.ignore_patterns("made"))
    make_secrets(
        tree / "secrets" / "made",
        Deployment(gateways=[f"gateway-{n}" for n in range(1, 9)], nats_servers=["nats"]),
    )
    for name, components in VARIANTS.items():
        folder = tree / "overlays" / name
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(
            yaml.safe_dump(
                {
                    "resources": ["../../base", "../../agents"],
                    "components": [f"../../components/{component}" for component in components],
                }
            )
        )
    return tree


def render(folder: Path) -> Manifests:
    done = run(TOOLS / "kubectl", "kustomize", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return Manifests([doc for doc in yaml.load_all(done.stdout, yaml.CSafeLoader) if doc], done.stdout)


@pytest.fixture(scope="module")
def rendered(tree: Path) -> dict[str, Manifests]:
    return {name: render(tree / "overlays" / name) for name in ALL}


@pytest.fixture(scope="module")
def secrets(tree: Path) -> Manifests:
    return render(tree / "secrets")


# --- valid ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_all_of_it(rendered: dict[str, Manifests], version: str, tmp_path: Path) -> None:
    different = {json.dumps(doc, sort_keys=True) for manifests in rendered.values() for doc in manifests.docs}
    (tmp_path / "all.yaml").write_text("\n---\n".join(sorted(different)))
    done = run(TOOLS / "kubernetes-validate", "--strict", "-k", version, tmp_path / "all.yaml")
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    unknown = set(re.findall(r"Couldn't find schema for kind (\w+) with api version (\S+)", told))
    assert {(api, kind) for kind, api in unknown} <= set(SCHEMAS), "neither Kubernetes nor a schema here knows it"


def test_what_kubernetes_would_refuse_is_found(rendered: dict[str, Manifests], tmp_path: Path) -> None:
    doc = json.loads(json.dumps(rendered["dev"].one("StatefulSet", "gateway")))
    doc["spec"]["template"]["spec"]["terminationGracePeriod"] = 10
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(doc))
    done = run(TOOLS / "kubernetes-validate", "--strict", "-k", VERSIONS[0], tmp_path / "wrong.yaml")
    assert done.returncode != 0
    assert "terminationGracePeriod" in done.stdout + done.stderr


@pytest.mark.parametrize("overlay", ALL)
def test_what_others_brought_to_kubernetes_has_its_form(rendered: dict[str, Manifests], overlay: str) -> None:
    for doc in rendered[overlay].docs:
        if schema := SCHEMAS.get((doc["apiVersion"], doc["kind"])):
            jsonschema.Draft202012Validator(schema).validate(doc)


def test_every_form_that_is_kept_here_is_used(rendered: dict[str, Manifests]) -> None:
    used = {(doc["apiVersion"], doc["kind"]) for manifests in rendered.values() for doc in manifests.docs}
    assert set(SCHEMAS) <= used


def test_every_component_is_in_some_rendering() -> None:
    named = {c for components in VARIANTS.values() for c in components}
    for overlay in OVERLAYS:
        kustomization = yaml.safe_load((MANIFESTS / "overlays" / overlay / "kustomization.yaml").read_text())
        named |= {Path(component).name for component in kustomization["components"]}
    assert named == {folder.name for folder in (MANIFESTS / "components").iterdir()}


# --- what containers may ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", ALL)
def test_every_container_has_no_right_that_it_does_not_need(rendered: dict[str, Manifests], overlay: str) -> None:
    for workload in rendered[overlay].workloads:
        pod, who = workload.pod["securityContext"], workload.name
        assert pod["runAsNonRoot"] is True, who
        assert pod["runAsUser"] > 0, who
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, who
        for container in workload.containers:
            who = f"{workload.name}/{container['name']}"
            may = container["securityContext"]
            assert may["readOnlyRootFilesystem"] is True, who
            assert may["allowPrivilegeEscalation"] is False, who
            assert may["capabilities"] == {"drop": ["ALL"]}, who
            assert not may.keys() & {"privileged", "runAsUser", "procMount"}, who
            assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["limits"].keys(), who
            assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["requests"].keys(), who
            assert not any("hostPort" in port for port in container.get("ports", [])), who
        # The kinds of volumes that the profile "restricted" allows.
        for volume in workload.pod.get("volumes", []):
            assert volume.keys() - {"name"} <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}, who
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], f"{who}: {volume['name']} has no end"


@pytest.mark.parametrize("overlay", ALL)
def test_every_container_that_lasts_is_probed(rendered: dict[str, Manifests], overlay: str) -> None:
    for workload in rendered[overlay].workloads:
        for container in workload.pod["containers"]:
            assert "livenessProbe" in container, f"{workload.name}/{container['name']}"
        assert {"startupProbe", "readinessProbe"} <= workload.main.keys(), workload.name


@pytest.mark.parametrize("overlay", ALL)
def test_only_agents_that_look_at_their_host_leave_the_restricted_profile(
    rendered: dict[str, Manifests], overlay: str
) -> None:
    manifests, loosened = rendered[overlay], set()
    for namespace in manifests.of("Namespace"):
        if namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] != "restricted":
            loosened.add(name_of(namespace))
    on_host = {w.name for w in manifests.workloads if {"hostNetwork", "hostPID", "hostIPC"} & w.pod.keys()}
    assert (loosened, on_host) == (({"forebay-agents"}, {"gpu-agent"}) if overlay == "on-host" else (set(), set()))


@pytest.mark.parametrize("overlay", ALL)
def test_only_the_registry_speaks_to_kubernetes_and_reads_two_things(
    rendered: dict[str, Manifests], overlay: str
) -> None:
    manifests = rendered[overlay]
    for workload in manifests.workloads:
        may = workload.name == "registry" and overlay in ("prod", "air-gapped")
        assert workload.pod["automountServiceAccountToken"] is may, workload.name
        account = manifests.one("ServiceAccount", workload.pod["serviceAccountName"], workload.namespace)
        assert account["automountServiceAccountToken"] is False
    assert not manifests.of("ClusterRole", "ClusterRoleBinding")
    if not (roles := manifests.of("Role")):
        return
    (role,), (binding,) = roles, manifests.of("RoleBinding")
    assert binding["roleRef"]["name"] == name_of(role)
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "registry", "namespace": "forebay"}]
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    verbs = ("get", "list", "watch")
    assert granted == {
        *(("", "services", verb) for verb in verbs),
        *(("discovery.k8s.io", "endpointslices", verb) for verb in verbs),
    }


@pytest.mark.parametrize("overlay", ALL)
def test_services_links_do_not_look_like_settings(rendered: dict[str, Manifests], overlay: str) -> None:
    """Of a Service called forebay-gateway a pod would be told FOREBAY_GATEWAY_SERVICE_HOST, which is no setting."""
    for workload in rendered[overlay].workloads:
        assert workload.pod["enableServiceLinks"] is False, workload.name


@pytest.mark.parametrize("overlay", ALL)
def test_images_have_a_version(rendered: dict[str, Manifests], overlay: str) -> None:
    for workload in rendered[overlay].workloads:
        for container in workload.containers:
            image = container["image"]
            assert re.search(r"(:[0-9]+\.[0-9]+[\w.-]*|@sha256:[0-9a-f]{64})$", image), image
            if overlay == "air-gapped":
                assert re.fullmatch(r"registry\.internal/forebay/[\w-]+@sha256:[0-9a-f]{64}", image), image


# --- names that have to meet ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", ALL)
def test_every_selector_finds_pods_and_every_port_is_one_of_theirs(
    rendered: dict[str, Manifests], overlay: str
) -> None:
    manifests = rendered[overlay]

    def found(doc: Doc, selector: Doc) -> list[Workload]:
        pods = [w for w in manifests.workloads if w.namespace == namespace_of(doc) and selects(selector, w.labels)]
        assert pods, f"{doc['kind']} {name_of(doc)} selects nothing"
        return pods

    for workload in manifests.workloads:
        assert selects(workload.doc["spec"]["selector"], workload.labels), workload.name
        assert len(found(workload.doc, workload.doc["spec"]["selector"])) == 1, workload.name
        for spread in workload.pod.get("topologySpreadConstraints", []):
            assert selects(spread["labelSelector"], workload.labels)
        for container in workload.containers:
            own = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if "httpGet" in container.get(probe, {}):
                    assert container[probe]["httpGet"]["port"] in own, f"{workload.name} {probe}"
    for service in manifests.of("Service"):
        for workload in found(service, {"matchLabels": service["spec"]["selector"]}):
            for port in service["spec"]["ports"]:
                assert port["targetPort"] in workload.ports, f"{name_of(service)} {port['name']}"
    for stateful in manifests.of("StatefulSet"):
        governing = manifests.one("Service", stateful["spec"]["serviceName"])
        assert governing["spec"]["clusterIP"] == "None"
    for budget in manifests.of("PodDisruptionBudget"):
        found(budget, budget["spec"]["selector"])
    for policy in manifests.of("NetworkPolicy"):
        found(policy, policy["spec"]["podSelector"])
    for monitor in manifests.of("ServiceMonitor"):
        chosen = [s for s in manifests.of("Service") if selects(monitor["spec"]["selector"], s["metadata"]["labels"])]
        scraped = {s["metadata"]["labels"][NAME] for s in chosen for p in s["spec"]["ports"] if p["name"] == "ops"}
        assert scraped == set(SERVICES)
        assert [e["port"] for e in monitor["spec"]["endpoints"]] == ["ops"]
    for monitor in manifests.of("PodMonitor"):
        (agent,) = found(monitor, monitor["spec"]["selector"])
        assert {e["port"] for e in monitor["spec"]["podMetricsEndpoints"]} <= agent.ports.keys()
    for route in manifests.of("HTTPRoute", "GRPCRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                ports = manifests.one("Service", backend["name"])["spec"]["ports"]
                assert backend["port"] in {p["port"] for p in ports}, name_of(route)
    for policy in manifests.of("BackendTLSPolicy"):
        for target in policy["spec"]["targetRefs"]:
            manifests.one("Service", target["name"])


@pytest.mark.parametrize("overlay", ALL)
def test_what_outlives_a_node_has_a_budget_and_is_spread(rendered: dict[str, Manifests], overlay: str) -> None:
    manifests = rendered[overlay]
    for name in SERVICES:
        workload = manifests.workload(name)
        budget = manifests.one("PodDisruptionBudget", name)
        assert selects(budget["spec"]["selector"], workload.labels)
        assert budget["spec"]["maxUnavailable"] == 1
        keys = [spread["topologyKey"] for spread in workload.pod["topologySpreadConstraints"]]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        if overlay in ("prod", "air-gapped") and name != "gateway":
            assert workload.pod["topologySpreadConstraints"][1]["whenUnsatisfiable"] == "DoNotSchedule"


def secret_references(workload: Workload) -> Iterator[tuple[str, str]]:
    """(secret, key or pattern of a key) for each file of a secret that the main container is given, and each variable."""
    volumes = {v["name"]: v["secret"]["secretName"] for v in workload.pod.get("volumes", []) if "secret" in v}
    for container in workload.containers:
        for mount in container.get("volumeMounts", []):
            if mount["name"] in volumes:
                yield volumes[mount["name"]], mount.get("subPathExpr", mount.get("subPath", "*"))
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield reference["name"], reference["key"]


@pytest.mark.parametrize("overlay", ALL)
def test_every_secret_and_config_map_that_is_named_is_made_somewhere(
    rendered: dict[str, Manifests], secrets: Manifests, overlay: str
) -> None:
    manifests = rendered[overlay]
    made = {name_of(secret): set(secret["data"]) for secret in secrets.of("Secret")}
    readme = (MANIFESTS / "README.md").read_text()
    maps = {(name_of(m), namespace_of(m)) for m in manifests.of("ConfigMap")}
    for workload in manifests.workloads:
        for secret, key in secret_references(workload):
            if secret in made:
                pattern = re.escape(key).replace(r"\$\(FOREBAY_GATEWAY_NAME\)", r"gateway-\d+").replace(r"\*", ".*")
                assert any(re.fullmatch(pattern, k) for k in made[secret]), f"{workload.name}: {secret} has no {key}"
            else:
                assert secret.startswith("pki-") or secret == "gpu-agents", f"nobody makes {secret}"
                assert f"`{secret}`" in readme, f"README.md does not say what {secret} is"
        for container in workload.containers:
            for source in container.get("envFrom", []):
                assert (source["configMapRef"]["name"], workload.namespace) in maps
        for volume in workload.pod.get("volumes", []):
            if "configMap" in volume:
                assert (volume["configMap"]["name"], workload.namespace) in maps
            if "persistentVolumeClaim" in volume:
                manifests.one("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])


def test_the_vault_has_every_secret_that_is_made_from_files(rendered: dict[str, Manifests], secrets: Manifests) -> None:
    external = {name_of(one) for one in rendered["variants"].of("ExternalSecret")}
    assert external == ({name_of(one) for one in secrets.of("Secret")} | {"gpu-agents"}) - {"postgres"}


def test_cert_manager_makes_what_mtls_mounts(rendered: dict[str, Manifests]) -> None:
    made = {
        (namespace_of(one), one["spec"]["secretName"]): one["spec"] for one in rendered["variants"].of("Certificate")
    }
    mounted = {
        (workload.namespace, secret)
        for workload in rendered["prod"].workloads
        for secret, _ in secret_references(workload)
        if secret.startswith("pki-")
    }
    assert set(made) == mounted
    for workload in rendered["prod"].workloads:
        own = made[workload.namespace, f"pki-{workload.name}"]
        # A service's token counts with a certificate of its own name alone.
        assert own["commonName"] == workload.name
        assert {"server auth", "client auth"} <= set(own["usages"])


# --- settings ---------------------------------------------------------------------------------------------------------


def environment(manifests: Manifests, workload: Workload, pod_name: str) -> dict[str, str]:
    """What its main container finds, in the pod of that name."""
    maps = {(name_of(m), namespace_of(m)): m["data"] for m in manifests.of("ConfigMap")}
    found: dict[str, str] = {}
    for source in workload.main.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"], workload.namespace]
    fields = {"metadata.name": pod_name, "spec.nodeName": "gpu-1.example.org"}
    for variable in workload.main.get("env", []):
        if "value" in variable:
            value = re.sub(r"\$\((\w+)\)", lambda m: found[m[1]], variable["value"])
        elif "fieldRef" in variable["valueFrom"]:
            value = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            continue
        found[variable["name"]] = value
    if workload.name == "gpu-agent":  # as its shell says
        found["FOREBAY_GPU_AGENT_NODE"] = found["KUBERNETES_NODE"].partition(".")[0]
    return found


def config_file(manifests: Manifests, workload: Workload) -> dict[str, Any]:
    import tomllib

    command = workload.main["command"]
    if "--config" not in command:
        return {}
    mount = workload.mount_of(command[command.index("--config") + 1])
    assert mount is not None
    name = workload.volume(mount["name"])["configMap"]["name"]
    (data,) = (m["data"] for m in manifests.of("ConfigMap") if name_of(m) == name)
    return tomllib.loads(data[mount["subPath"]])


def forebay_workloads(manifests: Manifests) -> list[Workload]:
    return [w for w in manifests.workloads if w.name in (*SERVICES, "gpu-agent")]


@pytest.mark.parametrize("overlay", ALL)
def test_services_take_the_settings_they_are_given(
    rendered: dict[str, Manifests], overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")  # as in every pod
    manifests = rendered[overlay]
    for workload in forebay_workloads(manifests):
        (service,) = load_services([workload.name])
        words = " ".join(workload.main["command"])
        assert f"forebay run {workload.name}" in words
        read_settings(
            service.settings,
            workload.name,
            file=config_file(manifests, workload),
            environ=environment(manifests, workload, f"{workload.name}-1"),
        )


@pytest.mark.parametrize("overlay", ALL)
def test_every_file_of_a_setting_is_mounted_and_every_folder_can_be_written(
    rendered: dict[str, Manifests], secrets: Manifests, overlay: str
) -> None:
    manifests = rendered[overlay]
    keys = {name_of(s): set(s["data"]) for s in secrets.of("Secret")}
    for workload in forebay_workloads(manifests):
        for variable, value in environment(manifests, workload, "gateway-1").items():
            if not value.startswith("/"):
                continue
            who = f"{workload.name}: {variable}={value}"
            mount = workload.mount_of(value)
            assert mount is not None, who
            volume = workload.volume(mount["name"])
            if variable.endswith("_DIR") or variable in (
                "FOREBAY_ADMIN_AGENTS_FILE",
                "FOREBAY_ADMIN_BOOTSTRAP_KEY_FILE",
            ):
                assert not mount.get("readOnly"), who
                assert volume.keys() & {"emptyDir", "persistentVolumeClaim", "claim"}, who
                continue
            name, rest = volume["secret"]["secretName"], Path(value).relative_to(mount["mountPath"])
            if name.startswith("pki-"):
                assert str(rest) in ("ca.crt", "tls.crt", "tls.key"), who
            elif "subPathExpr" not in mount:
                assert str(rest) in keys[name], who


@pytest.mark.parametrize("overlay", ALL)
def test_every_address_of_a_peer_is_there_and_listens(rendered: dict[str, Manifests], overlay: str) -> None:
    manifests = rendered[overlay]
    has_nats = any(w.name == "nats" for w in manifests.workloads)
    for workload in forebay_workloads(manifests):
        for variable, value in environment(manifests, workload, f"{workload.name}-1").items():
            if not re.search(r"(_ADDRESS|_URL|_URLS)$", variable) or "PUBLIC" in variable or "PAGES" in variable:
                continue
            for address in value.split(","):
                host, port = re.sub(r"^\w+://", "", address).rsplit(":", 1)
                first, _, second = host.removesuffix(".forebay").partition(".")
                if first == "nats" and not has_nats:
                    continue
                service = manifests.one("Service", second or first)
                (target,) = (
                    w for w in manifests.workloads if selects({"matchLabels": service["spec"]["selector"]}, w.labels)
                )
                (named,) = (p["targetPort"] for p in service["spec"]["ports"] if p["port"] == int(port))
                if second and overlay != "dev":  # there one of each is enough
                    assert first in target.pod_names, f"{workload.name}: {variable}={value}"
                if target.name in SERVICES:
                    listens = environment(manifests, target, target.name)
                    assert f":{target.ports[named]}" in " ".join(v for k, v in listens.items() if k.endswith("LISTEN"))


@pytest.mark.parametrize("overlay", ALL)
def test_those_that_lead_are_reached_under_the_name_they_tell(rendered: dict[str, Manifests], overlay: str) -> None:
    """A gateway goes on to the scheduler that another one names only if it knows that very address."""
    manifests = rendered[overlay]
    gateway = environment(manifests, manifests.workload("gateway"), "gateway-1")
    for name in ("scheduler", "registry"):
        workload = manifests.workload(name)
        known = gateway[f"FOREBAY_GATEWAY_{name.upper()}_ADDRESS"].split(",")
        told = [
            environment(manifests, workload, pod)[f"FOREBAY_{name.upper()}_ADVERTISE"] for pod in workload.pod_names
        ]
        assert set(told) <= set(known)
        assert overlay == "dev" or len(told) == len(known) == 2
        service = manifests.one("Service", name)["spec"]
        assert service["publishNotReadyAddresses"], "one that stands by, or still starts, can be asked who leads"
        assert workload.doc["spec"]["podManagementPolicy"] == "Parallel", "one is not waited for by the other"


def test_a_scheduler_that_stands_by_holds_up_neither_a_rollout_nor_a_drain(rendered: dict[str, Manifests]) -> None:
    probe = rendered["prod"].workload("scheduler").main["readinessProbe"]["httpGet"]
    assert probe["path"] == "/readyz?exclude=lead"


@pytest.mark.parametrize("overlay", ALL)
def test_a_pod_is_given_the_time_that_its_longest_stream_takes(rendered: dict[str, Manifests], overlay: str) -> None:
    manifests = rendered[overlay]
    gateway = manifests.workload("gateway")
    (service,) = load_services(["gateway"])
    settings = read_settings(service.settings, "gateway", file={}, environ=environment(manifests, gateway, "gateway-1"))
    pause = gateway.main["lifecycle"]["preStop"]["sleep"]["seconds"]
    afterwards = 2 * settings.publish_s + 10  # what streams that are cut, the scheduler and the bus still hear
    assert settings.drain_s > settings.max_duration_s
    assert gateway.pod["terminationGracePeriodSeconds"] >= pause + settings.drain_s + afterwards


# --- scaling ----------------------------------------------------------------------------------------------------------


def metrics_of_gateways() -> set[str]:
    metrics = Metrics()
    count = len(inspect.signature(gateway_service._add_gauges).parameters) - 1
    gateway_service._add_gauges(metrics, *[MagicMock() for _ in range(count)])
    return set(re.findall(r"^# TYPE (\w+)", metrics.exposition().decode(), re.MULTILINE))


def metrics_of_schedulers() -> set[str]:
    metrics, doorway = Metrics(), MagicMock(spec=Doorway)
    doorway.leading = ()
    add: Callable[..., None] = add_meters
    add(metrics, doorway, *[MagicMock() for _ in range(len(inspect.signature(add).parameters) - 2)])
    return set(re.findall(r"^# TYPE (\w+)", metrics.exposition().decode(), re.MULTILINE))


def test_gateways_are_scaled_by_metrics_that_they_have(rendered: dict[str, Manifests]) -> None:
    known = metrics_of_gateways() | metrics_of_schedulers()
    spec = rendered["prod"].one("HorizontalPodAutoscaler", "gateway")["spec"]
    asked = {m["pods"]["metric"]["name"] for m in spec["metrics"] if m["type"] == "Pods"}
    external = {m["external"]["metric"]["name"] for m in spec["metrics"] if m["type"] == "External"}
    assert asked == {"forebay_gateway_running", "forebay_gateway_waiting"}
    assert asked | external <= known
    rules = yaml.safe_load((MANIFESTS / "components" / "hpa" / "adapter-rules.yaml").read_text())["rules"]
    for kind, names in (("custom", asked), ("external", external)):
        assert {re.split(r"\{", rule["seriesQuery"])[0] for rule in rules[kind]} == names
    queries = [t["metadata"]["query"] for t in rendered["variants"].one("ScaledObject", "gateway")["spec"]["triggers"]]
    named = {name for query in queries for name in re.findall(r"forebay_\w+", query)}
    assert named == {"forebay_gateway_running", "forebay_scheduler_waiting"}
    assert named <= known


@pytest.mark.parametrize("overlay", ["prod", "air-gapped", "variants"])
def test_there_is_a_user_of_nats_for_every_gateway_that_may_come(
    rendered: dict[str, Manifests], secrets: Manifests, overlay: str
) -> None:
    manifests = rendered[overlay]
    (scaler,) = manifests.of("HorizontalPodAutoscaler", "ScaledObject")
    most = scaler["spec"].get("maxReplicas") or scaler["spec"]["maxReplicaCount"]
    gateway = manifests.workload("gateway").doc
    assert gateway["spec"]["ordinals"] == {"start": 1}
    assert "replicas" not in gateway["spec"], "applying it again would undo the scaling"
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", "gateway")
    seeds = set(secrets.one("Secret", "gateway-nats")["data"])
    assert {f"gateway-{number}.seed" for number in range(1, most + 1)} <= seeds
    retention = gateway["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert set(retention.values()) == {"Retain"}, "a journal may hold rows that nobody has yet"


def test_the_rules_are_those_of_prometheus_without_the_operator() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import write_rules, sys; sys.stdout.write(write_rules.render())"],
        cwd=MANIFESTS, capture_output=True, text=True, check=True,
    )  # fmt: skip
    written = (MANIFESTS / "components" / "monitoring" / "prometheus-rule.yaml").read_text()
    assert written == done.stdout, "run python deploy/k8s/write_rules.py"


def test_jobs_are_called_as_the_rules_know_them(rendered: dict[str, Manifests]) -> None:
    config = yaml.safe_load((ROOT / "deploy" / "observe" / "prometheus.yml").read_text())
    known = {job["job_name"] for job in config["scrape_configs"]}
    (monitor,) = rendered["prod"].of("ServiceMonitor")
    (relabeling,) = monitor["spec"]["endpoints"][0]["relabelings"]
    (pods,) = rendered["prod"].of("PodMonitor")
    told = {relabeling["replacement"].replace("$1", name) for name in SERVICES}
    told |= {
        r["replacement"] for r in pods["spec"]["podMetricsEndpoints"][0]["relabelings"] if r["targetLabel"] == "job"
    }
    assert told == known


# --- who may speak to whom --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Party:
    """A pod, or an address outside."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    namespace_labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    address: str = ""
    is_ours: bool = False


PROBED = (22, 53, 80, 443, 465, 587, 2379, 4222, 4317, 4318, 5432, 6222, 6443, 8000, 8080, 8222, 10250, 11434, 30000)
OUTSIDE = (
    Party("clients", "apps", {}, {"forebay.io/clients": "true"}),
    Party("operators", "ops", {}, {"forebay.io/operators": "true"}),
    Party("engines", "engines", {"app": "vllm"}, {"forebay.io/engines": "true"}),
    Party("monitoring", "monitoring", {}, {"forebay.io/monitoring": "true"}),
    Party("dns", "kube-system", {"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"}),
    Party("stranger", "default", {"app.kubernetes.io/name": "gateway"}, {"kubernetes.io/metadata.name": "default"}),
    Party("public", address="203.0.113.9"),
    Party("intranet", address="192.0.2.9"),
    Party("database", address="192.0.2.5"),
    Party("private", address="10.1.2.3"),
    Party("metadata", address="169.254.169.254"),
)


def parties(manifests: Manifests) -> list[Party]:
    ours = [
        Party(w.name, w.namespace, w.labels, {"kubernetes.io/metadata.name": w.namespace}, w.ports, is_ours=True)
        for w in manifests.workloads
    ]
    return [*ours, *OUTSIDE]


def allows(policies: Sequence[Doc], here: Party, there: Party, port: int, target: Party, way: str) -> bool:
    """Whether the policies of `here` let through what goes that way ("Ingress", "Egress"), at the target's port (TCP)."""
    mine = [
        p
        for p in policies
        if namespace_of(p) == here.namespace
        and way in p["spec"]["policyTypes"]
        and selects(p["spec"]["podSelector"], here.labels)
    ]
    if not mine:
        return True
    side = "from" if way == "Ingress" else "to"
    return any(
        any(is_peer(peer, there, here.namespace) for peer in rule[side])
        and any(
            (target.ports.get(p["port"]) if isinstance(p["port"], str) else p["port"]) == port
            for p in rule["ports"]
            if p.get("protocol", "TCP") == "TCP"
        )
        for policy in mine
        for rule in policy["spec"].get(way.lower(), [])
    )


def is_peer(peer: Doc, party: Party, own_namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        if not party.address:
            return False
        address = ipaddress.ip_address(party.address)
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(out) for out in block.get("except", [])
        )
    if party.address:
        return False
    if "namespaceSelector" in peer:
        return selects(peer["namespaceSelector"], party.namespace_labels) and selects(
            peer.get("podSelector", {}), party.labels
        )
    return party.namespace == own_namespace and selects(peer["podSelector"], party.labels)


def arrows(manifests: Manifests) -> set[tuple[str, str, int]]:
    """Everything that is let through, from or to a pod of ours."""
    policies = manifests.of("NetworkPolicy")
    found = set()
    for source in parties(manifests):
        for target in parties(manifests):
            if not (source.is_ours or target.is_ours) or (source.address and not target.is_ours):
                continue
            for port in {*PROBED, *target.ports.values()}:
                sends = not source.is_ours or allows(policies, source, target, port, target, "Egress")
                takes = not target.is_ours or allows(policies, target, source, port, target, "Ingress")
                if sends and takes:
                    found.add((source.name, target.name, port))
    return found


ENGINES = {(who, "engines", port) for who in ("gateway", "registry") for port in (8000, 8080, 11434, 30000)}
EVERYWHERE = {
    ("clients", "gateway", 8090),
    ("admin", "gateway", 8090),  # batches
    ("gateway", "scheduler", 8093),
    ("gateway", "registry", 8094),
    ("gateway", "admin", 8092),
    ("gateway", "admin", 8091),  # other gateways' administration
    ("scheduler", "registry", 8094),
    ("scheduler", "admin", 8092),
    ("registry", "admin", 8092),
    ("admin", "registry", 8094),
    ("admin", "scheduler", 8093),
    ("operators", "admin", 8091),
    *((who, "monitoring", port) for who in SERVICES for port in (4317, 4318)),
    *(("monitoring", who, port) for who, port in zip(SERVICES, (8095, 8096, 8097, 8098), strict=True)),
    *((who, "dns", 53) for who in SERVICES),
    *ENGINES,
}
"""The arrows between the parts, port by port: what every overlay lets through."""
NATS = {("nats", "nats", 6222), ("nats", "dns", 53), *((who, "nats", 4222) for who in SERVICES)}
AGENTS = {("gpu-agent", "dns", 53), ("gpu-agent", "nats", 4222), ("monitoring", "gpu-agent", 8099)}
PUBLIC = {
    *((who, "public", 443) for who in ("gateway", "registry", "admin")),
    *(("admin", who, port) for who in ("public", "private", "intranet", "database") for port in (587, 465)),
    *((who, place, 443) for who in ("gateway", "registry", "admin") for place in ("intranet", "database")),
}
"""The two last are public addresses too, as far as an address tells."""
CLUSTER = {("registry", who, 6443) for who in ("public", "private", "intranet", "database", "metadata")}
"""Kubernetes' API may be anywhere."""
DATABASE = {(who, "database", 5432) for who in ("registry", "admin")}
EXPECTED = {
    "dev": EVERYWHERE
    | NATS
    | PUBLIC
    | {("operators", "admin", 8092), ("postgres", "dns", 53)}
    | {(who, "postgres", 5432) for who in ("registry", "admin")},
    "prod": EVERYWHERE | NATS | AGENTS | PUBLIC | CLUSTER | DATABASE | {("operators", "admin", 8100)},
    "air-gapped": EVERYWHERE
    | NATS
    | AGENTS
    | CLUSTER
    | DATABASE
    | {("operators", "admin", 8100)}
    | {(who, place, 443) for who in ("registry", "admin") for place in ("intranet", "database")}
    | {("admin", place, port) for place in ("intranet", "database") for port in (587, 465)},
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_may_speak_to_what_is_as_the_design_has_it(rendered: dict[str, Manifests], overlay: str) -> None:
    found = arrows(rendered[overlay])
    assert found - EXPECTED[overlay] == set(), "let through, and in no design"
    assert EXPECTED[overlay] - found == set(), "in the design, and not let through"


@pytest.mark.parametrize("overlay", ALL)
def test_every_pod_is_cut_off_but_for_what_is_allowed(rendered: dict[str, Manifests], overlay: str) -> None:
    manifests = rendered[overlay]
    denying = {
        namespace_of(p)
        for p in manifests.of("NetworkPolicy")
        if p["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    assert {w.namespace for w in manifests.workloads} == denying


# --- NATS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [["nats"], [f"nats-{n}.nats-peers" for n in range(3)]], ids=["alone", "cluster"])
def test_nats_takes_the_files_where_they_are_gathered(
    rendered: dict[str, Manifests], tmp_path: Path, servers: list[str]
) -> None:
    make_secrets(tmp_path / "made", Deployment(gateways=["gateway-1"], nats_servers=servers))
    (gather,) = rendered["prod"].workload("nats").pod["initContainers"]
    (tmp_path / "all").mkdir()
    (tmp_path / "agents").mkdir()
    script = gather["command"][2]
    for path, here in (("secret", "made/nats"), ("agents", "agents"), ("all", "all")):
        script = script.replace(f"/etc/nats/{path}", str(tmp_path / here))
    subprocess.run(["/bin/sh", "-euc", script], check=True)
    server = Path(sys.executable).with_name("nats-server")
    done = subprocess.run(
        [str(server), "-t", "--config", str(tmp_path / "all" / "nats.conf")],
        capture_output=True, text=True, env={"NATS_NAME": "nats-0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # The cluster's names are those of the pods.
    nats = rendered["prod"].workload("nats")
    assert [f"{pod}.{nats.doc['spec']['serviceName']}" for pod in nats.pod_names] == [
        f"nats-{n}.nats-peers" for n in range(3)
    ]
