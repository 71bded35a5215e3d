"""Deployment: how many pods of one form there are to be.

In:        plain data of one document.
Out:       frozen models.
Elsewhere: mesh/controller.py makes the pods.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mesh.resources.base import Metadata, Model, Resource
from mesh.resources.fields import DnsName
from mesh.resources.pods import PodSpec
from mesh.resources.selectors import LabelSelector


class PodTemplateMetadata(Metadata):
    name: DnsName | Literal[""] = ""


class PodTemplate(Model):
    metadata: PodTemplateMetadata = PodTemplateMetadata()
    spec: PodSpec


class DeploymentSpec(Model):
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    selector: LabelSelector
    template: PodTemplate
    ignored = frozenset({"strategy", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds", "paused"})


class DeploymentStatus(Model):
    created: int = 0
    """Pods made so far; the next pod's name depends on it, so that no name comes twice."""
    ignored = frozenset(
        {"replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "unavailableReplicas"}
        | {"conditions", "observedGeneration", "collisionCount"}
    )


class Deployment(Resource):
    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec
    status: DeploymentStatus = DeploymentStatus()

    @model_validator(mode="after")
    def _selects_its_own_pods(self) -> Self:
        if not self.spec.selector.matches(self.spec.template.metadata.labels):
            raise ValueError("spec.selector does not match spec.template.metadata.labels")
        return self
