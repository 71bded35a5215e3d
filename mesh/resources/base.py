"""What all kinds have: a name, metadata, and fields that are checked.

In:        plain data of one document.
Out:       frozen models, the base of every kind; `changed` makes one with other values.
Elsewhere: fields.py has the types of single fields; kinds.py lists the kinds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from mesh.resources.fields import DnsLabel, DnsName, LabelKey, Labels

TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
"""Of timestamps in resources."""
M = TypeVar("M", bound="Model")


class Key(NamedTuple):
    """What names a resource."""

    kind: str
    namespace: str
    """Empty for kinds that belong to the whole cluster."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Model(BaseModel):
    """Base of all parts of resources: camelCase in YAML, snake_case here, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)

    ignored: ClassVar[frozenset[str]] = frozenset()
    """Fields that Kubernetes knows and we only carry along."""

    @model_validator(mode="after")
    def _no_unknown_fields(self) -> Self:
        for name in self.model_extra or ():
            if name not in self.ignored:
                raise ValueError(f"unknown field {name!r}")
        return self


class OwnerReference(Model):
    """Who made a resource; for pods of a Deployment its ReplicaSet, as in Kubernetes."""

    api_version: str
    kind: str
    name: str
    uid: str = ""
    ignored = frozenset({"controller", "blockOwnerDeletion"})


def _timestamp(given: object) -> object:
    """YAML reads an unquoted time as one, and tools write `creationTimestamp: null`."""
    if isinstance(given, datetime):
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC).strftime(TIME_FORMAT)
    return given


class Metadata(Model):
    name: DnsName
    namespace: DnsLabel | Literal[""] = ""
    labels: Labels = {}
    annotations: dict[LabelKey, str] = {}
    uid: str = ""
    creation_timestamp: Annotated[str | None, BeforeValidator(_timestamp)] = None
    """When the resource came into the store, which writes it; RFC 3339 in UTC."""
    owner_references: tuple[OwnerReference, ...] = ()
    deletion_timestamp: Annotated[str | None, BeforeValidator(_timestamp)] = None
    """When it was told to go; it stays until whoever runs it has ended it. None: it is to stay."""
    ignored = frozenset(
        {"finalizers", "generateName", "generation", "managedFields"}
        | {"resourceVersion", "selfLink", "deletionGracePeriodSeconds"}
    )


class Resource(Model):
    """What all kinds have."""

    api_version: str
    kind: str
    metadata: Metadata

    @property
    def key(self) -> Key:
        return Key(self.kind, self.metadata.namespace, self.metadata.name)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    def dump(self) -> dict[str, Any]:
        """The resource as plain data, with every field that was written or changed."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Condition(Model):
    """What a controller has found out about a resource."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""
    ignored = frozenset({"lastTransitionTime", "lastHeartbeatTime", "lastProbeTime", "observedGeneration"})


def timestamp(now_s: float) -> str:
    """A time as it stands in metadata."""
    return datetime.fromtimestamp(now_s, UTC).strftime(TIME_FORMAT)


def changed(model: M, **fields: object) -> M:
    """A copy of `model` in which `fields` have new values (and count as written, for `dump`)."""
    return model.model_copy(update=fields)
