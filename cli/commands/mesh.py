"""`flowscope mesh`: the resources of the cluster and its state."""

from __future__ import annotations

from cli.command import Call, Command, Example, Flag
from cli.flags import BOOL, DURATION, LIST

_STORE = Flag(
    name="store",
    value_name="dir",
    help="folder of the resource store; default: $FLOWSCOPE_STORE, /var/lib/flowscope/store, or that of a running lab",
    completes="dir",
)
_FILES = Flag(
    name="filename",
    short="f",
    kind=LIST,
    value_name="file",
    help="manifest or folder of manifests; repeatable, - for standard input",
    completes="file",
)
_RECURSIVE = Flag(name="recursive", short="R", kind=BOOL, help="look into folders of folders, too")
_NAMESPACE = Flag(
    name="namespace", short="n", default="default", help="namespace of the resources", completes="namespaces"
)
_EVERYWHERE = Flag(name="all-namespaces", short="A", kind=BOOL, help="resources of all namespaces")
_SELECTOR = Flag(
    name="selector", short="l", help="only resources with these labels: key=value, key!=value, key, !key, key in (a,b)"
)
_TIMEOUT = Flag(name="timeout", kind=DURATION, default=30_000_000_000, help="how long --wait may take")
_WAIT = (
    Flag(
        name="wait",
        kind=BOOL,
        help="return when the agents of this machine have done it, with an error when they cannot",
    ),
    _TIMEOUT,
)
_WAIT_FOR_END = (
    Flag(
        name="wait",
        kind=BOOL,
        default=True,
        help="return when all is gone, pods included; named, also when the agents of this machine have done it",
    ),
    Flag(
        name="timeout",
        kind=DURATION,
        default=_TIMEOUT.default,
        help="how long that may take; without this, the grace period of pods is added",
    ),
)
_DRY_RUN = Flag(name="dry-run", kind=BOOL, help="check and say what would happen, change nothing")


def _kinds(call: Call) -> list[str]:
    """Completion: kinds, then names of that kind."""
    from cli.mesh.words import candidates

    return candidates(call)


