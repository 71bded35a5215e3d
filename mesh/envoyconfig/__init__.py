"""CiliumEnvoyConfig: users' own Envoy resources, checked, completed and tied to services.

In:        CiliumEnvoyConfig and CiliumClusterwideEnvoyConfig resources; services, pods and secrets.
Out:       messages for one node's Envoy, and which services the kernel hands to which listener.
Elsewhere: mesh/envoy/ runs Envoy and writes its files; mesh/ingress/ and mesh/gateway/ make such resources of theirs.

    documents.py   the resources as users write them
    messages.py    JSON to Envoy's protobuf messages and back, with errors that name the field
    naming.py      names and references get the resource's own prefix, missing config sources are filled in
    listeners.py   listeners: address, transparency, whose address is used towards backends
    clusters.py    clusters and their endpoints
    translate.py   all of it, for one node
    validation.py  Envoy's own opinion, before anything is stored
    admission.py   the same on each node, for what came into the store past it
    status.py      conditions of the resources
    annotated.py   resources for services that ask for them by annotation
"""
