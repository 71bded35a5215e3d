"""The control plane of the datapath: which pods, addresses and identities there are, and each node's view of them.

In:        Kubernetes YAML (`lab apply`, later `mesh apply`), kept in a resource store.
Out:       BPF maps of every node (through bpf/) and its state.json, which tells the observer what addresses mean.
Elsewhere: bpf/ is the datapath itself; lab/ makes the namespaces in which nodes and pods live.
"""
