"""Objects of Kubernetes' API, as much of them as discovery reads."""

from __future__ import annotations

from typing import Any


def wanted_service(
    name: str = "vllm", *, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "ml",
            "name": name,
            "labels": {"forebay.io/backend": "true", **(labels or {})},
            "annotations": annotations or {},
        },
        "spec": {"type": "ClusterIP", **spec},
    }


def endpoint(address: str, pod: str, *, node: str = "", conditions: dict[str, bool] | None = None) -> dict[str, Any]:
    return {
        "addresses": [address],
        "conditions": conditions if conditions is not None else {"ready": True},
        "targetRef": {"kind": "Pod", "name": pod, "uid": f"uid-{pod}"},
        **({"nodeName": node} if node else {}),
    }


def slice_of(
    *endpoints: dict[str, Any],
    service: str = "vllm",
    family: str = "IPv4",
    ports: list[dict[str, Any]] | None = None,
    name: str = "",
) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "ml",
            "name": name or f"{service}-{family.lower()}",
            "labels": {"kubernetes.io/service-name": service, "forebay.io/backend": "true"},
        },
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": ports if ports is not None else [{"name": "", "port": 8000, "protocol": "TCP"}],
    }
