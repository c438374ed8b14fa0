"""Lints and renders the Helm chart, and keeps the manifests that are rendered from it. Run by chart.sh."""

import difflib
import pathlib
import re
import shutil
import sys
import tempfile

import helm_python as helm
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/chart"
MANIFESTS = ROOT / "deploy/manifests"
NAMESPACE = "vmferry-system"

# Severity in a linter's report; below it is that the chart has no icon.
WARNING = 2

# What is never namespaced; of all else, every object says where it is.
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace", "ValidatingWebhookConfiguration"}

# The committed manifests: each from values, and which of the objects it has. The CRDs are in deploy/crds.
WRITTEN = {
    "install.yaml": ("The operator for all namespaces.", "default", lambda new, common: True),
    "install-namespaced.yaml": ("The operator for the one namespace vms, without any right in others but those it shares.", "namespaced",
                                lambda new, common: True),
    "install-webhook.yaml": ("The operator with admission, its certificate by cert-manager, and workers in the namespace vms.", "webhook",
                             lambda new, common: True),
    "monitoring.yaml": ("Prometheus operator and Grafana; beside one of the others.", "monitoring",
                        lambda new, common: new["kind"] in {"ServiceMonitor", "PrometheusRule"} or "dashboard" in new["metadata"]["name"]),
}

# Values that the chart must refuse, and with which words.
REFUSED = [
    ({"replicas": 3}, "replicas"),
    ({"controller": {"executor": "cronjob"}}, "executor"),
    ({"controller": {"leaderElection": {"enabled": False}}}, "leaderElection"),
    ({"controller": {"bandwidthLimit": "fast"}}, "bandwidthLimit"),
    ({"webhook": {"enabled": True, "certificate": {"certManager": False}}}, "caBundle"),
    ({"webhook": {"resources": ["secrets"]}}, "resources"),
    ({"worker": {"namespaces": ["*"]}}, "namespaces"),
    ({"sharedNamespaces": [{"secrets": ["x"]}]}, "namespace"),
]


class Strict(yaml.SafeLoader):
    """YAML in which a key is given once: the last one would win silently."""


def mapping_of_unique_keys(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping_of_unique_keys)


def value_sets():
    """The sets of values that are tried: name and values."""
    return {path.stem: yaml.load(path.read_text(), Strict) or {} for path in sorted((CHART / "ci").glob("*.yaml"))}


def split(text):
    """The documents of a YAML text that have an object, as text with the object."""
    parts = re.split(r"^---\s*$", text, flags=re.MULTILINE)
    documents = [(part.strip("\n"), yaml.load(part, Strict)) for part in parts]
    return [(part, document) for part, document in documents if document]


def render(chart, values):
    """The documents of a release, in the order of the templates."""
    files = chart.render(values, name="vmferry", namespace=NAMESPACE, revision=1, is_install=True)
    return [document for name in sorted(files) if not name.endswith("NOTES.txt") for document in split(files[name])]


def lint(folder, name, values):
    """What Helm's linter says, warnings included."""
    report = helm.lint(folder, values, strict=True, namespace=NAMESPACE)
    found = [m for m in report["messages"] if m["severity"] >= WARNING]
    return [f"{name}: {m['path']}: {m['error']}" for m in found] + [f"{name}: {error}" for error in report["errors"]]


def check_objects(name, objects):
    """Every object is named, is once, and says where it is."""
    seen = set()
    for it in objects:
        meta = it["metadata"]
        key = (it["apiVersion"], it["kind"], meta.get("namespace"), meta["name"])
        label = f"{name}: {it['kind']} {meta['name']}"
        if key in seen:
            yield f"{label} is there twice"
        seen.add(key)
        if ("namespace" in meta) == (it["kind"] in CLUSTER_SCOPED):
            yield f"{label} is in the namespace {meta.get('namespace')}"
        if it["kind"] != "CustomResourceDefinition" and meta.get("labels", {}).get("app.kubernetes.io/instance") != "vmferry":
            yield f"{label} lacks the labels of the release"


def check_rights(name, objects):
    """No rule has a wildcard, and no role is bound that is not there."""
    roles = {(it["kind"], it["metadata"].get("namespace"), it["metadata"]["name"]) for it in objects if it["kind"].endswith("Role")}
    for it in objects:
        label = f"{name}: {it['kind']} {it['metadata']['name']}"
        for rule in it.get("rules", []) if it["kind"].endswith("Role") else []:
            if any("*" in value for values in rule.values() for value in values):
                yield f"{label} has a wildcard: {rule}"
            if "secrets" in rule["resources"] and not {"get", "list"} >= set(rule["verbs"]):
                yield f"{label} may do more with Secrets than read them: {rule}"
        if it["kind"].endswith("Binding"):
            ref = it["roleRef"]
            namespace = it["metadata"].get("namespace") if ref["kind"] == "Role" else None
            if (ref["kind"], namespace, ref["name"]) not in roles:
                yield f"{label} binds {ref['kind']} {ref['name']}, which is not there"


