"""Finds the sidecar's configurations in rendered manifests: of the chart, of `sidecar inject`, of kustomize, or written by hand.

A ConfigMap is the sidecar's if it has the label `webhook-sidecar/config` or `webhook-sidecar/injected`, or if a container named
`webhook-sidecar` mounts it at /etc/sidecar.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.inject.manifest import parse
from sidecar.inject.objects import CONFIG_DIRECTORY, CONFIG_KEY, CONTAINER, MARKER
from sidecar.inject.workload import HOOK, KubernetesObject, describe_object, find_all, same_namespace

#: The label that the chart gives its ConfigMap.
CONFIG_LABEL = "webhook-sidecar/config"

#: Namespace and name.
Place = tuple[str | None, str]


@dataclass
class FoundConfigs:
    configs: dict[str, str] = field(default_factory=dict)  #: the object's name for messages -> its configuration
    without_key: list[str] = field(default_factory=list)  #: ConfigMaps without a configuration
    elsewhere: list[str] = field(default_factory=list)  #: ConfigMaps that are mounted, but not in these manifests


def find_configs(text: str, file: str) -> FoundConfigs:
    """Raises `ManifestError` for a stream that is not valid YAML."""
    found = FoundConfigs()
    everything = find_all(parse(text, file))
    wanted: dict[Place, None] = {}
    for each in everything:
        if each.template is not None:
            wanted |= dict.fromkeys(_mounted(each))
    config_maps = {
        (each.namespace, each.name): each
        for each in everything
        if each.kind == "ConfigMap" and each.value("metadata", "annotations", HOOK) is None
    }
    for place, each in config_maps.items():
        labels = each.value("metadata", "labels")
        if isinstance(labels, dict) and {CONFIG_LABEL, MARKER} & labels.keys():
            wanted[place] = None
    for namespace, name in wanted:
        there = [place for place in config_maps if place[1] == name and same_namespace(place[0], namespace)]
        if not there:
            found.elsewhere.append(describe_object("ConfigMap", namespace, name))
            continue
        config_map = config_maps[there[0]]
        config = config_map.value("data", CONFIG_KEY)
        if config is None:
            found.without_key.append(str(config_map))
        else:
            found.configs[str(config_map)] = str(config)
    return found


def _mounted(workload: KubernetesObject) -> Iterator[Place]:
    """The ConfigMaps that the sidecar of a pod has at /etc/sidecar."""
    spec = workload.value(*workload.spec)
    volumes = {each.get("name"): each for each in _mappings(spec, "volumes")}
    for container in [*_mappings(spec, "initContainers"), *_mappings(spec, "containers")]:
        if container.get("name") != CONTAINER:
            continue
        for mount in _mappings(container, "volumeMounts"):
            volume = volumes.get(mount.get("name"), {}).get("configMap")
            if mount.get("mountPath") == CONFIG_DIRECTORY and isinstance(volume, dict) and volume.get("name"):
                yield workload.namespace, str(volume["name"])


def _mappings(holder: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = holder.get(key)
    return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []
