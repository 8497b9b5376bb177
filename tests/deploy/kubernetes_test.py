#!/usr/bin/env python3
"""deploy/kubernetes: what the manifests say about a server is true of the server, and the folders build.

  kubernetes_test.py manifests TERN   every file parses; probes, ports, user, drain times, settings and metrics fit the
                                      server that TERN starts with the base's own tern.toml
  kubernetes_test.py build            kustomize builds base and example, and what comes out keeps its references;
                                      with Python's kubernetes_validate also the schemas of Kubernetes

Exit status 77 with a reason: a program or module is not installed.
"""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.request

from deploy_test import ROOT, check, running, wait_for

if importlib.util.find_spec("yaml") is None:
    print("Python's yaml module is not installed")
    sys.exit(77)
import yaml  # noqa: E402

FOLDER = ROOT / "deploy" / "kubernetes"


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def by_kind(objects, kind):
    found = [each for each in objects if each["kind"] == kind]
    check(len(found) == 1, f"expected one {kind}, found {len(found)}")
    return found[0]


def read_all():
    objects = []
    for path in sorted(FOLDER.rglob("*.yaml")):
        for document in documents(path.read_text()):
            check(document.get("kind") and document.get("apiVersion"), f"{path} has no kind or apiVersion")
            objects.append(document)
    return objects


def check_drain(deployment, settings):
    pod = deployment["spec"]["template"]["spec"]
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = sleep + settings["server"]["drain_timeout"]
    check(pod["terminationGracePeriodSeconds"] > needed,
          f"a pod is killed after {pod['terminationGracePeriodSeconds']} s; its drain may last {needed} s")


def check_image(deployment):
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = int(re.search(r"^USER (\d+)$", dockerfile, re.M)[1])
    security = deployment["spec"]["template"]["spec"]["securityContext"]
    check(security["runAsUser"] == user, f"the image's user is {user}, the pod's {security['runAsUser']}")


def metrics_of_queries(scaled):
    return {name for trigger in scaled["spec"]["triggers"]
            for name in re.findall(r"\btern_\w+", trigger["metadata"]["query"])}


def manifests(tern):
    objects = read_all()
    deployment = by_kind(objects, "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    config = FOLDER / "base" / "tern.toml"
    settings = tomllib.loads(config.read_text())
    check_drain(deployment, settings)
    check_image(deployment)
    port = settings["server"]["port"]
    check([each["containerPort"] for each in container["ports"]] == [port], f"the container's port is not {port}")
    pool = by_kind(objects, "InferencePool")
    check(pool["spec"]["targetPorts"] == [{"number": port}], f"the InferencePool's port is not {port}")
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "tern.log")
        # The arguments of the pod, but for the places of this machine.
        check(container["args"][:2] == ["serve", "--config"], "the container does not start `serve --config`")
        command = [tern, "serve", "--config", config, "--host", "127.0.0.1", "--port", "0"]
        with running(command, log):
            found = wait_for("the server", 60, lambda: re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()))
            url = found.group()
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container[probe]["httpGet"]["path"]
                wait_for(f"{probe} {path}", 60,
                         lambda: urllib.request.urlopen(url + path, timeout=5).status == 200)
            with urllib.request.urlopen(url + "/metrics", timeout=10) as reply:
                exported = reply.read().decode()
    wanted = metrics_of_queries(by_kind(objects, "ScaledObject"))
    # What the gateway's endpoint picker reads.
    wanted |= {"vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"}
    for name in sorted(wanted):
        check(re.search(rf"^{re.escape(name)}\b", exported, re.M), f"the server exports no {name}")
    print(f"{len(objects)} manifests; {len(wanted)} metrics of scaling and routing are exported")


def kustomize():
    if program := shutil.which("kustomize"):
        return [program, "build"]
    if program := shutil.which("kubectl"):
        return [program, "kustomize"]
    print("neither kustomize nor kubectl is installed")
    sys.exit(77)


def check_references(name, objects):
    deployment = by_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    check(mounts == set(volumes), f"{name}: mounts {sorted(mounts)} of volumes {sorted(volumes)}")
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    check(("ConfigMap", volumes["config"]["configMap"]["name"]) in names, f"{name}: no such ConfigMap")
    if "models" in volumes:
        claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
        check(("PersistentVolumeClaim", claim) in names, f"{name}: no such claim")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for each in objects:
        selector = each.get("spec", {}).get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            check(wanted.items() <= labels.items(), f"{name}: {each['kind']} selects {wanted}, pods have {labels}")


def validate(objects):
    """The number of objects whose kind Kubernetes itself defines, all found valid; None without the module."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        return None
    import kubernetes_validate
    known = 0
    for each in objects:
        try:
            kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)
            known += 1
        except kubernetes_validate.SchemaNotFoundError:
            pass  # a custom resource: validate_custom() has its schema when the folder is given
    return known


def validate_custom(objects):
    """Against CustomResourceDefinitions in the folder TERN_CRDS; the number found valid, None without a folder."""
    folder = os.environ.get("TERN_CRDS")
    if not folder:
        return None
    import jsonschema
    schemas = {}
    for path in pathlib.Path(folder).rglob("*.yaml"):
        for document in documents(path.read_text()):
            if document.get("kind") != "CustomResourceDefinition":
                continue
            spec = document["spec"]
            for version in spec["versions"]:
                key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                schemas[key] = version["schema"]["openAPIV3Schema"]
    known = 0
    for each in objects:
        if schema := schemas.get((each["apiVersion"], each["kind"])):
            jsonschema.validate(each, schema)
            known += 1
    return known


def build():
    command = kustomize()
    for folder in ("base", "examples/production"):
        done = subprocess.run([*command, FOLDER / folder], text=True, capture_output=True)
        check(done.returncode == 0, f"{folder}: {done.stderr}")
        objects = documents(done.stdout)
        check_references(folder, objects)
        print(json.dumps({"folder": folder, "objects": len(objects), "valid": validate(objects),
                          "valid_custom": validate_custom(objects)}))


def main():
    commands = {"manifests": manifests, "build": build}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