def pods(objects):
    """The pod specs among the objects, the workers' template included."""
    for it in objects:
        if it["kind"] == "Deployment":
            yield it["spec"]["template"]["spec"]
        if it["kind"] == "ConfigMap" and "pod-template.yaml" in it["data"]:
            yield yaml.load(it["data"]["pod-template.yaml"], Strict)["spec"]


def check_pods(name, objects):
    """Pods meet the Pod Security Standard `restricted`, have a read-only root and say what they need."""
    for pod in pods(objects):
        security = pod["securityContext"]
        if not (security["runAsNonRoot"] and security["runAsUser"] and security["seccompProfile"]["type"] == "RuntimeDefault"):
            yield f"{name}: a pod may run as root or without seccomp: {security}"
        for container in pod["containers"]:
            own = container["securityContext"]
            if own != {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}:
                yield f"{name}: container {container['name']} is allowed too much: {own}"
            if not {"cpu", "memory"} <= container["resources"]["requests"].keys() or "memory" not in container["resources"]["limits"]:
                yield f"{name}: container {container['name']} does not say what it needs"
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            if mounted != {volume["name"] for volume in pod["volumes"]}:
                yield f"{name}: container {container['name']} mounts {mounted}, which are not the pod's volumes"


def check_refusals(chart):
    """What makes no sense is refused, by its name."""
    for values, word in REFUSED:
        try:
            chart.validate_schema(values)
            render(chart, values)
        except helm.HelmError as error:
            if word not in str(error):
                yield f"{values} is refused without naming {word}: {error}"
        else:
            yield f"{values} is taken, and should be refused"


def manifests(chart, sets):
    """The text of each committed manifest."""
    namespace = f"---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n    pod-security.kubernetes.io/enforce: restricted\n"
    for file, (title, values, wanted) in WRITTEN.items():
        documents = render(chart, {**sets[values], "crds": {"install": False}})
        text = "".join(f"---\n{part}\n" for part, it in documents if wanted(it, documents))
        head = "" if file == "monitoring.yaml" else namespace
        yield file, f"# Rendered from deploy/chart by scripts/chart.sh. Do not edit.\n# {title}\n{head}{text}"


def check_manifests(chart, sets):
    """The committed manifests are what the chart gives."""
    expected = dict(manifests(chart, sets))
    for file in sorted({path.name for path in MANIFESTS.glob("*")} | expected.keys()):
        path = MANIFESTS / file
        found = path.read_text() if path.exists() else ""
        if found != expected.get(file, ""):
            diff = difflib.unified_diff(found.splitlines(), expected.get(file, "").splitlines(), "committed", "rendered", lineterm="", n=1)
            yield "\n".join([f"deploy/manifests/{file} is not what the chart gives; run scripts/chart.sh --write", *list(diff)[:20]])


def check(folder, chart, sets):
    """All that is wrong."""
    for name, values in sets.items():
        yield from lint(folder, name, values)
        objects = [it for _, it in render(chart, values)]
        for rule in (check_objects, check_rights, check_pods):
            yield from rule(name, objects)
    yield from check_refusals(chart)
    yield from check_manifests(chart, sets)


def main(arguments):
    sets = value_sets()
    # A copy with the CRDs in the place of the link to them, of which Helm would tell at each turn.
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(CHART, pathlib.Path(folder) / "vmferry")
        with helm.Chart.load(copy) as chart:
            run(copy, chart, sets, arguments)


def run(folder, chart, sets, arguments):
    match arguments:
        case []:
            problems = list(check(folder, chart, sets))
            sys.exit("\n".join(problems) if problems else None)
        case ["--write"]:
            MANIFESTS.mkdir(exist_ok=True)
            for file, text in manifests(chart, sets):
                (MANIFESTS / file).write_text(text)
        case ["--render", folder]:
            for name, values in sets.items():
                text = "".join(f"---\n{part}\n" for part, _ in render(chart, values))
                (pathlib.Path(folder) / f"{name}.yaml").write_text(text)
        case _:
            sys.exit("usage: chart.sh [--write | --render DIR]")


main(sys.argv[1:])
