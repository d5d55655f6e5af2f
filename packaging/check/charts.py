"""Checks the Helm chart and the manifests made of it: Helm's own lint, and every rendering against the schemas of the oldest and the newest Kubernetes.
Usage: python3 charts.py          checks
       python3 charts.py --write  writes kubernetes/kith.yaml, the rendering with the chart's own values"""

import pathlib
import sys

import helm_python
import kubernetes_validate
import yaml

PACKAGING = pathlib.Path(__file__).resolve().parent.parent
CHART = PACKAGING / "helm" / "kith"
MANIFESTS = PACKAGING / "kubernetes" / "kith.yaml"
# Each is a person's use of the chart.
USES = {
    "as it is": {},
    "with a key": {"hasKey": True},
    "behind an ingress": {"hasKey": True, "ingress": {"enabled": True, "className": "nginx", "host": "images.example.org"}},
    "on a GPU": {
        "image": {"repository": "registry.example.org/kith", "tag": "cuda"},
        "settings": {"KITH_ENCODER__DEVICE": "cuda:0", "KITH_TRAINING__BATCH": 64},
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "storage": {"className": "fast"},
        "networkPolicy": {"enabled": False},
    },
}
REFUSED = {
    "a setting that is not one": {"settings": {"TRAINING_BATCH": "64"}},
    "a value that the chart does not have": {"replicas": 3},
    "a volume without a unit": {"storage": {"size": "20"}},
}
HEAD = """\
# The chart's objects with its own values, for the namespace kith and a cluster without Helm. Made by packaging/check/charts.py --write.
#
#   kubectl create namespace kith
#   kubectl --namespace kith apply --filename packaging/kubernetes/kith.yaml
#
# It listens on its pod's loopback only until it has a key, which is shown once:
#
#   kubectl --namespace kith exec statefulset/kith -- kith key create --data-dir /data --name ops --scope admin
#   kubectl --namespace kith set env statefulset/kith KITH_SERVER__LISTEN=0.0.0.0:7700
"""


def render(values):
    """The text of each object of the chart, by template; notes for people are left out."""
    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(values, name="kith", namespace="kith")
    return {path: text.strip() for path, text in sorted(rendered.items()) if path.endswith(".yaml") and text.strip()}


def manifests():
    return HEAD + "".join(f"---\n{text}\n" for text in render({}).values())


def lint(values):
    report = helm_python.lint(CHART, values, strict=True, namespace="kith")
    # 1 is a hint, such as that a chart has no icon.
    return [message for message in report["messages"] if message["severity"] > 1] + report["errors"]


def supported_versions():
    with helm_python.Chart.load(CHART) as chart:
        oldest = chart.metadata["kubeVersion"].removeprefix(">=").removesuffix(".0-0")
    return [oldest, kubernetes_validate.latest_version()]


def check_use(use, values):
    problems = lint(values)
    assert not problems, f"helm lint, {use}: {problems}"
    objects = [yaml.safe_load(text) for text in render(values).values()]
    for version in supported_versions():
        for resource in objects:
            kubernetes_validate.validate(resource, version, strict=True)
    return len(objects)


def check_refusals():
    for what, values in REFUSED.items():
        assert lint(values), f"the chart's schema takes {what}: {values}"


def main():
    if sys.argv[1:] == ["--write"]:
        MANIFESTS.write_text(manifests())
        return
    objects = sum(check_use(use, values) for use, values in USES.items())
    check_refusals()
    assert MANIFESTS.read_text() == manifests(), f"{MANIFESTS} is not the chart's rendering: run {sys.argv[0]} --write"
    oldest, newest = supported_versions()
    print(f"helm lint and the schemas of Kubernetes {oldest} and {newest}: {objects} objects in {len(USES)} uses")


if __name__ == "__main__":
    main()
