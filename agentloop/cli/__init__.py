"""The commands, one file each; each imports what is heavy only when it runs, so that `agentloop --help` is instant."""
