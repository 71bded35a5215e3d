"""The `flowscope` command: a drop-in for Hubble's command line, and the door to Flowscope's own services.

In:        arguments, environment, a config file, standard input, a gRPC server.
Out:       data on stdout, messages on stderr, an exit code.
Elsewhere: flows as text are model/text; what a filter means is model/filters; services have rooms of their own.

Start with command.py (what a command is) and commands/ (one module per word after `flowscope`).
"""
