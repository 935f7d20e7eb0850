"""Training of LoRA adapters from rows, each in a process of its own. `launch.train` is the one function that others call."""
