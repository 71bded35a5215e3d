"""Policies as users write them.

In:        plain data of one YAML document.
Out:       frozen models; a field that Cilium or Kubernetes does not know, or that cannot work, is refused by its path.
Elsewhere: mesh/policy/translate.py gives them meaning; mesh/resources/ reads documents and knows all other kinds.

    fields.py      prefixes, regular expressions, labels with their sources: types of single fields
    layer7.py      what a proxy judges: HTTP, DNS
    ports.py       ports, ICMP types, and the layer 7 rules on them
    peers.py       whom a rule is about, beside endpoints
    cilium.py      CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, CiliumCIDRGroup
    kubernetes.py  NetworkPolicy
    kinds.py       all of them by name

Source: spec/policy.md, sections 1 to 5.
"""
