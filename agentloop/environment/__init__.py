"""The environment protocol, typed tools, discovery, and adapters for other ecosystems' environments."""
