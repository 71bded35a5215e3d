"""One Envoy per node: it judges HTTP and TLS where policies ask for it, and tells every request.

In:        views of policies, addresses of identities; resources of CiliumEnvoyConfigs.
Out:       files that a real Envoy watches; that process, watched over; records of requests for the observer.
Elsewhere: bpf/ brings packets to Envoy's listeners; mesh/policy says what is allowed.
"""
