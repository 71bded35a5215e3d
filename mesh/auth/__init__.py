"""Mutual authentication: identities of two nodes prove to each other who they are before their packets pass.

In:        policies that ask for it; pairs of identities whose packets the kernel has dropped for want of a proof.
Out:       records in the kernel that let them pass for a while; a word to whoever asks why they do not.
Elsewhere: bpf/include/auth.h looks records up and asks for them; mesh/policy/ says which pairs need one.

    spiffe.py        what an identity is called in a certificate
    certificates.py  keys, requests, certificates; the authority
    documents.py     CertificateSigningRequest and ClusterTrustBundle
    issuing.py       the controller's part: signs what nodes ask for
    keyring.py       a node's certificates: asked for, kept, renewed before they are over
    handshake.py     TLS between two agents
    attempts.py      which pair is tried when
    rules.py         which pairs policies ask for, and what nodes are called in records
    node.py          all of this for one node
"""
