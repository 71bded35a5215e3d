"""Services: who answers for a name, at which addresses, and what a node's kernel has to know of it.

In:        Service, EndpointSlice, Endpoints, address pools, announcement policies, pods and nodes.
Out:       addresses and ports for services (the controller's part), frontends with backends (the node's part).
Elsewhere: bpf/service_maps.py writes frontends into the kernel; mesh/controller.py and mesh/main.py call what is here.
"""