_APPLY = Command(
    name="apply",
    summary="Make the cluster as manifests say",
    description=(
        "Reads manifests as people write them for Kubernetes, checks all of them, and only then gives them to the"
        " resource store, all together. Controllers and agents do the rest at once.\n\n"
        "Each mistake is named with its file, document and field; nothing changes while there is one."
    ),
    flags=(_FILES, _RECURSIVE, _NAMESPACE, _DRY_RUN, *_WAIT, _STORE),
    examples=(
        Example("Manifests from a file", "flowscope mesh apply -f foo-app.yaml"),
        Example("A policy, and go on when it holds", "flowscope mesh apply --wait -f policy.yaml"),
        Example("From a folder, only to check them", "flowscope mesh apply -f manifests/ --dry-run"),
        Example("From another program", "kubectl kustomize . | flowscope mesh apply -f -"),
    ),
    run="cli.mesh.apply:run_apply",
    checks_server_flags=False,
)
_DELETE = Command(
    name="delete",
    summary="Remove resources",
    arguments="[KIND NAME... | KIND/NAME...]",
    description=(
        "Removes the resources of manifests, or those with the names given. With a namespace goes all that is in it;"
        " pods of a deployment come back as long as the deployment is there.\n\n"
        "A pod that runs is told to go and ends what it has, for as long as its grace period; the command waits for"
        " that, unless --wait=false."
    ),
    flags=(
        _FILES,
        _RECURSIVE,
        _NAMESPACE,
        _SELECTOR,
        Flag(name="all", kind=BOOL, help="all resources of the kind in the namespace"),
        Flag(name="ignore-not-found", kind=BOOL, help="no error when there is nothing to remove"),
        _DRY_RUN,
        *_WAIT_FOR_END,
        _STORE,
    ),
    examples=(
        Example("What a file had made", "flowscope mesh delete -f foo-app.yaml"),
        Example("A policy by its name", "flowscope mesh delete cnp client-egress-only-dns -n cilium-test"),
        Example("A pod, without waiting for its end", "flowscope mesh delete pod foo-app --wait=false"),
        Example("All pods with a label", "flowscope mesh delete pods -l run=foo-app"),
    ),
    run="cli.mesh.delete:run_delete",
    words=_kinds,
    checks_server_flags=False,
)
_GET = Command(
    name="get",
    summary="Show resources in a table, as YAML or as JSON",
    arguments="KIND[,KIND...] [NAME...]",
    flags=(
        Flag(
            name="output",
            short="o",
            value_name="format",
            help="wide, yaml, json or name; default: a table",
            choices=("wide", "yaml", "json", "name"),
        ),
        _NAMESPACE,
        _EVERYWHERE,
        _SELECTOR,
        Flag(name="show-labels", kind=BOOL, help="labels as the last column"),
        Flag(name="no-headers", kind=BOOL, help="no line with the names of columns"),
        Flag(name="watch", short="w", kind=BOOL, help="go on and show what changes, until Ctrl-C"),
        _STORE,
    ),
    examples=(
        Example("What runs in a namespace", "flowscope mesh get all -n cilium-test"),
        Example("Pods with addresses and labels", "flowscope mesh get pods -n cilium-test --show-labels -o wide"),
        Example("An Ingress and the service behind it", "flowscope mesh get ingress,svc"),
        Example("A policy as it can be applied again", "flowscope mesh get cnp allow-dns -o yaml"),
    ),
    run="cli.mesh.get:run_get",
    words=_kinds,
    checks_server_flags=False,
)
_DESCRIBE = Command(
    name="describe",
    summary="Show resources with what the cluster makes of them",
    arguments="KIND[,KIND...] [NAME...]",
    description=(
        "For a pod: its endpoint, its identity and the policies that select it. For a service: who stands behind it."
        " For a node: what its agent says. For a policy: whom it selects and whether it is enforced."
    ),
    flags=(_NAMESPACE, _EVERYWHERE, _SELECTOR, _STORE),
    examples=(
        Example("Which policies does a pod have", "flowscope mesh describe pod foo-app"),
        Example("Who answers for a service", "flowscope mesh describe svc echo-same-node -n cilium-test"),
    ),
    run="cli.mesh.describe:run_describe",
    words=_kinds,
    checks_server_flags=False,
)
_API_RESOURCES = Command(
    name="api-resources",
    summary="List the kinds of resources, with their short names",
    run="cli.mesh.get:run_api_resources",
    checks_server_flags=False,
)

_STATUS = Command(
    name="status",
    summary="Say how the cluster is, or one of its nodes",
    description=(
        "Shows what runs, how many pods are managed, and everything that is wrong together with what helps. Looks at"
        " what the agents report, at the kernel's maps, and asks the observers and the relay.\n\n"
        "Exit code 0 when nothing is wrong, 1 otherwise. Warnings do not count, except for --wait."
    ),
    flags=(
        Flag(name="output", short="o", default="table", help="how to show it", choices=("table", "json")),
        Flag(name="node", value_name="name", help="this node in detail", completes="nodes"),
        Flag(name="verbose", kind=BOOL, help="nodes in detail, with addresses, controllers and maps"),
        Flag(name="wait", kind=BOOL, help="wait until all is well"),
        Flag(name="wait-duration", kind=DURATION, default=300 * 1_000_000_000, help="how long to wait at most"),
        _STORE,
    ),
    examples=(
        Example("The cluster", "flowscope mesh status"),
        Example("Wait until it works", "flowscope mesh status --wait"),
        Example("All about a node", "flowscope mesh status --node kind-worker --verbose"),
    ),
    run="cli.mesh.status:run_status",
    checks_server_flags=False,
)

COMMAND = Command(
    name="mesh",
    summary="Apply, show and remove resources of the cluster; its state",
    children=(_APPLY, _DELETE, _GET, _DESCRIBE, _API_RESOURCES, _STATUS),
    checks_server_flags=False,
)
