"""Kubernetes resources as we understand them: YAML in, checked and typed values out.

In:        YAML documents as users write them for Kubernetes.
Out:       frozen models; `dump` gives back every field that was written, also those that mean nothing here.
Elsewhere: mesh/store.py keeps them; mesh/controller.py fills in what Kubernetes' own controllers would; kinds of other
           rooms (policies, gateways, pools, ...) live with what gives them meaning, and are built of the models here.

A field that Kubernetes knows and we do not need is kept and ignored; a field that Kubernetes does not know is an error,
because it is a typing mistake nine times out of ten.

    fields.py       names, labels, ports, addresses: types of single fields
    base.py         what all kinds have: Model, Metadata, Resource, Key
    selectors.py    selectors over labels
    cluster.py      Namespace, Node, CiliumIdentity
    pods.py         Pod
    deployments.py  Deployment
    services.py     Service
    kinds.py        all kinds by their names, those of other rooms too
    manifests.py    YAML to resources
    mistakes.py     what is wrong with a document, in one line for each field
"""
