"""Gateway API: HTTP and gRPC from outside to services, with more to say about it than Ingress has.

In:        GatewayClass, Gateway, HTTPRoute, GRPCRoute, ReferenceGrant; services and secrets.
Out:       a LoadBalancer service and a CiliumEnvoyConfig for each Gateway, and the conditions of all of them.
Elsewhere: mesh/ingress/ has the model of routes (routes.py), and makes resources of it (render.py, publishing.py).

    documents.py   the resources as users write them
    rules.py       rules of routes to the model of routes
    attaching.py   which route belongs to which listener
    controller.py  all of it, once per round
"""
