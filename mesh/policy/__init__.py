"""Network policy: who may talk to whom, from YAML to entries of the kernel's policy maps.

In:        CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, CiliumCIDRGroup and NetworkPolicy resources; identities.
Out:       one bpf.policies.EndpointPolicy for each endpoint of a node, and which rules stand behind its entries.
Elsewhere: bpf/policies.py writes maps, bpf/include/policy.h looks up; mesh/main.py calls `node.NodePolicies`.

    documents/     the resources as users write them, checked field by field
    translate.py   resources to rules: one form for all kinds
    rules.py       that form
    peers.py       selectors over identities, and what each selects
    local.py       identities of prefixes, known on this node only
    compiling.py   rules and identities to map entries
    outcome.py     what comes of it, and what is refused
    node.py        all of it for one node, done again only where something changed
"""
