"""Ingress: HTTP from outside, by host and path, to services.

In:        Ingress, IngressClass and Secret resources.
Out:       a LoadBalancer service and a CiliumEnvoyConfig for each Ingress (or one for all), and the Ingress's address.
Elsewhere: mesh/services/ gives the service its address; mesh/envoyconfig/ gives the rest to the nodes' Envoys.
"""
