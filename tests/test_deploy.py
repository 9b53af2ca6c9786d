"""The files in deploy/, checked without Docker, a cluster or Isaac Sim; and those in .github/."""

import configparser
import copy
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import pp_env
from pp_bridge.options import BridgeOptions
from pp_bridge.settings import TOKEN_VARIABLE, validate_token
from pp_collect import runs
from pp_collect.factory import make_config
from pp_collect.isaac_report import HUMAN_QUESTIONS
from pp_collect.options import CollectOptions
from pp_env.sim.isaac import machine
from pp_recorder.command_line import parse
from tests import ROOT, read_setup

DEPLOY = ROOT / "deploy"
DOCKERFILES = {path.stem: path for path in DEPLOY.glob("*.Dockerfile")}
CONSTRAINTS = {
    path.name.split("-")[2]: path for path in sorted(DEPLOY.glob("isaac-sim-*-constraints.txt"))
}
MANIFESTS = {path.name: path for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))}
OLDEST_KUBERNETES = "1.29"
ISAAC_IMAGE = "nvcr.io/nvidia/isaac-sim"
NOT_IN_ISAAC = {"mujoco", "PyOpenGL", "gymnasium-robotics", "fast-simplification"}


class Pod(NamedTuple):
    spec: dict[str, Any]
    container: dict[str, Any]

    @property
    def argv(self) -> list[str]:
        return [*self.container.get("command", []), *self.container.get("args", [])]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFESTS[name].read_text()))


def pod(name: str) -> Pod:
    document = documents(name)[0]
    spec = document["spec"].get("template", document)["spec"]
    (container,) = spec["containers"]
    return Pod(spec, container)


def options(name: str, index: int = 0) -> Any:
    """Return the options of a manifest's command line, in the pod of that index."""
    container = pod(name).container
    own_entrypoint = len(entrypoint("isaac-sim")) if "command" in container else 0
    words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in pod(name).argv]
    return collect_options(words[own_entrypoint:])


def collect_options(words: list[str]) -> CollectOptions:
    """Return the options of a command line of collect.py, after checking their scene, too."""
    found = parse(CollectOptions, words, prog="collect.py", description="", example="")
    make_config(found)
    return found


def bridge_options(words: list[str]) -> BridgeOptions:
    return parse(BridgeOptions, words, prog="pp-bridge", description="", example="")


def ray_job(name: str) -> dict[str, Any]:
    (document,) = documents(name)
    return document["spec"]


