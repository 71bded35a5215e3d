"""How each process of ours runs: settings, logs, signals, fatal errors.

In:        flags, environment, one TOML file.
Out:       one frozen configuration object per service, structured logs on stderr, a clean exit.
Elsewhere: what the services do is in observer/, relay/, ui/, mesh/; the command line that starts them is in cli/.
"""
