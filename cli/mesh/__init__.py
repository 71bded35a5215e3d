"""`flowscope mesh ...`: the resources of the cluster, as people of Kubernetes expect to handle them.

In:        command lines; manifests; the resource store; what agents write into their nodes' folders.
Out:       changes of the store; tables, YAML and JSON on stdout; warnings on stderr.
Elsewhere: cli/commands/mesh.py has flags and help; mesh/resources/ says what a resource is, mesh/store.py keeps it.

To show a kind of resource nicely, give it an entry in `kinds.py`.
"""