def ray_pods(name: str) -> dict[str, Pod]:
    """Return the pods of a Ray cluster by the name of their group."""
    cluster = ray_job(name)["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    specs = {key: group["template"]["spec"] for key, group in groups.items()}
    return {key: Pod(spec, *spec["containers"]) for key, spec in specs.items()}


def instructions(image: str) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILES[image].read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def values(image: str, keyword: str) -> list[str]:
    return [rest for word, rest in instructions(image) if word == keyword]


def entrypoint(image: str) -> list[str]:
    return yaml.safe_load(values(image, "ENTRYPOINT")[0])


def isaac_arguments() -> dict[str, str]:
    """Return the build arguments of the Isaac image, with their defaults."""
    return dict(value.split("=") for value in values("isaac-sim", "ARG"))


def requirements(path: Path) -> dict[str, Requirement]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {(found := Requirement(line)).name: found for line in lines}


RAY_JOBS = [name for name in MANIFESTS if name.startswith("ray")]
PODS = [name for name in MANIFESTS if name != "pvc.yaml" and name not in RAY_JOBS]
COLLECTING = [name for name in PODS if "job" in name and name != "merge-job.yaml"]
INDEXED = [name for name in COLLECTING if name.startswith("indexed")]


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", [name for name in MANIFESTS if name not in RAY_JOBS])
def test_a_manifest_is_valid_in_kubernetes(name, version):
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_is_an_error():
    (document,) = copy.deepcopy(documents("job.yaml"))
    document["spec"]["backofLimit"] = document["spec"].pop("backoffLimit")
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(document, OLDEST_KUBERNETES, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_mounts_have_volumes_and_volumes_have_claims(name):
    spec, container = pod(name)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    claims = {document["metadata"]["name"] for document in documents("pvc.yaml")}
    sources = [v["persistentVolumeClaim"] for v in volumes.values() if "persistentVolumeClaim" in v]
    assert {source["claimName"] for source in sources} <= claims


@pytest.mark.parametrize("name", PODS)
def test_memory_is_limited_above_the_size_at_which_the_process_restarts(name):
    resources = pod(name).container.get("resources", {})
    quantities = {**resources.get("requests", {}), **resources.get("limits", {})}.values()
    assert all(re.fullmatch(r"[1-9]\d*(Gi)?", str(quantity)) for quantity in quantities)
    restart_above = options(name).restart_above if name in COLLECTING else None
    if restart_above is not None:
        assert restart_above * 1e9 < int(resources["limits"]["memory"].removesuffix("Gi")) * 2**30


def test_every_image_is_named_after_the_project_and_its_base():
    arguments = isaac_arguments()
    isaac = arguments["ISAAC_SIM"]
    assert values("isaac-sim", "FROM") == [ISAAC_IMAGE + ":${ISAAC_SIM}"]
    assert arguments["CONSTRAINTS"] == isaac.rpartition(".")[0]
    kinds = ("mujoco", "mujoco-ray", f"isaac-sim-{isaac}")
    tags = {f"{pp_env.__version__}-{kind}" for kind in kinds}
    files = [*DOCKERFILES.values(), *MANIFESTS.values(), ROOT / "docs" / "deploy.md"]
    text = "".join(path.read_text() for path in files)
    assert set(re.findall(r"franka-pick-place:([\w.-]*\w)", text)) == tags
    assert set(re.findall(rf"{ISAAC_IMAGE}:([\w.-]*\w)", text)) == {isaac}
    assert all(pod(name).container["image"].rpartition(":")[2] in tags for name in PODS)


@pytest.mark.parametrize("name", COLLECTING)
def test_a_manifest_collects_with_options_that_exist(name):
    args, container = options(name), pod(name).container
    image = "isaac-sim" if args.simulator == "isaacsim" else "mujoco"
    assert container["image"].rpartition(":")[2].startswith(f"{pp_env.__version__}-{image}")
    command, own = container.get("command", entrypoint(image)), entrypoint(image)
    assert command[: len(own)] == own
    assert args.resume
    mounts = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
    for path in filter(None, [args.output, args.status_file]):
        assert any(path.is_relative_to(mount) for mount in mounts)
    if "livenessProbe" in container:
        probed = container["livenessProbe"]["exec"]["command"][-1]
        assert str(args.status_file) in probed.replace("$JOB_COMPLETION_INDEX", "0")


@pytest.mark.parametrize("name", INDEXED)
def test_parts_never_share_an_attempt_and_the_merge_joins_all_of_them(name, tmp_path):
    job = documents(name)[0]["spec"]
    parts = [options(name, index) for index in range(job["completions"])]
    assert [part.first_attempt for part in parts] == [k * 10**6 for k in range(len(parts))]
    assert parts[0].num_episodes < 10**6 / 10
    fake_merge = tmp_path / "pp-merge"
    fake_merge.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake_merge.chmod(0o755)
    done = subprocess.run(
        pod("merge-job.yaml").argv,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    option, whole, *joined = done.stdout.split()
    assert option == "--output"
    assert joined == [str(part.output) for part in parts]
    assert whole not in joined


@pytest.mark.parametrize("name", PODS)
def test_the_licence_is_accepted_in_the_jobs_and_in_no_image(name):
    container = pod(name).container
    given = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
    assert (given.get("ACCEPT_EULA") == "Y") == ("isaac-sim" in container["image"])
    assert not any("EULA" in value for image in DOCKERFILES for value in values(image, "ENV"))


@pytest.mark.parametrize("image", DOCKERFILES)
def test_hadolint_finds_no_problem(image):
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [hadolint, "--no-color", DOCKERFILES[image]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("image", DOCKERFILES)
def test_a_dockerfile_copies_what_exists_and_starts_what_it_copied(image):
    constraints = "isaac-sim-${CONSTRAINTS}-"
    copied = {
        name.replace(constraints, f"isaac-sim-{version}-")
        for line in values(image, "COPY")
        for name in line.split()[:-1]
        for version in CONSTRAINTS
    }
    assert {name for name in copied if not (ROOT / name).exists()} == set()
    setup = read_setup()
    scripts = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    assert entrypoint(image)[-1] in {*copied, *(script.split(" =")[0] for script in scripts)}
    packages = setup["options.packages.find"]["include"].replace("*", "").split()
    modules = [f"{name}.py" for name in setup["options"]["py_modules"].split()]
    assert {*packages, *modules} <= copied


def test_the_mujoco_image_renders_with_the_packages_of_the_bootstrap_and_not_as_root():
    mesa = runpy.run_path(str(DEPLOY / "bootstrap.py"))["_MESA"]
    (install,) = [line for line in values("mujoco", "RUN") if "apt-get install" in line]
    words = shlex.split(install.split("--no-install-recommends")[1].split("&&")[0])
    assert words == mesa
    user = values("mujoco", "USER")[-1].split(":")[0]
    assert int(user) > 0


def test_isaac_sim_has_the_requirements_of_setup_cfg_except_mujoco():
    wanted = {r.name: r for r in map(Requirement, install_requires())}
    isaac = requirements(DEPLOY / "isaac-sim-requirements.txt")
    assert wanted.keys() - isaac.keys() == NOT_IN_ISAAC
    assert all(wanted[name] == requirement for name, requirement in isaac.items())


@pytest.mark.parametrize("version", CONSTRAINTS)
def test_constraints_keep_the_numpy_of_isaac_sim_and_lie_within_the_requirements(version):
    isaac = requirements(DEPLOY / "isaac-sim-requirements.txt")
    constraints = requirements(CONSTRAINTS[version])
    for name, constraint in constraints.items():
        (pin,) = constraint.specifier
        assert pin.operator == "=="
        assert name not in isaac or isaac[name].specifier.contains(pin.version)
    (pin,) = constraints["numpy"].specifier
    needed = [
        r.numpy for v, r in machine.REQUIREMENTS.items() if f"{v[0]}.{v[1]}".startswith(version)
    ]
    assert {int(pin.version.split(".")[0])} == set(needed)


def test_every_isaac_sim_that_starts_has_constraints():
    versions = [f"{major}.{minor}" for major, minor in machine.REQUIREMENTS]
    assert all(any(v.startswith(known) for known in CONSTRAINTS) for v in versions)


# The fields of ray.io/v1 that a RayJob may have (KubeRay 1.7, without those of its add-ons); the
# schema itself has a megabyte, most of which is that of pods.
RAY_JOB_FIELDS = {
    "entrypoint", "runtimeEnvYAML", "submissionMode", "submitterPodTemplate", "submitterConfig",
    "backoffLimit", "activeDeadlineSeconds", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "suspend", "clusterSelector", "rayClusterSpec",
}  # fmt: skip
RAY_CLUSTER_FIELDS = {
    "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
    "workerGroupSpecs",
}  # fmt: skip
RAY_HEAD_FIELDS = {"rayStartParams", "serviceType", "template"}
RAY_WORKER_FIELDS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "rayStartParams",
    "template",
}  # fmt: skip


@pytest.mark.parametrize("name", RAY_JOBS)
def test_a_ray_job_has_known_fields_and_pods_that_are_valid_in_kubernetes(name):
    (document,) = documents(name)
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayJob")
    job, cluster = document["spec"], document["spec"]["rayClusterSpec"]
    assert job.keys() <= RAY_JOB_FIELDS
    assert cluster.keys() <= RAY_CLUSTER_FIELDS
    assert cluster["headGroupSpec"].keys() <= RAY_HEAD_FIELDS
    assert all(group.keys() <= RAY_WORKER_FIELDS for group in cluster["workerGroupSpecs"])
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        for version in (OLDEST_KUBERNETES, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(pod, version, strict=True)
    for group in cluster["workerGroupSpecs"]:
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("name", RAY_JOBS)
def test_a_ray_job_collects_with_options_that_exist(name):
    program, *words = shlex.split(ray_job(name)["entrypoint"])
    assert [program] == entrypoint("mujoco")
    args = collect_options(words)
    assert args.resume
    assert args.ray_address == "auto"
    head, *workers = ray_pods(name).values()
    mounts = [Path(mount["mountPath"]) for mount in head.container["volumeMounts"]]
    kept_here = args.output if isinstance(args.output, Path) else args.staging
    assert any(kept_here.is_relative_to(mount) for mount in mounts)
    assert ray_job(name)["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for worker in workers:
        limits = worker.container["resources"]["limits"]
        gpus = limits.get("nvidia.com/gpu", 0)
        assert limits["cpu"] * args.attempt_gpu_share == pytest.approx(gpus), "one attempt per core"
        memory = int(limits["memory"].removesuffix("Gi")) * 2**30
        assert memory > limits["cpu"] * runs._WORKER_MEMORY


@pytest.mark.parametrize("name", RAY_JOBS)
def test_a_ray_cluster_has_one_image_with_ray_and_probes_it_without_wget(name):
    pods = ray_pods(name).values()
    (image,) = {pod.container["image"] for pod in pods}
    assert image.endswith(f":{pp_env.__version__}-mujoco-ray")
    assert values("mujoco", "ARG") == ["EXTRAS=hub,bridge"]
    assert "EXTRAS=hub,bridge,ray" in DOCKERFILES["mujoco"].read_text()
    extras = read_setup()["options.extras_require"]
    assert {"hub", "bridge", "ray"} <= extras.keys()
    for pod in pods:
        for probe in ("readinessProbe", "livenessProbe"):
            assert pod.container[probe]["httpGet"]["path"] == "/api/local_raylet_healthz"
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
        assert {mount["name"] for mount in pod.container.get("volumeMounts", [])} == volumes


def install_requires() -> list[str]:
    lines = read_setup()["options"]["install_requires"].splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_bridge_is_started_with_options_that_exist_and_probed_where_it_listens():
    deployment, service = documents("bridge.yaml")
    container = pod("bridge.yaml").container
    args = bridge_options(pod("bridge.yaml").argv[1:])
    (port,) = container["ports"]
    assert args.port == port["containerPort"]
    assert args.root.is_relative_to(container["volumeMounts"][0]["mountPath"])
    validate_token("x" * 64, args.host)
    assert TOKEN_VARIABLE in {entry["name"] for entry in container["env"]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": port["name"]}


def test_the_unit_starts_the_bridge_with_options_that_exist():
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(DEPLOY / "pp-bridge.service")
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "pp-bridge"
    args = bridge_options(words)
    assert args.root.parent == Path("/var/lib") / unit["Service"]["StateDirectory"]
    assert unit["Service"]["KillMode"] == "mixed"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="apt-get install systemd")
@pytest.mark.parametrize("misspelt", [False, True])
def test_systemd_knows_every_key_of_the_unit(tmp_path, misspelt):
    text = (DEPLOY / "pp-bridge.service").read_text()
    program = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)[1]
    text = text.replace(program, sys.executable)  # it must exist
    unit = tmp_path / "pp-bridge.service"
    unit.write_text(text.replace("KillMode", "KilMode") if misspelt else text)
    command = ["systemd-analyze", "verify", unit]
    done = subprocess.run(command, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert bool(complaints) == misspelt, complaints


WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
README_COMMANDS = ["make collect", "make test"]


def workflow_jobs() -> dict[str, Any]:
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]


def commands(job: dict[str, Any]) -> list[str]:
    """Return the lines that a job of the workflow runs."""
    return [line for step in job["steps"] for line in step.get("run", "").splitlines()]


def test_the_workflow_runs_the_commands_of_the_readme_on_every_supported_python():
    job = workflow_jobs()["test"]
    section = (ROOT / "README.md").read_text().split("## Two commands")[1]
    section = section.split("```sh\n")[1].split("```")[0]
    readme = [line.split("#")[0].strip() for line in section.strip().splitlines()]
    assert readme == README_COMMANDS
    assert [line for line in commands(job) if line.startswith("make")] == readme
    versions = job["strategy"]["matrix"]["python-version"]
    assert all(isinstance(version, str) for version in versions), "3.10 is not 3.1"
    supported = SpecifierSet(read_setup()["options"]["python_requires"])
    minors = [f"3.{minor}" for minor in range(30)]
    assert versions == [minor for minor in minors if minor in supported]


def test_the_workflow_lints_on_the_oldest_python():
    job = workflow_jobs()["lint"]
    made = [line for line in commands(job) if line.startswith("make")]
    assert made == ["make lint", "make docs"]
    (setup,) = [step for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert f">={setup['with']['python-version']}" in read_setup()["options"]["python_requires"]


def test_the_workflow_installs_the_packages_of_the_bootstrap():
    mesa = runpy.run_path(str(DEPLOY / "bootstrap.py"))["_MESA"]
    for job in workflow_jobs().values():
        (install,) = [line for line in commands(job) if "apt-get install" in line]
        assert install.split("--no-install-recommends ")[1].split() == mesa


def test_a_release_is_tested_and_checked_before_it_is_published():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"push": {"tags": ["v*"]}}, "YAML reads on as True"
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    lines = commands(build)
    order = [
        next(k for k, line in enumerate(lines) if part in line)
        for part in ("make test", "-m build", "twine check --strict", "GITHUB_REF_NAME")
    ]
    assert order == sorted(order)
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    assert "token" not in text.replace("id-token", "").replace("there is no token", "")
    mesa = runpy.run_path(str(DEPLOY / "bootstrap.py"))["_MESA"]
    (install,) = [line for line in lines if "apt-get install" in line]
    assert install.split("--no-install-recommends ")[1].split() == mesa


@pytest.mark.parametrize("form", ["bug_report", "feature_request", "isaac_sim"])
def test_an_issue_form_has_fields_with_names_of_their_own(form):
    content = issue_form(form)
    assert {"name", "description", "body"} <= content.keys()
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(names) == len(set(names))
    assert all(field["attributes"]["label"] for field in fields)


def issue_form(name):
    return yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())


def test_the_form_for_isaac_sim_asks_for_the_report_and_what_no_program_can_tell():
    fields = {f["id"]: f for f in issue_form("isaac_sim")["body"] if "id" in f}
    assert fields["report"]["validations"]["required"]
    assert "render" not in fields["report"]["attributes"], "no file can be attached to such a field"
    labels = [option["label"] for option in fields["seen"]["attributes"]["options"]]
    assert tuple(labels) == HUMAN_QUESTIONS


def test_the_bug_report_asks_for_versions_by_a_command_that_works():
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml").read_text()
    command = re.search(r'`\.venv/bin/python -c "(.*)"`', text)[1]
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"'franka-pick-place': '{pp_env.__version__}'" in done.stdout


def test_the_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pp_env.__version__
    assert citation["license"] == read_setup()["metadata"]["license"]
