"""A cluster on one machine: nodes and pods are network namespaces, real servers run in them.

In:        a kind-config.yaml and Kubernetes manifests.
Out:       namespaces, devices and processes; an agent and an observer per node, relay and UI; all gone after `down`.
           Pods share the machine's files and users: they are a test bed, not a wall between tenants.
Elsewhere: mesh/ decides names, places and addresses, and programs the kernel; the lab does what a container runtime,
           a switch and a machine's service manager would do.
"""
