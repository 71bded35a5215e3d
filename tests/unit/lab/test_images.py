"""Images stand for programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.images import Surroundings, check_image, command_line, repository
from mesh.resources.base import Resource
from mesh.resources.manifests import parse_manifests
from mesh.resources.mistakes import InvalidResource
from mesh.resources.pods import Pod

AROUND = Surroundings(store=Path("/store"))


def pods(container: str) -> list[Resource]:
    text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: main, {container}}}]}}"
    return parse_manifests(text)


def argv(container: str) -> list[str]:
    (pod,) = pods(container)
    assert isinstance(pod, Pod)
    check_image(pod)
    return list(command_line(pod, pod.spec.containers[0], AROUND).argv)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("hashicorp/http-echo:0.2.3", "hashicorp/http-echo"),
        ("docker.io/hashicorp/http-echo", "hashicorp/http-echo"),
        (
            "quay.io/cilium/json-mock:v1.3.8@sha256:5aad0483",
            "cilium/json-mock",
        ),
        ("registry.k8s.io/coredns/coredns:v1.11.1", "coredns/coredns"),
        ("localhost:5000/pause:3", "pause"),
        ("docker.io/library/nginx", "nginx"),
        ("nginx", "nginx"),
    ],
)
def test_registry_tag_and_digest_do_not_matter(image: str, name: str) -> None:
    assert repository(image) == name


def test_arguments_reach_the_program() -> None:
    assert argv("image: hashicorp/http-echo, args: ['-text=foo']")[-2:] == ["lab.servers.http_echo", "-text=foo"]
    assert argv("image: coredns/coredns")[-2:] == ["--store", "/store"]


def test_a_command_is_run_as_it_is_written_and_pause_is_ours() -> None:
    assert argv("image: any, command: [sleep, '5'], args: [x]") == ["sleep", "5", "x"]
    assert argv("image: any, command: [/usr/bin/pause]")[-1] == "lab.servers.idle"


def test_the_environment_is_the_container_s() -> None:
    (pod,) = pods("image: pause, env: [{name: PORT, value: '8080'}]")
    assert isinstance(pod, Pod)
    env = command_line(pod, pod.spec.containers[0], AROUND).env
    assert env["PORT"] == "8080"
    assert env["HOSTNAME"] == "a"


def test_an_unknown_image_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(InvalidResource) as error:
        check_image(pods("image: nginx")[0], "app.yaml")
    message = (
        "app.yaml (Pod default/a): spec.containers[0].image: the lab has no program for 'nginx'; it has hashicorp/"
    )
    assert str(error.value).startswith(message)
